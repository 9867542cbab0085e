"""The key of a domain: IDNA's A-label where there is one, and of nothing else."""

import idna
from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.mail.address import domain_key

U_LABELS = st.text(st.sampled_from("abz09-\u00e4\u00fc\u00df\u03b1\u0431\u4e2d"), min_size=1,
                   max_size=12)


@settings(deadline=None)
@given(U_LABELS)
def test_where_idna_has_an_a_label_it_is_the_key(label):
    try:
        expected = idna.encode(f"{label}.example", strict=True).decode()
    except idna.IDNAError:
        return
    assert domain_key(f"{label}.example") == expected


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_no_two_names_share_a_key_but_for_ascii_case_and_the_a_label(one, two):
    folded = [text.translate({c: c + 32 for c in range(65, 91)}) for text in (one, two)]
    assert domain_key(domain_key(one)) == domain_key(one)
    if folded[0] != folded[1] and "xn--" not in folded[0] + folded[1]:
        assert domain_key(one) != domain_key(two)
