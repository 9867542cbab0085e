from email.utils import parsedate_to_datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.mail.date import format_date


@settings(deadline=None)
@given(st.integers(-2_208_902_400, 253_402_200_000), st.integers(-23 * 60 - 59, 23 * 60 + 59))
def test_the_standard_library_reads_the_same_moment(seconds, offset):
    found = parsedate_to_datetime(format_date(seconds, offset))
    assert found.timestamp() == seconds
    # the library reads "-0000" as no zone; ours never says that
    assert found.utcoffset().total_seconds() == offset * 60
