"""What is asked for by ETRN, under any input."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.control.domains import suffixes
from mqmail.prog.mq_send import nodes
from mqmail.queue import lines
from mqmail.queue.record import Envelope, Recipient

LABEL = st.sampled_from(["a", "b", "example", "org"])
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_datagram_is_borne(data):
    for name in nodes.names_of(data):
        assert name.isascii()
        assert name.strip() == name.lower() == name
        assert name.removeprefix(".")


@settings(deadline=None)
@given(st.lists(DOMAIN, min_size=1, max_size=4, unique=True), DOMAIN, st.booleans())
def test_domains_match_as_everywhere(domains, node, below):
    name = f".{node}" if below else node
    envelope = Envelope("1kq3v9s0c0g00a2f", 1000.0, 5, False, False, "from@a.b", "", "", {})
    recipients = [Recipient(str(n), "remote", f"x@{one}") for n, one in enumerate(domains, 1)]
    data = lines.head(envelope, recipients)
    for number in range(1, len(domains) + 1):
        data += lines.wait_line(str(number), 1001.0, "4.4.1", 2000.0, "", "")
    expected = {str(n) for n, one in enumerate(domains, 1) if name in suffixes(one)}
    assert nodes.waiting_for(data, frozenset([name])) == expected
