"""Rules for headers: what is seen at a glance is what taking a field apart finds."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mqmail.mail import mailboxes
from mqmail.mail.headerrules import broken

FIELD = st.lists(st.sampled_from(
    ["a", "b-1", ".", "@", "<", ">", " ", "\t", ",", ":", ";", '"', "(", ")", "[", "]", "\\", "é"]),
    max_size=12).map("".join)


@settings(deadline=None)
@given(FIELD)
@example("a@b")
@example(" A B <a.a@b.b>")
@example("a b@a")
@example("a@b@a")
@example("<a@b> a")
@example("@b")
def test_a_from_field_holds_as_many_authors_as_there_are(text):
    try:
        authors = len(mailboxes.parse(text))
    except ValueError:
        authors = -1
    found = broken(f"From:{text}\r\n".encode(), True, ("from", "sender"))
    assert found == [*["from"] * (authors < 1), *["sender"] * (authors > 1)]
