"""Questions of checks: side by side, with an end, in an event loop and without one."""

import subprocess
import sys
import time

import pytest

from mqmail.base.waiter import Running, run
from mqmail.mail.mxlist import FAILED, FOUND, UNKNOWN, Answer
from mqmail.net.asker import Asker, BlockingAsker
from mqmail.net.daemon import new_loop
from mqmail.net.miniloop import MiniLoop
from mqmail.net.stream import Deadlines
from support.dnsserver import DnsServer
from support.home import ROOT

ZONE = "\n".join(["a.test. 60 IN A 192.0.2.1", "b.test. 60 IN A 192.0.2.2", "d.test. 60 IN A 192.0.2.3",
                  "c.test. 60 IN A 192.0.2.4"])
FAULTS = {"d.test": "drop", "c.test": "tc"}
A, B = Answer(FOUND, ("192.0.2.1",), 60), Answer(FOUND, ("192.0.2.2",), 60)


@pytest.fixture
def server():
    with DnsServer(ZONE, FAULTS) as made:
        yield made


@pytest.fixture(params=["loop", "blocking"])
def ask(request, server):
    """(questions, seconds) to answers."""
    place = [("127.0.0.1", server.port)]
    if request.param == "blocking":
        asker = BlockingAsker(place)
        yield lambda questions, seconds: run(asker.ask_all(questions, seconds))
        return
    loop = new_loop()
    asker = Asker(loop, Deadlines(loop), place)

    def in_loop(questions, seconds):
        found = []

        def ended(result, error):
            found.append((result, error))
            loop.stop()

        loop.call_soon(lambda: Running(asker.ask_all(questions, seconds), ended))
        loop.run_forever()
        assert found[0][1] is None
        return found[0][0]

    yield in_loop
    loop.close()


def test_answers_come_in_the_order_of_the_questions(ask, server):
    questions = [("b.test", "A"), ("x.test", "A"), ("a.test", "A"), ("b.test", "A")]
    assert ask(questions, 5.0) == [B, Answer(UNKNOWN, (), 30), A, B]
    assert len(server.asked) == 3
    assert ask(questions, 0.0) == [B, Answer(UNKNOWN, (), 30), A, B]     # kept
    assert len(server.asked) == 3
    assert ask([], 5.0) == []


def test_an_answer_that_is_cut_off_is_asked_for_by_tcp(ask, server):
    assert ask([("c.test", "A")], 5.0) == [Answer(FOUND, ("192.0.2.4",), 60)]
    assert [how for _, _, how in server.asked] == ["udp", "tcp"]


def test_who_does_not_answer_in_time_holds_nobody_up(ask):
    for seconds in (0.3, 1.0, 5.0, 20.0):
        begun = time.monotonic()
        found = ask([("d.test", "A"), ("a.test", "A"), ("d.test", "MX")], seconds)
        assert time.monotonic() - begun > seconds - 0.05
        if found[1] == A:           # it has had the time to come
            break
    assert found == [Answer(FAILED, why="no answer in time"), A, Answer(FAILED, why="no answer in time")]


def test_one_question(server):
    asker = BlockingAsker([("127.0.0.1", server.port)])
    assert run(asker.ask("a.test", "A", 5.0)) == A


def test_nothing_is_loaded_before_the_first_question():
    code = (f"import sys; sys.path.insert(0, {str(ROOT / 'lib')!r})\n"
            "from mqmail.net.asker import BlockingAsker\nBlockingAsker([])\n"
            "print([name for name in ('dns', 'asyncio', 'uvloop', 'idna') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_calls_come_in_the_order_of_their_times():
    loop, seen = MiniLoop(), []

    async def nothing():
        from mqmail.base.waiter import Waiter
        done = Waiter()
        loop.call_later(0.03, done.set)
        loop.call_later(0.02, seen.append, "second")
        loop.call_later(0.01, seen.append, "never").cancel()
        loop.call_later(0.01, seen.append, "first")
        loop.call_soon(seen.append, "soon")
        await done
        return "end"

    assert loop.complete(nothing()) == "end"
    assert seen == ["soon", "first", "second"]


def test_an_exception_comes_out():
    async def breaks():
        raise KeyError("x")

    with pytest.raises(KeyError):
        MiniLoop().complete(breaks())
