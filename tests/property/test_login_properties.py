"""A login has one spelling."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mqmail.control.loginnames import fold

logins = st.text(st.sampled_from("aA@. x-n\uff41\uff21\u05d0\ufb30\u0660\xe4\xc4\u0130\u017f\u3002\uff0e"
                                 "\uff20\ufdfa\xa0\xad\u200b\u0345\u1680"), max_size=8)


@given(logins)
@example("\uff41lice@\u05d0\u05d1.com")        # of such a domain SASLprep leaves all as it is
@settings(deadline=None)
def test_folded_twice_is_folded_once(login):
    once = fold(login)
    assert fold(once) == once
    assert fold(f"  {login} ") == once
