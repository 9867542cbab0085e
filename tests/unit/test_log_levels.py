"""control/loglevels, and a log that keeps to it."""

import pytest

from mqmail.base import log
from mqmail.control.loglevels import EVENTS, LEVELS, PROGRAMS, parse_loglevels

ONE_EACH = ("bug", "service_away", "delivered", "connect")      # error, notice, info, debug


@pytest.fixture
def logged(capfd):
    """A function: which of ONE_EACH *program* logs, with these lines in the file, or as before."""
    def look(program, *lines):
        log.set_program(program)
        if lines:
            log.set_quiet(parse_loglevels(lines, ""))
        for event in ONE_EACH:
            log.event(event)
        text = capfd.readouterr().err
        assert all(line.endswith(f" prog={program}") for line in text.splitlines())
        return [line.split()[0].removeprefix("event=") for line in text.splitlines()]
    yield look
    log.set_quiet({})
    log.set_program("mqmail")


@pytest.mark.parametrize(("number", "level"), [*enumerate(LEVELS, 1)])
def test_a_level_has_those_before_it(logged, number, level):
    assert logged("mq-send", f"mq-send {level}") == list(ONE_EACH[:number])
    assert logged("mq-send", f"* {level}") == list(ONE_EACH[:number])


def test_everything_is_logged_without_a_line(logged):
    assert logged("mq-send") == list(ONE_EACH)
    assert logged("mq-send", "xmtpd error") == list(ONE_EACH)


def test_a_program_s_own_level_counts(logged):
    lines = ["* error", "mq-send   info"]
    assert logged("mq-send", *lines) == list(ONE_EACH[:3])
    assert logged("xmtpd", *lines) == ["bug"]


def test_a_process_that_is_named_later_has_its_own_level(logged):
    logged("mq-lspawn", "mq-local error", "mq-lspawn info")
    assert logged("mq-local") == ["bug"]
    assert logged("mq-lspawn") == list(ONE_EACH[:3])


def test_an_event_has_one_level():
    events = [event for level in EVENTS.values() for event in level]
    assert len(set(events)) == len(events)


@pytest.mark.parametrize("line", ["mq-send", "mq-send loud", "mq-start info", "info", "mq_send info",
                                  "mq-send info more"])
def test_what_is_no_level_of_a_program_is_refused(line):
    with pytest.raises(ValueError, match="logs nothing|is no level"):
        parse_loglevels([line], "")


def test_a_program_has_one_line():
    with pytest.raises(ValueError, match="xmtpd has a level already"):
        parse_loglevels([f"{program} info" for program in (*PROGRAMS, "xmtpd")], "")
