from hypothesis import example, given, settings
from hypothesis import strategies as st

from mqmail.mail.received import received_line

texts = st.text(max_size=600) | st.text("()\\\r\n; id", max_size=40) | st.from_regex(r"[a-z.\-]{1,80}")
vias = st.fixed_dictionaries(
    {"proto": st.sampled_from(["smtp", "esmtp", "lmtp", "local", "?"])},
    optional={n: texts for n in ("ip", "helo", "uid", "tls", "auth", "session")})


@settings(deadline=None)
@given(vias, st.booleans())
@example({"proto": "smtp", "helo": "a" * 63 + "." + "b" * 63}, False)
def test_no_client_can_inject_anything(via, utf8):
    raw = received_line("mx.example.com", "theid", via, "DATE", utf8)
    lines = raw.split(b"\r\n")
    assert lines.pop() == b""
    assert lines[0].startswith(b"Received: ")
    assert lines[-1] == b"\tDATE"
    assert all(one.startswith(b"\t") for one in lines[1:])
    assert all(len(one) <= 998 and b"\r" not in one and b"\n" not in one for one in lines)
    assert raw.count(b";") == 1
    assert lines[-2].endswith(b" id theid;")
    assert raw.count(b" id ") == 1
    assert raw.count(b"(") == raw.count(b")") <= 2
    assert b"\\" not in raw
    assert utf8 or raw.isascii()
    raw.decode("utf-8")
