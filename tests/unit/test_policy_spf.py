"""SPF: the test suite of RFC 7208 (tests/spf), and what it leaves out."""

import json
from pathlib import Path

import pytest

from mqmail.base.waiter import run
from mqmail.mail.mxlist import FAILED, FOUND, NOTHING, UNKNOWN, Answer
from mqmail.policy.spf import Question, Result, check_host
from mqmail.policy.spfmacro import expand, parse_text

DATA = Path(__file__).parents[1] / "spf" / "rfc7208-tests.json"
SUITE = [pytest.param(part["zonedata"], test, id=name)
         for part in json.loads(DATA.read_text(encoding="utf-8")) for name, test in part["tests"].items()]


def octets(text):
    """TXT data as the suite writes it: a string, or a list of strings."""
    return "".join([text] if isinstance(text, str) else text).encode("latin-1")


class Zone:
    """DNS as the suite describes it: name to a list of {type: data}, "TIMEOUT" for the types that are
    not there. SPF stands for TXT unless the name has that too."""

    def __init__(self, data):
        self.names = {name.lower().removesuffix("."): rows for name, rows in data.items()}
        self.asked = []

    async def lookup(self, name, kind):
        self.asked.append((name, kind))
        rows = self.names.get(name)
        if rows is None:
            return Answer(UNKNOWN)
        has_txt = any("TXT" in row for row in rows if isinstance(row, dict))
        wanted = "SPF" if kind == "TXT" and not has_txt else kind
        found = []
        for row in rows:
            if row == "TIMEOUT":
                if not found:
                    return Answer(FAILED, why="no answer in time")
            elif "CNAME" in row:
                return await self.lookup(row["CNAME"].lower(), kind)
            elif wanted in row:
                data = row[wanted]
                if data == "TIMEOUT":
                    return Answer(FAILED, why="no answer in time")
                if data != "NONE":
                    found.append(_record(kind, data))
        return Answer(FOUND, tuple(found)) if found else Answer(NOTHING)


def _record(kind, data):
    if kind == "TXT":
        return octets(data)
    if kind == "MX":
        return data[0], data[1].lower().removesuffix(".") or "."
    return data.lower().removesuffix(".") if kind == "PTR" else data


def ask(zone, ip="1.2.3.4", sender="foo@a.example", helo="mail.example.com", **more):
    return run(check_host(Question(ip, sender, helo, **more), zone.lookup))


@pytest.mark.parametrize(("data", "test"), SUITE)
def test_the_suite(data, test):
    """A list of results holds those that the RFC allows."""
    sender = test["mailfrom"] or "postmaster@" + test["helo"]
    found = ask(Zone(data), test["host"], sender, test["helo"])
    allowed = test["result"] if isinstance(test["result"], list) else [test["result"]]
    assert found.result in allowed, found
    expected = test.get("explanation", found.explanation)
    wanted = "" if expected == "DEFAULT" else expected     # hex digits may be of either case
    assert found.explanation.lower() == wanted.lower()
