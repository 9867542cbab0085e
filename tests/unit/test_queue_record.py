import pytest

from mqmail.base.failure import BadFile
from mqmail.queue import lines, record

HEAD = b"""mqmail1 1h7f64d00i000c1p
at 1732252800.123456
body size=5321 8bit
from alice@example.org ret=hdrs envid=QQ314159
via proto=esmtp ip=192.0.2.1 helo=mail.example.org uid=1000
to 1 new bob@example.com notify=failure,delay orcpt=rfc822;bob@example.com
to 2 new team@example.com
ok
"""
LATER = b"""to 1 mailbox bob@example.com
to 2.2 remote y@b.example sender=owner-team@example.com of=2
to 2.1 remote x@a.example
done 1 1732252801 2.0.0 host=mx said=250+20ok
wait 2.1 1732252802 4.4.1 until=1732253202 host=mx.a.example said=try+20later
fail 2.2 1732252803 5.1.1
told 2.2 1732252803 failed
"""


def states(text: bytes) -> dict[str, str]:
    return {s.recipient.seq: s.kind for s in record.parse(text).current()}


def bad(text: bytes, **limits) -> str:
    with pytest.raises(record.BadRecord) as caught:
        record.parse(text, **limits)
    assert isinstance(caught.value, BadFile)
    return str(caught.value)


def test_the_example():
    found = record.parse(HEAD + LATER)
    assert found.complete
    assert found.good_length == len(HEAD + LATER)
    assert found.envelope == record.Envelope(
        "1h7f64d00i000c1p", 1732252800.123456, 5321, True, False, "alice@example.org", "hdrs",
        "QQ314159", {"proto": "esmtp", "ip": "192.0.2.1", "helo": "mail.example.org", "uid": "1000"})
    assert states(HEAD + LATER) == {"1": "done", "2.1": "wait", "2.2": "fail"}
    one, parted, waits, failed = (found.recipients[n] for n in ("1", "2", "2.1", "2.2"))
    assert one.recipient == record.Recipient(
        "1", "mailbox", "bob@example.com", ("failure", "delay"), "rfc822;bob@example.com")
    assert (one.time, one.status, one.host, one.said) == (1732252801, "2.0.0", "mx", "250 ok")
    assert one.first.destination == "new"
    assert parted.kind == "replaced"
    assert (waits.until, waits.said) == (1732253202, "try later")
    assert (failed.recipient.sender, failed.told) == ("owner-team@example.com", "failed")


def test_head_writes_what_the_example_shows():
    found = record.parse(HEAD)
    assert lines.head(found.envelope, [s.recipient for s in found.current()]) == HEAD


def test_a_replacement_inherits_what_it_does_not_give():
    found = record.parse(HEAD + b"to 1.1 remote a@a.example notify=never sender=<>\n"
                                b"to 1.2 remote b@a.example\nto 1.1.1 local c@a.example\n")
    assert found.recipients["1.1"].recipient == record.Recipient(
        "1.1", "remote", "a@a.example", ("never",), "rfc822;bob@example.com", "")
    assert found.recipients["1.2"].recipient.notify == ("failure", "delay")
    assert found.recipients["1.1.1"].recipient.sender == ""
    assert found.recipients["1.1.1"].recipient.notify == ("never",)


def test_several_replacements_count_only_once_the_first_is_there():
    text = lines.replacements("2", [("new", "a@x.example", None), ("new", "b@x.example", "o@x.example"),
                                    ("remote", "c@x.example", None)])
    steps = text.splitlines(keepends=True)
    assert states(HEAD + b"".join(steps[:2])) == {"1": "pending", "2": "pending"}
    assert states(HEAD + text) == dict.fromkeys(("1", "2.1", "2.2", "2.3"), "pending")
    assert record.parse(HEAD + text).recipients["2.2"].recipient.sender == "o@x.example"


def test_a_set_of_replacements_that_was_cut_off_is_dropped():
    torn = b"".join(lines.replacements("2", [("new", f"{c}@x.example", None) for c in "abcd"])
                    .splitlines(keepends=True)[:2])
    smaller = lines.replacements("2", [("new", "e@x.example", None), ("new", "f@x.example", None)])
    single = lines.replacements("2", [("new", "g@x.example", None)])
    assert states(HEAD + torn + smaller) == dict.fromkeys(("1", "2.1", "2.2"), "pending")
    assert states(HEAD + torn + single) == dict.fromkeys(("1", "2"), "pending")
    assert not record.parse(HEAD + torn + smaller).recipients["2.4"].active
    assert "unknown recipient" in bad(HEAD + torn + b"done 2.4 1 2.0.0\n")


def test_numbers_may_also_come_in_their_order_and_later():
    found = HEAD + b"to 2.1 new a@b.example\nto 2.2 new c@b.example\ndone 2.1 5 2.0.0\n"
    assert states(found) == {"1": "pending", "2.1": "done", "2.2": "pending"}


def test_nobody_is_replaced_by_nothing():
    with pytest.raises(ValueError, match="lost"):
        lines.replacements("1", [])


def test_ancestors_are_all_former_addresses_oldest_first():
    found = record.parse(HEAD + b"to 2 new crew@example.com\nto 2.1 new a@example.com\n"
                                b"to 2.1 new b@example.com\nto 2.1.3 new c@example.com\n"
                                b"to 2.1.1 new d@example.com\nto 2.1.1 remote e@example.com\n")
    assert [r.address for r in record.ancestors(found, "2.1.1")] == [
        "team@example.com", "crew@example.com", "a@example.com", "b@example.com", "d@example.com"]
    assert record.ancestors(found, "1") == []
    assert found.recipients["2"].first.address == "team@example.com"


def test_a_new_verdict_has_not_been_told():
    delayed = HEAD + b"wait 1 5 4.0.0 until=9\ntold 1 6 delayed\nwait 1 7 4.0.0 until=9\n"
    assert record.parse(delayed).recipients["1"].told == "delayed"
    assert record.parse(delayed + b"fail 1 8 5.0.0\n").recipients["1"].told == ""


def test_a_new_address_is_pending_again():
    text = HEAD + b"wait 1 5 4.0.0 until=9 said=x\nto 1 new c@example.com\n"
    found = record.parse(text).recipients["1"]
    assert (found.kind, found.until, found.said) == ("pending", 0, "")
    assert found.recipient.address == "c@example.com"


def test_extend_follows_what_is_appended():
    found = record.parse(HEAD)
    for line in LATER.splitlines(keepends=True):
        record.extend(found, line)
    assert found.good_length == len(HEAD + LATER)
    assert {s.recipient.seq: s.kind for s in found.current()} == states(HEAD + LATER)
    with pytest.raises(record.BadRecord, match="m/ID line 16: "):
        record.extend(found, b"nonsense\n", "m/ID")


def test_a_torn_last_line_is_left_out():
    found = record.parse(HEAD + b"done 1 1732252801 2.0.0")
    assert found.good_length == len(HEAD)
    assert found.recipients["1"].kind == "pending"


@pytest.mark.parametrize("text", [b"", b"mqmai", HEAD[:-1], HEAD[:-4], HEAD[:60], b"\xff\xfe torn"])
def test_without_ok_it_is_not_complete(text):
    found = record.parse(text)
    assert not found.complete
    assert found.envelope is None
    assert found.good_length == text.rfind(b"\n") + 1


def replaced(old: bytes, new: bytes) -> bytes:
    assert HEAD.count(old) == 1
    return HEAD.replace(old, new)


@pytest.mark.parametrize(("text", "error"), [
    (b"\n", "line 1: mqmail1 expected"),
    (replaced(b"mqmail1 ", b"mqmail2 "), "line 1: mqmail1 expected, not 'mqmail2'"),
    (replaced(b"c1p\n", b"c1z\n"), "line 1: bad queue id"),
    (replaced(b"c1p\n", b"c1p x\n"), "line 1: bad queue id"),
    (replaced(b"at 1732252800.123456\n", b""), "line 2: at expected, not 'body'"),
    (replaced(b" 8bit\n", b" 8bit\nbody size=5321\n"), "line 4: from expected, not 'body'"),
    (replaced(b".123456", b""), "line 2: bad time"),
    (replaced(b".123456", b".+23456"), "line 2: bad number '+23456'"),
    (replaced(b"at 1732252800", b"at 1_732_252"), "line 2: bad number"),
    (replaced(b"at 1732252800", b"at 17322528001"), "line 2: bad number"),
    (replaced(b"size=5321", b"size=-1"), "line 3: bad number '-1'"),
    (replaced(b"size=5321", "size=\u0661".encode()), "line 3: bad number"),
    (replaced(b"size=5321", b"size=" + b"9" * 5000), "line 3: bad number"),
    (replaced(b"size=5321", b"length=5321"), "line 3: size= expected"),
    (replaced(b" 8bit", b" 8bit 8bit"), "line 3: only 8bit and utf8"),
    (replaced(b"from alice@example.org", b"from alice"), "line 4: an address has"),
    (replaced(b"from alice@example.org", b"from"), "line 4: "),
    (replaced(b"ret=hdrs", b"ret=half"), "line 4: ret is full or hdrs"),
    (replaced(b"envid=QQ314159", b"envid=a+0b"), "line 4: bad xtext"),
    (replaced(b"envid=QQ314159", b"envid=a\tb"), "line 4: bad xtext"),
    (replaced(b"envid=QQ314159", b"envid=a envid=a"), "line 4: envid given twice"),
    (replaced(b"envid=QQ314159", b"colour=red"), "line 4: unknown fact colour"),
    (replaced(b"uid=1000", b"uid"), "line 5: not name=value: 'uid'"),
    (replaced(b"uid=1000", b"uid=1000 "), "line 5: not name=value"),
    (replaced(b"to 2 ", b"to 3 "), "line 7: recipient 2 expected"),
    (replaced(b"to 2 ", b"to 1 "), "line 7: recipient 2 expected"),
    (replaced(b"to 2 new ", b"to 2 n/w "), "line 7: bad destination 'n/w'"),
    (replaced(b"to 2 new team@example.com", b"to 2 new"), "line 7: too few words"),
    (replaced(b"team@example.com", b"te..am@example.com"), "line 7: bad local part"),
    (replaced(b"team@example.com", b"<>"), "line 7: "),
    (replaced(b"team@example.com", b"team@exa+FFmple.com"), "line 7: bad character in the domain"),
    (replaced(b"notify=failure,delay", b"notify=failure,failure"), "line 6: bad notify"),
    (replaced(b"notify=failure,delay", b"notify=never,delay"), "line 6: bad notify"),
    (replaced(b"notify=failure,delay", b"notify="), "line 6: bad notify"),
    (replaced(b"mail.example.org", b"mail.\xffexample.org"), "line 5: not UTF-8"),
    (replaced(b"\nok\n", b"\nok \n"), "line 8: a recipient or ok expected"),
    (b"".join(HEAD.splitlines(keepends=True)[:5]) + b"ok\n", "line 6: a recipient or ok expected"),
    (HEAD.replace(b"\n", b"\r\n"), "line 1: bad queue id"),
    (HEAD + b"ok\n", "line 9: unknown first word 'ok'"),
    (HEAD + b"\n", "line 9: unknown first word ''"),
    (HEAD + b"gone 1 5 2.0.0\n", "line 9: unknown first word 'gone'"),
    (HEAD + b"done 3 5 2.0.0\n", "line 9: unknown recipient '3'"),
    (HEAD + b"done 1 5\n", "line 9: too few words"),
    (HEAD + b"done 1 five 2.0.0\n", "line 9: bad number 'five'"),
    (HEAD + b"done 1 5 2.0\n", "line 9: bad status '2.0'"),
    (HEAD + b"done 1 5 3.0.0\n", "line 9: bad status '3.0.0'"),
    (HEAD + b"done 1 5 2.0.0 until=5\n", "line 9: unknown fact until"),
    (HEAD + b"wait 1 5 4.0.0\n", "line 9: bad number ''"),
    (HEAD + b"fail 1 5 5.0.0 said=a=b\n", "line 9: bad xtext"),
    (HEAD + b"told 1 5 maybe\n", "line 9: told SEQ TIME ACTION expected"),
    (HEAD + b"told 7 5 failed\n", "line 9: unknown recipient '7'"),
    (HEAD + b"told 1 soon failed\n", "line 9: bad number 'soon'"),
    (HEAD + b"to\n", "line 9: unknown recipient ''"),
    (HEAD + b"to 3 new a@b.example\n", "line 9: unknown recipient '3'"),
    (HEAD + b"to 1.1.1 new a@b.example\n", "line 9: unknown recipient '1.1.1'"),
    (HEAD + b"to 1.0 new a@b.example\n", "line 9: unknown recipient '1.0'"),
    (HEAD + b"to 1.01 new a@b.example\n", "line 9: unknown recipient '1.01'"),
    (HEAD + b"to 1.2 new a@b.example of=3\n", "line 9: of=2 expected"),
    (HEAD + b"to 1 new a@b.example of=1\n", "line 9: unknown fact of"),
    (HEAD + b"to 1.1 new a@b.example\nto 1.2 new c@b.example of=2\n", "line 10: unknown fact of"),
    (HEAD + b"to 1.x new a@b.example\n", "line 9: bad number 'x'"),
    (HEAD + b"to 1.1 new a@b.example\nto 1 new c@b.example\n", "line 10: recipient 1 has been replaced"),
    (HEAD + b"to 1.1 new a@b.example\ndone 1 5 2.0.0\n", "line 10: recipient 1 has been replaced"),
])
def test_what_is_not_understood_is_named(text, error):
    assert error in bad(text)


def test_limits():
    assert "larger than 100 bytes" in bad(HEAD, longest=100)
    assert "line 7: more than 1 recipients" in bad(HEAD, most=1)
    assert "line 10: more than 3 recipients" in bad(
        HEAD + b"to 2.2 new a@b.example\nto 2.1 new c@b.example\n", most=3)
    assert record.parse(HEAD + b"to 2.1 new a@b.example\nto 2.1 new c@b.example\n", most=3).complete


def test_postmaster_and_the_null_sender_need_no_domain():
    text = HEAD.replace(b"alice@example.org", b"<>").replace(b"team@example.com", b"postmaster")
    found = record.parse(text)
    assert (found.envelope.sender, found.recipients["2"].recipient.address) == ("", "postmaster")


def test_how_it_went_is_for_who_reads_it_and_dsn_counts():
    one = lines.done_line("1", 5, "2.0.0", "mx", "250 ok", "TLSv1.3:AES", "0.25", dsn=True)
    assert one == b"done 1 5 2.0.0 host=mx said=250+20ok tls=TLSv1.3:AES secs=0.25 dsn=1\n"
    found = record.parse(HEAD + one)
    assert found.recipients["1"].dsn
    record.extend(found, lines.wait_line("1", 6, "4.0.0", 9, tls="x" * 99, secs="y z"))
    assert not found.recipients["1"].dsn
    record.extend(found, lines.fail_line("1", 6, "5.0.0", tls="x", secs="2"))
    assert lines.done_line("1", 5, "2.0.0") == b"done 1 5 2.0.0\n"


@pytest.mark.parametrize("line", [b"fail 1 5 5.0.0 dsn=1", b"wait 1 5 4.0.0 until=9 dsn=1",
                                  b"told 1 5 none tls=x"])
def test_dsn_is_said_of_what_is_done(line):
    with pytest.raises(record.BadRecord, match="unknown fact"):
        record.parse(HEAD + line + b"\n")


def test_the_peers_words_are_cut():
    line = lines.fail_line("1", 5.9, "5.0.0", host="h" * 300, said="\n" + "\u00e9" * 600)
    found = record.parse(HEAD + line).recipients["1"]
    assert (found.host, found.said, found.time) == ("h" * 255, "\n" + "\u00e9" * 499, 5)


@pytest.mark.parametrize("write", [
    lambda: lines.done_line("1", 5, "250"),
    lambda: lines.done_line("1\ndone", 5, "2.0.0"),
    lambda: lines.done_line("01", 5, "2.0.0"),
    lambda: lines.done_line("1", -1, "2.0.0"),
    lambda: lines.wait_line("1", 5, "4.0.0", until=1e10),
    lambda: lines.told_line("1", 5, "failed\nok"),
    lambda: lines.to_line("1", "a b", "a@b.example"),
    lambda: lines.to_line("1", "new", ""),
    lambda: lines.to_line("1", "new", "a@b.example", notify=("never", "delay")),
    lambda: lines.head(envelope(id="x"), [record.Recipient("1", "new", "a@b.example")]),
    lambda: lines.head(envelope(ret="x"), [record.Recipient("1", "new", "a@b.example")]),
    lambda: lines.head(envelope(size=-1), [record.Recipient("1", "new", "a@b.example")]),
    lambda: lines.head(envelope(at=-1.0), [record.Recipient("1", "new", "a@b.example")]),
    lambda: lines.head(envelope(via={"a b": "c"}), [record.Recipient("1", "new", "a@b.example")]),
    lambda: lines.head(envelope(), [record.Recipient("2", "new", "a@b.example")]),
    lambda: lines.head(envelope(), []),
])
def test_nothing_is_written_that_could_not_be_read(write):
    with pytest.raises(ValueError, match="."):
        write()


def envelope(**changes) -> record.Envelope:
    return record.parse(HEAD).envelope.replace(**changes)
