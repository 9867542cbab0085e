"""xmq(7) names every command, parameter and fact of XMQ that the code takes."""

import pytest

from mqmail.auth import talk
from mqmail.auth.ledger import KINDS
from mqmail.remote import request
from mqmail.xmtp import params, states
from support.home import ROOT

TEXT = (ROOT / "man/xmq.7").read_text(encoding="utf-8")
PARAMETERS = [name for table in (params._MAIL, params._RCPT)
              for name, (extension, _, _) in table.items() if extension == "XMQ"]
COMMANDS = [verb for verb, extension in states.NEEDS.items() if extension == "XMQ"]


def section(title):
    return TEXT.partition(f".Ss {title}\n")[2].partition("\n.S")[0].replace(",", " ").split()


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_parameter_has_an_item(name):
    assert f".It Cm {name} Ns = Ns Ar " in TEXT


@pytest.mark.parametrize("verb", COMMANDS)
def test_each_command_has_a_section(verb):
    assert f".D1 Cm {verb} Ar " in TEXT


def test_nothing_else_has():
    def named(start):
        return {line.split()[2] for line in TEXT.splitlines() if line.startswith(start)}
    assert (named(".It Cm X"), named(".D1 Cm ")) == (set(PARAMETERS), set(COMMANDS))


def test_facts():
    known = (*talk.BINDINGS, *KINDS, "ip", "session", "certificate", "mechanisms", "login")
    assert [fact for fact in known if fact not in section("The command XSESSION")] == []
    assert [fact for fact in request._FACTS
            if fact not in section("The command XHOP") and f"{fact}=" not in TEXT] == []
