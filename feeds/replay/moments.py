"""Row times of tables: units, formats, and dates in a separate column.

The time of day is a number since midnight (``time``), ISO 8601 text, or text in a configured format
(``time_format``). The date is in the same text, in ``columns.date``, in the key ``day`` or in the
name of the file.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.core.units import DAY_NS, S
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.fields import Fields, Ints, Mask, fixed, texts
from marketfeed.feeds.replay.timeformat import MAX_CHARS, TimeFormat
from marketfeed.feeds.replay.times import DECIMALS, FIRST_NS, clock_ns, iso, local_to_utc_ns, of_day

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

NOT_A_TIME, TOO_EARLY, BEYOND_THE_DAY, NOT_A_DATE = 1, 2, 3, 4  # fault codes of a row's time
_HHMMSS_DIGITS: Final = {"s": 6, "ms": 9, "us": 12, "ns": 15}
_DATE: Final = re.compile(r"(\d{4})([-./]?)(\d{2})\2(\d{2})")
# Formats tried in this order on unreadable text, for a suggestion.
_COMMON: Final = (
    "%H:%M:%S.%f", "%Y.%m.%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S.%f", "%d.%m.%Y %H:%M:%S.%f",
    "%m/%d/%Y %H:%M:%S.%f", "%d/%m/%Y %H:%M:%S.%f", "%Y%m%d %H:%M:%S.%f", "%Y%m%d %H%M%S%3f", "%Y%m%d %H%M%S",
    "%Y%m%d%H%M%S%3f", "%Y%m%d%H%M%S", "%Y.%m.%dD%H:%M:%S.%f", "0D%H:%M:%S.%f", "%d-%b-%Y %H:%M:%S.%f",
    "%d.%m.%Y %H:%M:%S.%f GMT%z", "%H:%M:%S:%3f", "%H:%M", "%H:%M:%S,%f", "%I:%M:%S %p",
    "%Y-%m-%d %H:%M:%S,%f", "%Y-%m-%d %H:%M:%S.%f %z",
)  # fmt: skip
_BY_DIGITS: Final = {6: "%H%M%S", 9: "%H%M%S%3f", 12: "%H%M%S%6f", 15: "%H%M%S%9f"}
_DATED_BY_DIGITS: Final = {14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%3f"}
_UNITS_BY_DIGITS: Final = {10: "s", 13: "ms", 16: "us", 19: "ns"}


class Moments:
    """Parser of the times of one table; ``keys`` is a TableKeys. Construction raises ConfigError."""

    def __init__(self, keys: Any, zone: ZoneInfo, day_in_name: bool) -> None:
        self._keys, self._zone = keys, zone
        self._format = None if keys.time_format is None else TimeFormat(keys.time_format)
        own_column = keys.columns.date is not None
        dated = keys.time == "iso" or (self._format is not None and self._format.has_date)
        named = "time = 'iso'" if keys.time == "iso" else f"time_format = {keys.time_format!r}"
        if self._format is not None and keys.time != "ns":
            raise ConfigError(f"time: not with {named}, which defines how times are written")
        if dated and (keys.day is not None or own_column):
            key = "day" if keys.day is not None else "columns.date"
            raise ConfigError(f"{key}: not with {named}, whose text has the day")
        if own_column and keys.day is not None:
            raise ConfigError("day: not with columns.date, which has the day of each row")
        if self._format is not None and not (dated or own_column or keys.day is not None or day_in_name):
            raise ConfigError(
                f"time_format: {keys.time_format!r} has no date: set day, columns.date or member"
            )
        if keys.date_format is not None:
            if not (own_column or day_in_name):
                raise ConfigError("date_format: only with columns.date, or member with a group day")
            if date_of(datetime(2001, 2, 3).strftime(keys.date_format), keys.date_format) != date(2001, 2, 3):
                raise ConfigError(
                    f"date_format: {keys.date_format!r} is no strptime format of a date, such as %d/%m/%Y"
                )
        self.uses_day = not (dated or own_column)  # from the key or the file name
        self.counted = self._format is None and keys.time != "iso"  # the time is a number
        self.textual = self._format is not None or own_column or keys.columns.millisecond is not None

    def read(
        self, time: Fields, dates: Fields | None, milliseconds: Fields | None, day_ns: int | None
    ) -> tuple[Ints, Ints]:
        """Return times in nanoseconds since the epoch, and a fault code for each row, 0 for none.

        ``day_ns`` is the day that times count from, in the form of :func:`clock_ns`, if neither the text
        nor ``dates`` has it; None for the epoch.
        """
        wrong = np.zeros(len(time.starts), np.int64)
        day: int | Ints | None = day_ns
        if dates is not None:
            day, bad = self._days(dates)
            wrong[bad] = NOT_A_DATE
        more_ns: Ints | int = 0
        if milliseconds is not None:
            parts = fixed(milliseconds, DECIMALS["ms"])
            wrong[parts.broken | (parts.values < 0) | (parts.values >= S)] = NOT_A_TIME
            more_ns = parts.values
        if self._keys.time == "iso":
            times, bad = iso(time, self._zone)
            times = times + more_ns
        elif self._format is not None:
            reading = self._format.read(time)
            bad = reading.broken
            days = reading.day * DAY_NS if reading.day is not None else day if day is not None else 0
            local = np.where(bad, 0, days + reading.clock_ns + more_ns)
            if reading.offset_s is not None:
                times = local - reading.offset_s * S
            else:
                times = local_to_utc_ns(local, self._zone)
        else:
            numbers = fixed(time, DECIMALS[self._keys.time])
            bad = numbers.broken | numbers.missing
            values = numbers.values + more_ns
            if day is None:
                times = values
            else:
                times, beyond = of_day(values, day, self._zone)
                wrong[beyond & ~bad & (wrong == 0)] = BEYOND_THE_DAY
        wrong[bad] = NOT_A_TIME
        wrong[(times < FIRST_NS) & (wrong == 0)] = TOO_EARLY
        return times, wrong

    def _days(self, dates: Fields) -> tuple[Ints, Mask]:
        """Return each row's day in the form of :func:`clock_ns`, and which rows have no date."""
        codes, names = texts(dates)
        days = [date_of(name, self._keys.date_format) for name in names]
        found = np.array([0 if day is None else clock_ns(day) for day in days], np.int64)
        return found[codes], np.array([day is None for day in days], bool)[codes]

    def is_hhmmss(self, time: Fields) -> bool:
        """Return whether numbers configured as counts from midnight are clock readings such as ``093000``.

        Clock readings have leading zeros and a fixed width, and fields such as minutes stay below 60;
        counts have no leading zeros.
        """
        digits = _HHMMSS_DIGITS.get(self._keys.time)
        if digits is None or self._format is not None or not len(time.starts):
            return False
        if (time.ends - time.starts != digits).any() or not (time.data[time.starts] == ord("0")).any():
            return False
        reading = TimeFormat(_BY_DIGITS[digits]).read(time)
        return not reading.broken.any()

    def configured(self) -> str:
        """Return the configured time key, for messages."""
        return f"time_format = {self._keys.time_format!r}" if self._format else f"time = {self._keys.time!r}"

    def suggestion(self, text: str) -> str:
        """Return keys that would parse ``text``, "" if no known ones do."""
        text = text.strip()
        if not text.isascii() or not 0 < len(text) <= 60:
            return ""
        whole, _, decimals = text.partition(".")
        unit = (
            _UNITS_BY_DIGITS.get(len(whole)) if whole.isdecimal() and (decimals or "0").isdecimal() else None
        )
        if unit is not None and unit != self._keys.time:
            return f'time = "{unit}", counted from 1970'
        field = Fields(
            np.frombuffer(text.encode() + bytes(64), np.uint8), np.array([0]), np.array([len(text)])
        )
        if self._keys.time != "iso" and not iso(field, self._zone)[1].any():
            return 'time = "iso"'
        # The leading zero of the hour may be missing.
        digits = _BY_DIGITS.get(len(text), _BY_DIGITS.get(len(text) + 1)) if text.isdecimal() else None
        dated = self._keys.day is not None or self._keys.columns.date is not None
        with_day = [_DATED_BY_DIGITS[len(text)]] if text.isdecimal() and len(text) in _DATED_BY_DIGITS else []
        for shape in [*with_day, *([digits] if digits else (*variants(self._keys.time_format), *_COMMON))]:
            found = TimeFormat(shape)
            if shape != self._keys.time_format and not found.read(field).broken.any():
                needs = "" if dated or found.has_date else ", with day or columns.date"
                return f'time_format = "{shape}"{needs}'
        return ""


def variants(format: str | None) -> list[str]:
    """Return variants of ``format`` with one or more common mistakes corrected, the likeliest first.

    They differ in the separator of the second's decimals, the separators of the date, the order of month and
    day, and the separator between date and time.
    """
    if format is None:
        return []
    found = {format: None}
    for change in (_fractions, _signs, _orders, _between):
        found |= dict.fromkeys(other for one in list(found) for other in change(one))
    return [one for one in found if one != format and len(one) <= MAX_CHARS]


def _fractions(format: str) -> list[str]:
    bare = re.sub(r"[.,:]%[369]?f", "", format)
    if "%S" not in bare or "f" in re.findall(r"%[369]?(\w)", bare):
        return []
    return [bare.replace("%S", f"%S{end}") for end in (".%f", ",%f", ":%3f", "")]


def _signs(format: str) -> list[str]:
    date = re.search(r"%[Yymdb]([./-])%[Yymdb]\1%[Yymdb]", format)
    return [format.replace(date[0], date[0].replace(date[1], sign)) for sign in "./-"] if date else []


def _orders(format: str) -> list[str]:
    swapped = {"%d": "%m", "%m": "%d"}
    return (
        [re.sub("%[dm]", lambda match: swapped[match[0]], format)]
        if "%d" in format and "%m" in format
        else []
    )


def _between(format: str) -> list[str]:
    time = re.search(r"(?<=[Yymdb])[ T](?=%[HI])", format)
    return [format[: time.start()] + sign + format[time.end() :] for sign in " T"] if time else []


def date_of(text: str, format: str | None) -> date | None:
    """Parse a date in ``format``; None if ``text`` is not one.

    The default format is YYYYMMDD, optionally separated by ``-``, ``.`` or ``/``.
    """
    try:
        if format is not None:
            return datetime.strptime(text.strip(), format).date()
        match = _DATE.fullmatch(text.strip())
        return None if match is None else date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None
