import pytest

from mqmail.mail.date import civil, format_date, stamp


def test_a_date_of_rfc_5322():
    assert format_date(880_127_706, -360) == "Fri, 21 Nov 1997 09:55:06 -0600"


def test_days_have_one_or_two_digits():
    assert format_date(0) == "Thu, 1 Jan 1970 00:00:00 +0000"


def test_the_fraction_of_a_second_is_cut_also_before_the_epoch():
    assert format_date(0.999) == "Thu, 1 Jan 1970 00:00:00 +0000"
    assert format_date(-0.5) == "Wed, 31 Dec 1969 23:59:59 +0000"


def test_zones_with_half_hours():
    assert format_date(0, 345) == "Thu, 1 Jan 1970 05:45:00 +0545"
    assert format_date(0, -210) == "Wed, 31 Dec 1969 20:30:00 -0330"


@pytest.mark.parametrize(("days", "date"), [
    (11016, (2000, 2, 29)), (11017, (2000, 3, 1)), (47540, (2100, 2, 28)), (47541, (2100, 3, 1)),
    (24836, (2037, 12, 31)), (24837, (2038, 1, 1))])
def test_leap_years(days, date):
    assert civil(days) == date


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="offset of 6000"):
        format_date(0, 6000)
    with pytest.raises(ValueError, match="year 10000"):
        format_date(253_402_300_800)


def test_the_stamp_sorts_by_time():
    assert stamp(1_795_335_600.9) == "20261122082000"
