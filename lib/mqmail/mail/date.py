"""Dates as mail writes them (RFC 5322 section 3.3), in English whatever the locale."""

from __future__ import annotations

DAY = 86400
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOST_OFFSET = 99 * 60 + 59   # "+9959": the zone is four digits


def civil(days: int) -> tuple[int, int, int]:
    """(year, month, day) of the Gregorian calendar, *days* after 1970-01-01.

    Counts in eras of 400 years and in years that start in March, so that the leap day is the last.
    """
    era, day_of_era = divmod(days + 719468, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524
                   - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def format_date(seconds: float, offset_minutes: int = 0) -> str:
    """``Sun, 22 Nov 2026 08:20:00 +0100``: *seconds* since the epoch, shown at an offset from UTC.

    Raises ValueError for an offset that four digits cannot hold or a year that is not 1900 to 9999.
    """
    if abs(offset_minutes) > _MOST_OFFSET:
        raise ValueError(f"no zone has an offset of {offset_minutes} minutes")
    days, second = divmod(int(seconds // 1) + offset_minutes * 60, DAY)
    year, month, day = civil(days)
    if not 1900 <= year <= 9999:
        raise ValueError(f"year {year} cannot be written in a mail date")
    hours, minutes = divmod(abs(offset_minutes), 60)
    return (f"{_DAYS[(days + 3) % 7]}, {day} {_MONTHS[month - 1]} {year} "
            f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02} "
            f"{'-' if offset_minutes < 0 else '+'}{hours:02}{minutes:02}")


def stamp(seconds: float) -> str:
    """``20261122082000``, in UTC: for names and ids."""
    days, second = divmod(int(seconds // 1), DAY)
    year, month, day = civil(days)
    return (f"{year:04}{month:02}{day:02}"
            f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}")
