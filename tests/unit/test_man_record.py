"""The example in mq-record(5) is a record."""

from pathlib import Path

from mqmail.queue import record

PAGE = Path(__file__).parents[2] / "man" / "mq-record.5"


def test_the_example_is_what_the_page_says_it_is():
    example = PAGE.read_text().partition(".Bd -literal -offset 2n\n")[2].partition(".Ed\n")[0]
    found = record.parse(example.encode())
    assert found.complete
    assert [(s.recipient.seq, s.recipient.address, s.kind, s.told) for s in found.current()] == [
        ("1", "bob@example.com", "done", ""), ("2.2", "y@b.example", "fail", "failed"),
        ("2.1", "x@a.example", "wait", "")]
