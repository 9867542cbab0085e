"""What one session may use, and what a command that is refused costs."""

import pytest

from mqmail.xmtp import events
from mqmail.xmtp.reply import ProtocolError, Reply, reply
from mqmail.xmtp.server import OVERSHOOT, Limits, Server
from support.dialogue import OFFER, Told, codes, opened

ENVELOPE = b"MAIL FROM:<a@b.com>\r\nRCPT TO:<a@b.com>\r\n"


@pytest.mark.parametrize("size", [513, 1100, 2049, 4200, 66000, 1000000])
@pytest.mark.parametrize("step", [1000, 70000, 1000000])
def test_a_line_too_long_is_refused_once_and_never_a_command(size, step):
    told = opened()
    line = (b"QUIT " * size)[: size - 2] + b"\r\n"
    out = b""
    for at in range(0, len(line), step):
        out += told.say(line[at : at + step])
        assert told.server.buffered <= 2048
    assert out == b"500 5.5.2 line too long\r\n"
    assert codes(told.say(b"NOOP\r\n")) == [250]


@pytest.mark.parametrize("cut", [-3, -2, -1])
def test_a_line_too_long_whose_end_is_cut(cut):
    told = opened()
    line = b"x" * 3000 + b"\r\n"
    assert told.say(line[:cut]) + told.say(line[cut:]) == b"500 5.5.2 line too long\r\n"
    assert codes(told.say(b"NOOP\r\n")) == [250]


def test_a_line_too_long_behind_a_bare_lf():
    told = opened()
    assert codes(told.say(b"NOOP\n" + b"x" * 3000 + b"\r\nNOOP\r\n")) == [500, 500, 250]


def test_a_message_too_large_before_its_flaw():
    told = opened(size=10)
    assert codes(told.say(ENVELOPE + b"DATA\r\n" + b"x" * 11 + b"\n\r\n.\r\n"))[-1] == 552
    assert codes(told.say(ENVELOPE + b"DATA\r\n" + b"x" * 9 + b"\nx\r\n.\r\n"))[-1] == 550


def test_a_line_too_long_is_not_ended_by_a_bare_lf():
    told = opened()
    assert (
        told.say(b"x" * 3000 + b"\nQUIT\r\nNOOP\r\n") == b"500 5.5.2 line too long\r\n250 2.0.0 ok\r\n"
    )
    assert not told.server.closed


def test_the_longest_lines():
    told = opened()
    assert codes(told.say(b"NOOP " + b"x" * 505 + b"\r\n" + b"NOOP " + b"x" * 506 + b"\r\n")) == [
        250,
        500,
    ]
    mail = b"MAIL FROM:<a@b.com> ENVID="
    junk = mail + b"x" * (2046 - len(mail))
    assert (
        told.say(junk + b"\r\n" + junk + b"x\r\n")
        == b"501 5.5.4 bad ENVID\r\n500 5.5.2 line too long\r\n"
    )


def test_too_long_an_authentication_line():
    told = opened(offer=("AUTH LOGIN",))
    assert codes(told.say(b"AUTH LOGIN\r\n" + b"x" * 12286 + b"\r\n")) == [334, 535]
    assert codes(told.say(b"AUTH LOGIN\r\n")) == [334]
    for _ in range(20):
        assert told.say(b"QUIT " * 2000) == b""
        assert told.server.buffered <= 12288
    assert told.say(b"QUIT\r\nNOOP\r\n") == b"500 5.5.6 authentication line too long\r\n250 2.0.0 ok\r\n"


def test_a_token_may_come_with_the_command():
    told = opened(offer=("AUTH XOAUTH2",))
    line = b"AUTH XOAUTH2 " + b"x" * (12286 - 13)
    assert codes(told.say(line + b"x\r\n")) == [500]
    assert codes(told.say(line + b"\r\n")) == [535]
    assert codes(told.say(b"MAIL FROM:<a@b.com> ENVID=" + b"x" * 3000 + b"\r\n")) == [500]


def test_recipients_without_end_end_the_session():
    told = opened(recipients=1, errors=3)
    rcpt = b"RCPT TO:<a@b.com>\r\n"
    assert codes(told.say(ENVELOPE + OVERSHOOT * rcpt)) == [250, 250, *OVERSHOOT * [452]]
    assert codes(told.say(9 * rcpt)) == [452, 452, 452, 421]


def test_empty_chunks_without_end_end_the_session():
    told = opened(idle=9)
    assert codes(told.say(ENVELOPE + b"BDAT 0\r\n" * 20))[-3:] == [250, 250, 421]
    assert told.server.closed


def test_errors_end_the_session():
    told = opened(errors=3)
    assert codes(told.say(b"FOO\r\n" * 9)) == [500, 500, 500, 421]
    assert told.server.closed
    assert told.say(b"NOOP\r\n" * 1000) == b""
    assert told.server.buffered == 0


def test_refused_passwords_and_senders_are_errors():
    told = opened(offer=("AUTH PLAIN",), errors=3)
    out = told.say(b"AUTH PLAIN YQ==\r\nMAIL FROM:<no@b.com>\r\n" * 9)
    assert codes(out) == [535, 550, 535, 421]


def test_errors_of_another_mqmail_program_are_free():
    told = opened(offer=("XMQ",), errors=3)
    assert codes(told.say(b"FOO\r\n" * 9)) == [500] * 9


def test_commands_that_were_sent_before_mail_was_refused_are_no_errors():
    told = opened(errors=3)
    rcpts = b"RCPT TO:<a@b.com>\r\n" * 90
    assert codes(told.say(b"MAIL FROM:<later@b.com>\r\n" + rcpts + b"DATA\r\nNOOP\r\n")) == [451] + [
        503
    ] * 91 + [250]
    assert codes(told.say(b"FOO\r\nFOO\r\nFOO\r\nFOO\r\n")) == [500, 500, 500, 421]


def test_only_so_many_of_them():
    told = opened(errors=3, recipients=10)
    assert codes(told.say(b"MAIL FROM:<later@b.com>\r\n" + b"RCPT TO:<a@b.com>\r\n" * 90)) == [451] + [
        503
    ] * 14 + [421]


def test_chunks_behind_a_refusal_are_no_errors():
    told = opened(errors=3)
    assert codes(
        told.say(ENVELOPE + b"BDAT 1\r\n\nBDAT 1\r\nx" + b"BDAT 1\r\nx" * 90 + b"RSET\r\n")
    ) == [250, 250, 550] + [503] * 91 + [250]


def test_chunks_before_mail_are():
    told = opened(errors=3)
    assert codes(told.say(b"BDAT 1\r\nx" * 9)) == [503, 503, 503, 421]


@pytest.mark.parametrize(
    "command", [b"NOOP", b"HELP", b"VRFY a", b"RSET", b"EHLO c", b"MAIL FROM:<later@b.com>"]
)
def test_commands_that_lead_nowhere(command):
    told = opened(idle=5)  # the hello was one
    answers = codes(told.say((command + b"\r\n") * 9))
    assert len(answers) == 5
    assert answers[-1] == 421
    assert told.server.closed


def test_a_message_makes_new_room_for_them():
    told = opened(idle=3)
    for _ in range(5):
        assert 421 not in codes(told.say(b"NOOP\r\n" + ENVELOPE + b"BDAT 0 LAST\r\n"))


def test_no_limit_of_them():
    told = opened(idle=0)
    assert codes(told.say(b"NOOP\r\n" * 500)) == [250] * 500


def test_refused_recipients():
    told = opened(refused=3)
    answers = codes(told.say(b"MAIL FROM:<>\r\n" + b"RCPT TO:<no@b.com>\r\n" * 9))
    assert answers == [250, 550, 550, 550, 421]


def test_too_many_recipients():
    for late in (False, True):
        told = opened(recipients=2, late=late)
        answers = codes(
            told.say(
                b"MAIL FROM:<>\r\nRCPT TO:<a@b.com>\r\nRCPT TO:<no@b.com>\r\n"
                + b"RCPT TO:<b@b.com>\r\n" * 3
                + b"BDAT 0 LAST\r\n"
            )
        )
        assert answers == [250, 250, 550, 250, 452, 452, 250]
        assert told.bodies == [b""]


def test_no_more_recipients_are_asked_about_than_may_be_accepted():
    told = opened(recipients=5)
    server = told.server
    server.feed(b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@b.com>\r\n" * 4000)
    server.answer(server.next_event())
    asked = 0
    while server.next_event() is not None:
        asked += 1
    assert asked == 5
    assert len(codes(server.take_output())) == 1


def test_a_message_announced_too_large():
    told = opened(size=10)
    assert codes(told.say(b"MAIL FROM:<> SIZE=11\r\nMAIL FROM:<> SIZE=10\r\n")) == [552, 250]


@pytest.mark.parametrize(
    "body", [b"DATA\r\n" + b"x" * 9 + b"\r\n.\r\n", b"BDAT 11 LAST\r\n" + b"x" * 11]
)
def test_a_message_too_large(body):
    told = opened(size=10)
    assert codes(told.say(ENVELOPE + body + b"NOOP\r\n"))[-2:] == [552, 250]
    assert told.bodies == []
    assert [type(event) for event in told.log][-2:] == [events.BodyFailed, events.Reset]


def test_a_message_just_not_too_large():
    told = opened(size=10)
    assert codes(told.say(ENVELOPE + b"DATA\r\n" + b"x" * 8 + b"\r\n.\r\n"))[-1] == 250
    assert codes(told.say(ENVELOPE + b"BDAT 4\r\nxxxxBDAT 6 LAST\r\nxxxxxx"))[-1] == 250


def test_a_line_of_text_too_long():
    told = opened()
    for length, code in ((998, 250), (999, 554)):
        answers = told.say(ENVELOPE + b"DATA\r\n" + b"x" * length + b"\r\n.\r\n")
        assert codes(answers)[-1] == code


def test_many_small_chunks():
    told = opened()
    answers = codes(told.say(ENVELOPE + b"BDAT 2\r\n\r\n" * 20000 + b"BDAT 0 LAST\r\n"))
    assert answers == [250] * 20003
    assert told.bodies == [b"\r\n" * 20000]


def test_a_huge_chunk_is_swallowed_as_it_comes():
    told = opened(size=1000)
    told.say(ENVELOPE + b"BDAT 999999999999999999\r\n")
    for _ in range(50):
        assert told.say(b"QUIT\r\n" * 10000) == b""
        assert told.server.buffered == 0
    assert told.server.in_transaction


def test_lmtp_says_for_each_recipient_why_the_body_was_refused():
    told = opened("lmtp", size=5)
    out = told.say(
        ENVELOPE + b"RCPT TO:<no@b.com>\r\nRCPT TO:<b@b.com>\r\nDATA\r\n0123456789\r\n.\r\nNOOP\r\n"
    )
    assert codes(out) == [250, 250, 550, 250, 354, 552, 552, 250]


def test_an_application_that_cannot_take_the_body():
    told = opened("lmtp")
    told.say(ENVELOPE + b"RCPT TO:<b@b.com>\r\nDATA\r\n")
    told.say(b"some\r\n")
    told.server.fail_body(reply(452, "4.3.1", "disk full"))
    assert codes(told.say(b"more\n\r\n.\r\nNOOP\r\n")) == [452, 452, 250]


def test_answers_after_the_end_are_for_nobody():
    told = opened("lmtp")
    server = told.server
    server.feed(ENVELOPE)
    server.answer(server.next_event())
    rcpt = server.next_event()
    server.close(reply(421, "4.3.2", "closing"))
    server.answer(rcpt)
    server.answer_recipient(0)
    server.close(reply(421, "4.3.2", "again"))
    assert codes(server.take_output()) == [250, 421]
    assert server.next_event() is None


def test_an_answer_that_is_not_owed_is_a_bug():
    told = opened("lmtp")
    with pytest.raises(RuntimeError, match="no answer is owed to Data"):
        told.server.answer(events.Data())
    with pytest.raises(RuntimeError, match="recipient 0"):
        told.server.answer_recipient(0)


def test_one_answer_for_all_recipients_of_lmtp():
    told = opened("lmtp")
    server = told.server
    told.say(ENVELOPE + b"RCPT TO:<b@b.com>\r\nRCPT TO:<c@b.com>\r\n")
    server.feed(b"BDAT 0 LAST\r\n")
    server.answer(server.next_event())
    end = server.next_event()
    server.answer_recipient(1, reply(550, "5.1.1", "no"))
    server.answer(end, reply(451, "4.3.0", "trouble"))
    assert codes(server.take_output()) == [451, 550, 451]
    assert server.state == "ready"


def test_quit_waits_for_what_is_owed():
    told = opened()
    server = told.server
    server.feed(b"MAIL FROM:<>\r\nQUIT\r\n")
    mail = server.next_event()
    assert server.next_event() is None
    assert server.owing
    server.answer(mail)
    assert type(server.next_event()) is events.Quit
    assert codes(server.take_output()) == [250, 221]


@pytest.mark.parametrize("verb", [b"EHLO c\r\n", b"RSET\r\n"])
def test_the_application_hears_of_the_end_of_a_transaction(verb):
    told = opened()
    told.say(ENVELOPE + verb)
    assert [type(event) for event in told.log if type(event) is not events.Hello][-1] is events.Reset
    told.log.clear()
    told.say(verb)
    assert events.Reset() not in told.log


def test_a_refused_hello_changes_nothing():
    told = opened()
    server = told.server
    told.say(ENVELOPE)
    server.feed(b"EHLO c\r\n")
    server.answer(server.next_event(), reply(550, "5.7.1", "not you"))
    assert server.next_event() is None
    assert server.state == "rcpt"
    server.feed(b"EHLO c\r\n")
    server.answer(server.next_event(), Reply(250, ("mine",)))
    assert server.next_event() == events.Reset()
    assert server.state == "ready"


def test_a_greeting_of_421_ends_the_session():
    told = Told()
    told.server.greet(reply(421, "4.3.2", "busy"))
    assert told.server.closed


# --- XMQ: descriptors ---

XMQ = (*OFFER, "XMQ")


def test_a_file_and_its_verdicts():
    told = opened("lmtp", offer=XMQ, order=lambda numbers: numbers[::-1])
    out = told.say(
        b"MAIL FROM:<> XID=abc XVIA=proto+3Desmtp XCONN=3\r\nRCPT TO:<@local:a@b.com>\r\n"
        b"RCPT TO:<no@b.com>\r\nRCPT TO:<full@b.com> XSTATUS=5.1.1 XSAID=a+20b\r\nXFD 12\r\nNOOP\r\n",
        [77],
    )
    assert out.split(b"\r\n")[3:] == [
        b"250 2.1.5 recipient ok",
        b"452 4.2.2 #2 mailbox full",
        b"250 2.0.0 #1 ok",
        b"250 2.0.0 ok",
        b"",
    ]
    mail, first, _, last, file = told.log
    assert (mail.xid, mail.xvia, mail.xconn) == ("abc", "proto=esmtp", 3)
    assert (first.destination, first.address) == ("local", "a@b.com")
    assert last.x == (("status", "5.1.1"), ("said", "a b"))
    assert file == events.BodyFile(77, 12)
    assert told.server.take_descriptors(everything=True) == []


@pytest.mark.parametrize(
    ("before", "line", "answers"),
    [
        (b"", b"XFD 5", [503]),
        (b"MAIL FROM:<>\r\n", b"XFD 5", [250, 503]),
        (b"MAIL FROM:<>\r\nRCPT TO:<no@b.com>\r\n", b"XFD 5", [250, 550, 503]),
        (ENVELOPE, b"XFD", [250, 250, 501]),
        (ENVELOPE, b"XFD 5 5", [250, 250, 501]),
        (ENVELOPE, b"XFD -5", [250, 250, 501]),
        (ENVELOPE + b"RCPT TO:<b@b.com>\r\n", b"XFD 101", [250, 250, 250, 552, 552]),
        (ENVELOPE + b"BDAT 1\r\nx", b"XFD 5", [250, 250, 250, 503]),
    ],
)
def test_a_refused_file_ends_the_transaction_and_its_descriptor_is_closed(before, line, answers):
    told = opened("lmtp", offer=XMQ, size=100)
    assert codes(told.say(before + line + b"\r\n", [77])) == answers
    assert told.server.state == "ready"
    assert told.server.take_descriptors() == [77]
    assert (events.Reset() in told.log) == (b"MAIL" in before)
    assert codes(told.say(ENVELOPE + b"XFD 5\r\n", [78]))[-1] == 250
    assert told.log[-1] == events.BodyFile(78, 5)


def test_a_file_without_a_descriptor():
    told = opened("lmtp", offer=XMQ)
    assert codes(told.say(ENVELOPE + b"RCPT TO:<b@b.com>\r\nXFD 5\r\n"))[3:] == [501, 501]


def test_descriptors_from_strangers_are_given_back():
    told = opened()
    assert codes(told.say(ENVELOPE + b"XFD 5\r\n", [77])) == [250, 250, 500]
    assert told.server.take_descriptors() == [77]


def test_smtp_takes_no_file_and_says_so():
    """An application of SMTP that knows no BodyFile would have said its usual yes to it."""
    told = opened(offer=XMQ)
    assert codes(told.say(ENVELOPE + b"XFD 5\r\n", [77])) == [250, 250, 502]
    assert told.server.take_descriptors() == [77]
    assert told.server.state == "ready"
    assert told.log[-1] == events.Reset()


def test_a_flood_of_descriptors():
    told = opened("lmtp", offer=XMQ)
    with pytest.raises(ProtocolError, match="too many descriptors"):
        for number in range(10):
            told.say(b"NOOP\r\n", [number * 10 + more for more in range(10)])
    assert len(told.server.take_descriptors(everything=True)) == 70


def test_descriptors_of_a_session_that_ended():
    told = opened(offer=XMQ)
    told.say(b"NOOP\r\n", [70])
    told.say(b"QUIT\r\n")
    told.say(b"NOOP\r\n", [71])
    assert sorted(told.server.take_descriptors(everything=True)) == [70, 71]


def test_destinations_are_for_xmq_only():
    told = opened()
    told.say(b"MAIL FROM:<@relay:a@b.com>\r\nRCPT TO:<@local:a@b.com>\r\n")
    assert (told.log[0].sender, told.log[1].address, told.log[1].destination) == (
        "a@b.com",
        "a@b.com",
        "",
    )
    told = opened(offer=XMQ)
    assert codes(
        told.say(b"MAIL FROM:<@local:a@b.com>\r\nMAIL FROM:<>\r\nRCPT TO:<@a.b:c@d.com>\r\n")
    ) == [501, 250, 501]


def test_recipients_are_accepted_in_the_order_of_their_commands():
    told = opened("lmtp", late=True)
    told.say(
        b"MAIL FROM:<>\r\nRCPT TO:<a@b.com>\r\nRCPT TO:<no@b.com>\r\n"
        b"RCPT TO:<c@b.com>\r\nRCPT TO:<d@b.com>\r\n"
    )
    assert [rcpt.address for rcpt in told.server.accepted] == ["a@b.com", "c@b.com", "d@b.com"]


def test_xhop_is_handed_out_to_xmq_callers_only_and_refused_by_who_does_not_know_it():
    for words, expected in ((("XMQ",), [events.Hop]), (("PIPELINING",), [])):
        server = Server("lmtp", "here.example", words, Limits(idle=0))
        server.feed(b"LHLO me.example\r\nXHOP host=mx.example port=25\r\n")
        server.answer(server.next_event())
        event = server.next_event()
        assert [type(event)] == (expected or [type(None)])
        if expected:
            assert event.facts == "host=mx.example port=25"
            server.answer(event)
        assert server.take_output().split(b"\r\n")[-2].startswith(b"502 5.5.1 ")
