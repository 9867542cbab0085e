from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.mail.address import BadAddress, parse_address
from mqmail.queue import ids, lines, record

settings.register_profile("mqmail", deadline=None)
settings.load_profile("mqmail")

anything = st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40)
something = anything.filter(bool)
times = st.integers(0, 2**33 - 1)


def _address(text: str) -> str:
    try:
        return parse_address(text)
    except BadAddress:
        return ""


_local = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
addresses = (
    st.builds(lambda local, domain: _address(f"{local}@{domain}"),
              st.sampled_from(["a", "a+b=c", "x{y}", "j\u00f6rg", '"a b"', '"a\\"+\\\\b"']),
              st.sampled_from(["b.example", "[192.0.2.1]", "[IPv6:::1]", "b\u00fccher.example"]))
    | _local.map(lambda t: _address('"' + t.replace("\\", "\\\\").replace('"', '\\"') + '"@b.example'))
    | st.just("postmaster")).filter(bool)
destinations = st.sampled_from(["new", "mailbox", "remote", "my-list_2"])
notifies = st.just(("never",)) | st.lists(st.sampled_from(["success", "failure", "delay"]),
                                          unique=True).map(tuple)
senders = st.none() | st.just("") | addresses
codes = st.builds("{}.{}.{}".format, st.sampled_from("245"), st.integers(0, 999), st.integers(0, 999))
envelopes = st.builds(
    record.Envelope, id=st.builds(ids.make, st.integers(0, 2**55 - 1), st.integers()),
    at=st.integers(0, 2**33 * 10**6 - 1).map(lambda n: n / 1e6), size=st.integers(0, 10**15 - 1),
    eightbit=st.booleans(), utf8=st.booleans(), sender=st.just("") | addresses,
    ret=st.sampled_from(["", "full", "hdrs"]), envid=anything,
    via=st.dictionaries(st.sampled_from(["proto", "ip", "helo", "uid", "session"]), something))


@st.composite
def recipient_lists(draw):
    given_ones = draw(st.lists(st.tuples(destinations, addresses, notifies, anything, senders),
                               min_size=1, max_size=4))
    return [record.Recipient(str(n), *fields) for n, fields in enumerate(given_ones, 1)]


def dump(found: record.Record) -> object:
    return (found.complete, found.envelope, found.good_length,
            [(seq, [getattr(s, name) for name in record.State.__slots__ if name[0] != "_"])
             for seq, s in found.recipients.items()])


@given(envelopes, recipient_lists())
def test_what_is_written_is_read(envelope, recipients):
    text = lines.head(envelope, recipients)
    found = record.parse(text)
    assert found.complete
    assert found.envelope == envelope
    assert [s.recipient for s in found.current()] == recipients
    assert found.good_length == len(text)
    assert text.count(b"\n") == 6 + len(recipients)
    assert all(byte == 10 or byte >= 32 for byte in text)


@st.composite
def histories(draw):
    """(head, later lines, what must come out): a model that keeps the last line of each number."""
    recipients = draw(recipient_lists())
    expected = {r.seq: ("pending", r.destination, r.address, r.sender, "", "") for r in recipients}
    text = []
    for _ in range(draw(st.integers(0, 12))):
        seq = draw(st.sampled_from(sorted(expected)))
        _, destination, address, sender, _, told = expected[seq]
        kind = draw(st.sampled_from(["done", "wait", "fail", "told", "to", "parts"]))
        time, said = draw(times), draw(anything)
        if kind == "told":
            action = draw(st.sampled_from(sorted(lines.ACTIONS)))
            text.append(lines.told_line(seq, time, action))
            expected[seq] = (*expected[seq][:5], action)
        elif kind == "parts":
            targets = draw(st.lists(st.tuples(destinations, addresses, senders), min_size=2, max_size=4))
            text.append(lines.replacements(seq, targets))
            del expected[seq]
            for n, (destination, address, own) in enumerate(targets, 1):
                expected[f"{seq}.{n}"] = ("pending", destination, address,
                                          sender if own is None else own, "", "")
        elif kind == "to":
            target = draw(st.tuples(destinations, addresses, senders))
            text.append(lines.replacements(seq, [target]))
            own = sender if target[2] is None else target[2]
            expected[seq] = ("pending", *target[:2], own, "", told)
        else:
            writer = {"done": lines.done_line, "fail": lines.fail_line,
                      "wait": lambda *a, **k: lines.wait_line(*a, draw(times), **k)}[kind]
            text.append(writer(seq, time, draw(codes), host=draw(anything), said=said,
                               tls=draw(anything), secs=draw(anything)))
            expected[seq] = (kind, destination, address, sender, said,
                             told if kind == "wait" else "")
    return lines.head(draw(envelopes), recipients), text, expected


@given(histories())
def test_the_last_line_of_a_number_wins(history):
    head, later, expected = history
    found = record.parse(head + b"".join(later))
    assert {s.recipient.seq: (s.kind, s.recipient.destination, s.recipient.address, s.recipient.sender,
                              s.said, s.told) for s in found.current()} == expected
    followed = record.parse(head)
    for line in later:
        record.extend(followed, line)
    assert dump(followed) == dump(found)


@given(histories(), st.data())
def test_cut_anywhere_it_is_what_it_was_at_the_last_whole_line(history, data):
    head, later, _ = history
    text = head + b"".join(later)
    cut = data.draw(st.integers(0, len(text)))
    found = record.parse(text[:cut])
    assert found.complete == (cut >= len(head))
    assert found.good_length == text[:cut].rfind(b"\n") + 1
    assert dump(found) == dump(record.parse(text[:found.good_length]))


@given(histories(), st.data())
def test_no_cut_loses_a_recipient(history, data):
    head, later, _ = history
    start, whole = record.parse(head), head + b"".join(later)
    cut = data.draw(st.integers(len(head), len(whole)))
    alive = {s.recipient.seq for s in record.parse(whole[:cut]).current()}
    ends = [start] + [record.parse(head + b"".join(later[:n + 1])) for n in range(len(later))]
    assert alive in [{s.recipient.seq for s in end.current()} for end in ends]


def read(data: bytes) -> None:
    try:
        assert isinstance(record.parse(data), record.Record)
    except record.BadRecord as error:
        assert error.line <= data.count(b"\n")
        assert str(error).isprintable()


@given(st.binary(max_size=300))
def test_any_bytes(data):
    read(data)


@given(histories(), st.data())
def test_any_damage(history, data):
    text = bytearray(history[0] + b"".join(history[1]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at:at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b" ", b"\n", b"1", b"to 1", b"=", b"+0A", b"."]))
    read(bytes(text))


_words = st.sampled_from(["to", "done", "wait", "fail", "told", "ok", "1", "1.1", "1.2", "2", "new",
                          "a@b.example", "5", "2.0.0", "of=2", "until=5", "said=x",
                          "sender=<>", "failed", "", "=", "<>"])


@given(st.lists(st.lists(_words, min_size=1, max_size=6).map(" ".join), max_size=6))
def test_any_words(rows):
    head = lines.head(record.Envelope("0" * 16, 0.0, 0, False, False, "", "", "", {}),
                      [record.Recipient("1", "new", "a@b.example")])
    read(head + "\n".join([*rows, ""]).encode())


@given(times, codes, anything, anything)
def test_no_value_makes_a_line(time, status, host, said):
    text = lines.done_line("1", time, status, host=host, said=said)
    assert text.count(b"\n") == 1
    assert len(text.decode().split("\n")[0].split(" ")) <= 6
