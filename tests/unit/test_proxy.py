"""The PROXY protocol: what is understood, what ends the session, wherever the octets are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.net.proxy import Proxied, parse_proxy
from mqmail.xmtp.reply import ProtocolError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FOUR = bytes((192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0, 25))
SIX = bytes.fromhex("20010db8000000000000000000000009" + "00" * 15 + "01" + "30390019")


def v2(body, command=0x21, family=0x11):
    return SIGNATURE + bytes((command, family)) + len(body).to_bytes(2, "big") + body


GOOD = [
    (b"PROXY TCP4 192.0.2.9 127.0.0.1 4711 25\r\n", Proxied("192.0.2.9", 4711, "127.0.0.1", 25)),
    (b"PROXY TCP6 2001:db8::9 ::1 1 65535\r\n", Proxied("2001:db8::9", 1, "::1", 65535)),
    (b"PROXY UNKNOWN\r\n", Proxied()),
    (b"PROXY UNKNOWN ffff:f... 1 2\r\n", Proxied()),
    (v2(FOUR), Proxied("192.0.2.7", 12345, "127.0.0.1", 25)),
    (v2(FOUR + b"\x03\x00\x04abcd"), Proxied("192.0.2.7", 12345, "127.0.0.1", 25)),
    (v2(SIX, family=0x21), Proxied("2001:db8::9", 12345, "::1", 25)),
    (v2(b"", command=0x20, family=0), Proxied()),
    (v2(b"\x00" * 216, family=0x31), Proxied()),
]


@pytest.mark.parametrize(("head", "said"), GOOD)
def test_what_is_understood_wherever_it_is_cut(head, said):
    assert parse_proxy(head + b"EHLO x\r\n") == (said, len(head))
    assert [parse_proxy(head[:size]) for size in range(len(head))] == [None] * len(head)


@pytest.mark.parametrize("head", [
    b"EHLO x.example\r\n", b"PROXY\r\n", b"PROXY TCP4 192.0.2.9 127.0.0.1 4711\r\n",
    b"PROXY TCP4 ::1 127.0.0.1 1 2\r\n", b"PROXY TCP6 192.0.2.9 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.9 127.0.0.1 65536 25\r\n", b"PROXY TCP4 192.0.2.9 127.0.0.1 +1 25\r\n",
    b"PROXY TCP4 192.0.2.9  127.0.0.1 1 25\r\n", b"PROXY UDP4 192.0.2.9 127.0.0.1 1 25\r\n",
    b"PROXY UNKNOWN " + b"x" * 100, v2(FOUR, command=0x31), v2(FOUR, command=0x22), v2(FOUR[:11]),
    v2(SIX[:35], family=0x21), v2(b"x" * 2040)])
def test_what_ends_the_session(head):
    with pytest.raises(ProtocolError):
        parse_proxy(head)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda b: SIGNATURE + b),
                 st.binary(max_size=120).map(lambda b: b"PROXY " + b)))
def test_anything_is_understood_wanted_or_refused(data):
    try:
        found = parse_proxy(data)
    except ProtocolError:
        return
    if found is not None:
        assert 0 < found[1] <= len(data)
    else:
        assert len(data) < 2048
