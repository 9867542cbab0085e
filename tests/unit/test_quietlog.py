"""control/quietlog, and a log that keeps to it."""

import pytest

from mqmail.base import log
from mqmail.control.quietlog import parse_quietlog


@pytest.fixture
def quiet():
    yield log.set_quiet
    log.set_quiet(frozenset())
    log.set_program("mqmail")


def test_events_that_nobody_wants_are_not_logged(quiet, capfd):
    quiet(parse_quietlog(["connect", "mq-rspawn:sent"], ""))
    for program in ("mq-rspawn", "mq-send"):
        log.set_program(program)
        for event in ("connect", "sent", "delivered"):
            log.event(event)
    assert capfd.readouterr().err.splitlines() == [
        "event=delivered prog=mq-rspawn", "event=sent prog=mq-send", "event=delivered prog=mq-send"]


@pytest.mark.parametrize("line", ["", "Connect", "a b", "x:", "mq_send:sent", ":sent:", "bug",
                                  "mq-send:reload_failed", "a" * 5 + "=b"])
def test_what_names_no_event_is_refused(line):
    with pytest.raises(ValueError, match="write the name|always logged"):
        parse_quietlog([line], "")
