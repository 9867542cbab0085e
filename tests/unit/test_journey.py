"""Log lines into journeys."""

from mqmail.demo.journey import MOST, Journeys
from mqmail.queue import ids

START = 1_700_000_000_000_000
ID = ids.make(START, 7)
REPORT = ids.make(START + 50_000, 8)
NOW = START / 1e6


def journey(*lines):
    """What each line completes; the lines come 2 ms apart."""
    journeys = Journeys()
    return [journeys.add(line, NOW + 0.002 * number) for number, line in enumerate(lines, 1)]


def test_a_delivered_message_is_told_when_it_is_finished():
    assert journey(
        f"event=queued prog=mq-queue id={ID} size=9 sender=a@b.example proto=esmtp ip=192.0.2.1",
        f"event=accepted prog=xmtpd id={ID} session=x",
        f"event=replaced prog=mq-send id={ID} to=1 destination=new address=bob@c.example"
        " by=@mailbox:bob@c.example",
        f"event=delivered prog=mq-send id={ID} destination=mailbox address=bob@c.example said=in+20new",
        f"event=finished prog=mq-send id={ID} seconds=0.1",
    ) == ["", "", "", "", "\n".join([
        f"message {ID}",
        "      2 ms  xmtpd took it by ESMTP from 192.0.2.1 (from a@b.example);"
        " mq-queue has it safe on disk",
        "      6 ms  mq-resolve: bob@c.example is a mailbox",
        "      8 ms  mq-lspawn: delivered to bob@c.example (in new)",
        "     10 ms  mq-send: nothing is left to do; removed from the queue"])]


def last(*lines):
    return journey(*lines)[-1].split("\n")[1:]


def test_an_alias_names_its_targets():
    assert "a@x stands for b@x, c@x" in last(
        f"event=replaced id={ID} address=a@x destination=new by=@new:b@x+20@new:c@x",
        f"event=finished id={ID}")[0]


def test_a_deferral_is_told_at_once_with_its_reason():
    text = last(f"event=deferred id={ID} address=a@x destination=remote retry=400 said=no+20route")
    assert text == ["      2 ms  mq-rspawn: not now: a@x (no route); again in 400 s"]


def test_a_failure_names_the_report():
    lines = last(f"event=failed id={ID} address=a@x destination=new said=550+20no+20such+20user",
                 f"event=told id={ID} to=1 action=failed said=250+202.0.0+20id+3D{REPORT}",
                 f"event=finished id={ID}")
    assert lines[0].endswith("mq-resolve: impossible: a@x (550 no such user)")
    assert lines[1].endswith(f"mq-bounce: tells the sender, in message {REPORT}")


def test_local_mail_and_reports_name_their_origin():
    line = f"event=queued id={ID} sender=a@x "
    assert "user 1000 of this host" in last(line + "proto=local uid=1000", f"event=finished id={ID}")[0]
    assert "mq-bounce wrote" in last(line + "proto=bounce", f"event=finished id={ID}")[0]


def test_what_is_no_event_of_a_message_is_ignored():
    assert journey("", "mq-start: warning: x", "event=ready prog=mq-start", "id=x event=finished",
                   f"event=queued id={ID} id={ID}", "event=queued id=+zz") == [""] * 6


def test_messages_that_never_end_are_forgotten_one_by_one():
    journeys = Journeys()
    for number in range(MOST + 1):
        journeys.add(f"event=queued id={ids.make(START, number)} proto=local", NOW)
    assert journeys.add(f"event=finished id={ids.make(START, 0)}", NOW).count("\n") == 1
    assert journeys.add(f"event=finished id={ids.make(START, MOST)}", NOW).count("\n") == 2
