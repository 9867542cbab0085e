"""What mq-bounce has to tell mq-auth, and what xmtpd has, is bounded and told once."""

import pytest

from mqmail.auth import news
from mqmail.base.waiter import run
from mqmail.policy.accounts import Accounts, note_refused
from mqmail.policy.facts import Facts
from mqmail.policy.verdict import LIMIT
from mqmail.xmtp.reply import reply
from support.shells import Looping


@pytest.fixture
def shell():
    one = Looping()
    yield one
    one.close()


def test_what_is_kept_for_mq_auth_is_bounded(shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = news.News(shell.loop, shell.deadlines, "me.example")
    for number in range(news.MOST_LOGINS + 10):
        told.note(f"login{number}", 1)
    assert len(told._refused) == news.MOST_LOGINS
    told.note("login0", 2 * news.MOST)
    told.note("login1", 0)
    assert [told._refused[name] for name in ("login0", "login1")] == [news.MOST, 1]
    assert shell.run(told._tell()) == "No such file or directory"       # there is no mq-auth
    assert len(told._refused) == news.MOST_LOGINS


class Book:
    """Remembers what it was asked, and says what it is told to."""

    def __init__(self):
        self.asked = []
        self.answer = None

    async def ask(self, facts, **counts):
        self.asked.append((facts.login, counts))
        return self.answer


@pytest.mark.parametrize(("code", "login", "counts"), [
    (550, "bob", 1), (553, "bob", 1), (551, "bob", 0), (530, "bob", 0), (450, "bob", 0), (550, "", 0)])
def test_which_refusals_count(code, login, counts):
    facts = Facts("s")
    facts.login = login
    note_refused(facts, reply(code, f"{code // 100}.1.1", "no"))
    assert facts.refused == counts


def test_refusals_are_told_once_with_the_next_question():
    facts, book = Facts("s"), Book()
    facts.login = "bob"
    for _ in range(3):
        note_refused(facts, reply(550, "5.1.1", "no"))
    book.answer = reply(450, "4.7.1", "stopped")
    for kind in ("recipients", "messages"):
        assert run(Accounts(book, kind).look(facts)).action == LIMIT
    assert book.asked == [("bob", {"recipients": 1, "refused": 3}), ("bob", {"messages": 1})]
