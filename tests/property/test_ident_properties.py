"""Any answer of an ident server."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.xmtp import ident

PORTS = st.integers(min_value=1, max_value=65535)


@settings(deadline=None)
@given(st.binary(max_size=1200)
       | st.binary(max_size=200).map(lambda user: b"1,2:USERID:UNIX:" + user + b"\n"))
def test_what_is_shown_is_short_and_harmless(answer):
    user = ident.user_of(answer, 1, 2)
    assert len(user) <= 64
    assert user.isascii()
    assert user.isprintable()
    assert " " not in user


@settings(deadline=None)
@given(PORTS, PORTS, st.from_regex(r"[!-~]{1,64}", fullmatch=True))
def test_a_good_answer_to_the_question_gives_the_user(theirs, ours, user):
    pair = ident.question(theirs, ours).strip()
    assert ident.user_of(pair + b" : USERID : UNIX : " + user.encode() + b"\r\n", theirs, ours) == user
