import email
import email.policy

import pytest

from mqmail.mail.dsn import (
    Report,
    Reported,
    headers_only,
    needs_8bit,
    needs_utf8,
    report,
    returns_full,
)

SEED = "1kq3v9s0c0g00a2f8c1d"
BOB = Reported("bob@example.com", "failed", "5.1.1", "rfc822;robert@example.com", "mx.example.com",
               "550 5.1.1 No such user", "Fri, 22 Nov 2024 07:24:01 +0000")
ORIGINAL = b"From: alice@example.org\r\nSubject: hello\r\n\r\nHow are you?\r\n--not a boundary\r\n"


def about(*recipients, **facts):
    given = {"host": "mx.example.org", "sender": "MAILER-DAEMON@example.org",
             "to": "alice@example.org", "date": "Fri, 22 Nov 2024 07:24:02 +0000",
             "message_id": "<1kq3@mx.example.org>", "seed": SEED, "size": len(ORIGINAL)}
    return Report(recipients=recipients or (BOB,), **{**given, **facts})


def raw(subject, original=ORIGINAL, **options):
    return b"".join(report(subject, iter([original]), **options))


def parsed(subject, original=ORIGINAL, **options):
    message = email.message_from_bytes(raw(subject, original, **options), policy=email.policy.default)
    assert not message.defects
    return message


@pytest.mark.parametrize(("orcpt", "shown"), [
    ("rfc822;robert@example.com", "<bob@example.com> (sent to <robert@example.com>): "),
    ("RFC822;Bob@Example.com", "<bob@example.com>: "), ("x400;robert", "<bob@example.com>: "),
    ("", "<bob@example.com>: ")])
def test_a_person_finds_the_address_that_was_written_to(orcpt, shown):
    assert shown in words(about(BOB.replace(orcpt=orcpt)))


def parts(subject, original=ORIGINAL, **options):
    return parsed(subject, original, **options).get_payload()


def fields(subject):
    return parts(subject)[1].get_payload()


def words(subject):
    return " ".join(parts(subject)[0].get_content().split())


def test_the_header():
    message = parsed(about())
    assert message["From"].addresses[0].addr_spec == "MAILER-DAEMON@example.org"
    assert message["To"].addresses[0].addr_spec == "alice@example.org"
    assert message["Subject"] == "Undelivered mail: bob@example.com"
    assert message["Date"].datetime.year == 2024
    assert message["Message-ID"] == "<1kq3@mx.example.org>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"


def test_the_three_parts():
    text, status, original = parts(about())
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert original.get_content_type() == "message/rfc822"
    assert original.get_payload(0)["Subject"] == "hello"


def test_the_original_is_returned_byte_for_byte():
    assert raw(about()).partition(b"message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\n")[2] == (
        ORIGINAL + f"\r\n--=_mqmail.{SEED}--\r\n".encode())


def test_the_fields_of_the_message():
    whole = fields(about(envid="QQ314159", arrived="Fri, 22 Nov 2024 07:23:00 +0000"))[0]
    assert whole.items() == [("Reporting-MTA", "dns; mx.example.org"),
                             ("Original-Envelope-Id", "QQ314159"),
                             ("Arrival-Date", "Fri, 22 Nov 2024 07:23:00 +0000")]


def test_the_fields_of_a_recipient():
    assert fields(about())[1].items() == [
        ("Original-Recipient", "rfc822; robert@example.com"),
        ("Final-Recipient", "rfc822; bob@example.com"),
        ("Action", "failed"), ("Status", "5.1.1"), ("Remote-MTA", "dns; mx.example.com"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 No such user"),
        ("Last-Attempt-Date", "Fri, 22 Nov 2024 07:24:01 +0000")]


def test_each_recipient_has_a_block_of_its_own():
    blocks = fields(about(BOB, Reported("eve@example.com", "delayed", until="Sat, 23 Nov 2024")))
    assert [one["Final-Recipient"] for one in blocks[1:]] == ["rfc822; bob@example.com",
                                                               "rfc822; eve@example.com"]
    assert blocks[2].items()[1:] == [("Action", "delayed"), ("Status", "4.0.0"),
                                     ("Will-Retry-Until", "Sat, 23 Nov 2024")]


def test_our_own_words_are_no_smtp_reply():
    block = fields(about(BOB.replace(host="", said="550 said a program")))[1]
    assert block["Diagnostic-Code"] == "x-mqmail; 550 said a program"
    assert "Remote-MTA" not in block


def test_a_socket_is_no_domain_name():
    assert fields(about(BOB.replace(host="run/lmtp.sock")))[1]["Remote-MTA"] == "x-mqmail; run/lmtp.sock"


@pytest.mark.parametrize(("host", "remote"), [
    ("mx.example.com[192.0.2.1]:25", "dns; mx.example.com (192.0.2.1)"),
    ("mx.example.com[2001:db8::1]:25", "dns; mx.example.com (2001:db8::1)"),
    ("mx.example.com:2525", "dns; mx.example.com"), ("[192.0.2.1]:25", "dns; [192.0.2.1]"),
    ("[2001:db8::1]", "dns; [IPv6:2001:db8::1]"), ("mx[evil]:25", "x-mqmail; mx[evil]:25"),
    ("mx[192.0.2.1] (x", "x-mqmail; mx[192.0.2.1] (x"), ("mx[192.0.2.1", "x-mqmail; mx[192.0.2.1")])
def test_the_address_of_a_host_is_a_comment(host, remote):
    block = fields(about(BOB.replace(host=host)))[1]
    assert block["Remote-MTA"] == remote
    assert block["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"


def test_a_person_reads_who_why_and_what_to_do():
    text = words(about())
    assert "This is the mail system at mx.example.org." in text
    assert ("<bob@example.com> (sent to <robert@example.com>): there is no such mailbox; please check"
            " the address for typing errors. mx.example.com said: 550 5.1.1 No such user") in text
    assert "No further attempt will be made" in text
    assert "The message is enclosed." in text


def test_a_delay():
    late = about(Reported("bob@example.com", "delayed", "4.4.1", until="Sat, 23 Nov 2024"))
    assert parsed(late)["Subject"] == "Delayed mail: bob@example.com"
    assert ("not been delivered yet to: <bob@example.com>: its mail server does not answer "
            "(attempts go on until Sat, 23 Nov 2024). You need not do anything") in words(late)


@pytest.mark.parametrize(("action", "sentence"), [
    ("delivered", "it is in the mailbox."),
    ("relayed", "it was passed on to a mail system that sends no reports."),
    ("expanded", "it was passed on to the addresses that this one stands for."),
])
def test_good_news(action, sentence):
    good = about(Reported("bob@example.com", action))
    assert parsed(good)["Subject"] == "Delivered mail: bob@example.com"
    assert f"Your message has been delivered to: <bob@example.com>: {sentence}" in words(good)
    assert "could not" not in words(good)
    assert fields(good)[1]["Status"] == "2.0.0"


def test_several_recipients_in_one_report():
    mixed = about(BOB, Reported("eve@example.com", "delivered"), Reported("x@example.com"))
    assert parsed(mixed)["Subject"] == "Undelivered mail: 3 recipients"
    text = words(mixed)
    assert text.index("<x@example.com>") < text.index("has been delivered to") < text.index("<eve@")


def test_a_double_bounce_tells_the_postmaster():
    twice = about(double=True, to="postmaster@example.org")
    assert parsed(twice)["Subject"] == "Undeliverable bounce: bob@example.com"
    assert "Dear postmaster: a message with the null sender <>" in words(twice)
    assert "Your message" not in words(twice)


@pytest.mark.parametrize(("action", "ret", "size", "full"), [
    ("failed", "full", 10**9, True), ("failed", "hdrs", 5, False), ("failed", "", 1000, True),
    ("failed", "", 1001, False), ("delayed", "full", 5, False), ("delivered", "", 5, False),
])
def test_what_is_returned(action, ret, size, full):
    subject = about(Reported("bob@example.com", action), ret=ret, size=size)
    assert returns_full(subject, full_limit=1000) is full
    kind = parts(subject, full_limit=1000)[2].get_content_type()
    assert kind == ("message/rfc822" if full else "text/rfc822-headers")


def test_only_the_header_is_returned():
    part = parts(about(ret="hdrs"))[2]
    assert part.get_content().split("\r\n")[:3] == ["From: alice@example.org", "Subject: hello", ""]
    assert b"How are you" not in raw(about(ret="hdrs"))


def test_the_text_says_what_is_enclosed():
    assert "The message's header is enclosed." in words(about(ret="hdrs"))
    large = words(about(size=2000000))
    assert "too large to be returned (2000000 bytes): only its header is enclosed." in large


def test_an_8bit_original_is_declared():
    subject = about(eight_bit=True)
    message = parsed(subject, b"Subject: x\r\n\r\n\xfc\r\n")
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert message.get_payload(2)["Content-Transfer-Encoding"] == "8bit"
    assert message.get_payload(0)["Content-Transfer-Encoding"] == "7bit"
    assert needs_8bit(subject)
    assert not needs_utf8(subject)
    assert not needs_8bit(about())


@pytest.mark.parametrize(("ret", "kind"), [("full", "message/global"),
                                           ("hdrs", "message/global-headers")])
def test_the_utf8_variant(ret, kind):
    subject = about(BOB.replace(recipient="j\u00fcrgen@example.com", orcpt="utf-8;j\u00f6rg@example.com",
                                said="550 unzust\u00e4ndig"), to="al\u00efce@example.org", ret=ret)
    message = email.message_from_bytes(raw(subject), policy=email.policy.SMTPUTF8)
    text, status, original = message.get_payload()
    assert text["Content-Type"].params["charset"] == "utf-8"
    assert "<j\u00fcrgen@example.com>" in text.get_content()
    assert status.get_content_type() == "message/global-delivery-status"
    assert status["Content-Transfer-Encoding"] == "8bit"
    assert original.get_content_type() == kind
    for line in ("Final-Recipient: utf-8; j\u00fcrgen@example.com", "To: <al\u00efce@example.org>",
                 "Original-Recipient: utf-8; j\u00f6rg@example.com",
                 "Diagnostic-Code: smtp; 550 unzust\u00e4ndig"):
        assert f"\r\n{line}\r\n".encode() in raw(subject)
    assert needs_utf8(subject)
    assert needs_8bit(subject)


def test_an_original_with_smtputf8_makes_the_report_one():
    assert needs_utf8(about(utf8=True))
    assert not needs_utf8(about())


def test_a_utf8_address_in_an_ascii_report_has_its_ascii_spelling():
    subject = about(BOB.replace(recipient="j\u00fc+x@example.com", said="550 \u00e4\udcff"))
    assert raw(subject).isascii()
    block = fields(subject)[1]
    assert block["Final-Recipient"] == "utf-8; j\\x{FC}\\x{2B}x@example.com"
    assert block["Diagnostic-Code"] == "smtp; 550 \\x{E4}?"


def test_what_a_hostile_host_says_stays_one_field():
    said = ("550 no\r\nFinal-Recipient: rfc822; x@evil\r\n\r\nAction: delivered\x00\x1b[2J"
            f"\r\n--=_mqmail.{SEED}--\r\n" + "line\r\n" * 5000)
    subject = about(BOB.replace(said=said, host="evil\r\nX: y", orcpt="rfc\r\nX: y;z\r\nX: y"))
    blocks = fields(subject)
    assert len(parts(subject)) == 3
    assert len(blocks) == 2
    assert blocks[1].keys() == ["Original-Recipient", "Final-Recipient", "Action", "Status",
                                "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"]
    assert blocks[1]["Action"] == "failed"
    assert blocks[1]["Original-Recipient"] == "unknown; z X: y"
    assert len(blocks[1]["Diagnostic-Code"]) < 1100
    assert len(raw(subject)) < 6000


def test_the_first_lines_of_a_hostile_reply_never_start_a_line():
    whole = raw(about(BOB.replace(said=f"--=_mqmail.{SEED}", host="--x", recipient="--y")))
    assert whole.count(f"\r\n--=_mqmail.{SEED}".encode()) == 4


def test_a_long_word_is_cut():
    lines = raw(about(BOB.replace(said="x" * 5000))).split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert b" ..." in raw(about(BOB.replace(said="x" * 5000)))


@pytest.mark.parametrize("bad", [{"seed": "short"}, {"seed": 'x"' * 10}, {"seed": "x" * 61}])
def test_a_bad_seed_is_refused(bad):
    with pytest.raises(ValueError, match="seed"):
        raw(about(**bad))


def test_a_bad_action_is_refused():
    with pytest.raises(ValueError, match="unknown action"):
        raw(about(Reported("a@b.example", "eaten")))


def test_a_report_on_nobody_is_refused():
    with pytest.raises(ValueError, match="no recipient"):
        raw(about().replace(recipients=()))


def test_a_large_original_streams():
    chunk = b"x" * 78 + b"\r\n"
    asked = []

    def original():
        for number in range(1000):
            asked.append(number)
            yield chunk

    pieces = report(about(ret="full", size=80000), original())
    while not asked:
        next(pieces)
    assert asked == [0]
    assert sum(map(len, pieces)) > 79000


def test_only_the_header_is_read_when_only_that_is_returned():
    def original():
        yield b"Subject: x\r\n\r\n"
        raise AssertionError("the body was read")

    assert list(headers_only(original())) == [b"Subject: x\r\n"]


@pytest.mark.parametrize(("message", "header"), [
    (b"", b""), (b"\r\nbody", b""), (b"A: b\r\n\r\nbody", b"A: b\r\n"), (b"A: b\r\n", b"A: b\r\n"),
    (b"A: b\r\nC: d\r\nE: f\r\n\r\n", b"A: b\r\nC: d\r\n"), (b"x" * 20, b""),
])
def test_a_header_in_whole_lines_up_to_a_limit(message, header):
    assert b"".join(headers_only([message], longest=12)) == header


def test_a_header_without_end_is_not_read_to_its_end():
    def original():
        yield from [b"A: b\r\n"] * 3
        raise AssertionError("more was read than is returned")

    assert list(headers_only(original(), longest=12)) == [b"A: b\r\n" * 2]
