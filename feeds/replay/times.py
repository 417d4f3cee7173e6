"""Row times: numbers since the epoch or since midnight, and ISO 8601 text, in any time zone."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.units import S
from marketfeed.feeds.replay.fields import Fields, Ints, Mask, stripped
from marketfeed.feeds.replay.timeformat import written_offset_s

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

DECIMALS: Final = {"s": 9, "ms": 6, "us": 3, "ns": 0}  # decimal digits of a unit in nanoseconds
FIRST_NS: Final = 315_532_800 * 10**9  # 1980; earlier times have a wrong unit or lack their day
_HOUR: Final = 3600
_EPOCH: Final = date(1970, 1, 1)
MAX_OF_DAY_NS: Final = 25 * _HOUR * S  # of local time after midnight: a day, and an hour for late trades


def clock_ns(day: date) -> int:
    """Return local midnight of ``day``, in nanoseconds since local midnight of 1970-01-01."""
    return (day - _EPOCH).days * 86_400 * S


def of_day(values: Ints, day_ns: int | Ints, zone: ZoneInfo) -> tuple[Ints, Mask]:
    """Convert local times of day in ``zone`` to UTC; return them and which are out of range.

    ``values`` are nanoseconds of local time since midnight of ``day_ns`` (:func:`clock_ns`, one day or one
    per row), not elapsed time: 18 hours are 18:00 even on a day of 23 or 25 hours. They may exceed the day,
    up to MAX_OF_DAY_NS.
    """
    beyond = np.abs(values) > MAX_OF_DAY_NS
    local = np.where(beyond, np.int64(0), values) + np.int64(day_ns)
    return local_to_utc_ns(local, zone), beyond


def iso(fields: Fields, zone: ZoneInfo) -> tuple[Ints, Mask]:
    """Parse times such as ``2013-01-01 22:00:00.295+00:00``; return nanoseconds, and which are broken.

    A space or a T separates date and time, the dashes of the date are optional, and the second may have up
    to nine decimals after a point or a comma. Without an offset the time is local time in ``zone``.
    Surrounding blanks are ignored.
    """
    if not len(fields.starts):
        return np.empty(0, np.int64), np.empty(0, bool)
    fields = stripped(fields)
    data, starts, ends = fields
    broken = ends - starts < 17
    dashes = np.where(data[np.minimum(starts + 4, len(data) - 1)] == 45, 1, 0)

    def number(at: Ints, width: int) -> Ints:
        value = np.zeros(len(starts), np.int64)
        for place in range(width):
            digit = data[np.minimum(at + place, len(data) - 1)] - np.uint8(48)
            np.logical_or(broken, digit > 9, out=broken)
            value = value * 10 + digit
        return value

    def expect(at: Ints, chars: bytes) -> None:
        found = np.isin(data[np.minimum(at, len(data) - 1)], np.frombuffer(chars, np.uint8))
        np.logical_or(broken, ~found, out=broken)

    year, month = number(starts, 4), number(starts + 4 + dashes, 2)
    day = number(starts + 6 + 2 * dashes, 2)
    clock = starts + 8 + 2 * dashes
    expect(clock, b" T")
    expect(clock + 3, b":")
    expect(clock + 6, b":")
    hour, minute, second = number(clock + 1, 2), number(clock + 4, 2), number(clock + 7, 2)
    broken |= (month < 1) | (month > 12) | (day < 1) | (hour > 23) | (minute > 59) | (second > 59)
    broken |= (year < 1970) | (year > 2261)
    safe_month, safe_year = np.clip(month, 1, 12), np.clip(year, 1970, 2261)
    months = (safe_year - 1970) * 12 + safe_month - 1
    firsts = months.astype("M8[M]").astype("M8[D]")
    broken |= day > ((months + 1).astype("M8[M]").astype("M8[D]") - firsts).astype(np.int64)
    local_s = (firsts.astype(np.int64) + day - 1) * 86_400 + hour * 3600 + minute * 60 + second
    fraction_ns, at = _fraction(data, clock + 9, ends)
    offset_s = _offsets(fields, at, local_s, zone, broken)
    return (local_s - offset_s) * S + fraction_ns, broken


def _fraction(data: np.ndarray[tuple[int], np.dtype[np.uint8]], at: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Parse the decimals of the second; return nanoseconds and the end positions."""
    value, at = np.zeros(len(at), np.int64), at.copy()
    last = len(data) - 1
    inside = (at < ends) & np.isin(data[np.minimum(at, last)], np.frombuffer(b".,", np.uint8))
    at += inside
    for place in range(9):
        digit = data[np.minimum(at, last)] - np.uint8(48)
        inside = inside & (at < ends) & (digit < 10)
        value += np.where(inside, digit.astype(np.int64) * 10 ** (8 - place), 0)
        at += inside
    return value, at


def _offsets(fields: Fields, at: Ints, local_s: Ints, zone: ZoneInfo, broken: Mask) -> Ints:
    """Return offsets from UTC in seconds: the one written at ``at``, else that of ``zone`` at the time."""
    offsets = np.zeros(len(at), np.int64)
    rest = fields.ends - at
    bare = rest <= 0
    if bare.any():
        offsets[bare] = _zone_offsets_s(local_s[bare], zone)
    written: dict[str, int | None] = {}
    for row in np.flatnonzero(~bare & ~broken & ~_is_z(fields, at, rest)).tolist():
        text = fields.data[at[row] : fields.ends[row]].tobytes().decode("utf-8", "replace")
        if text not in written:
            written[text] = written_offset_s(text)
        offset = written[text]
        broken[row] |= offset is None
        offsets[row] = offset or 0
    return offsets


def _is_z(fields: Fields, at: Ints, rest: Ints) -> Mask:
    z: Mask = (rest == 1) & (fields.data[np.minimum(at, len(fields.data) - 1)] == ord("Z"))
    return z


def local_to_utc_ns(local_ns: Ints, zone: ZoneInfo) -> Ints:
    """Convert local times in ``zone`` to UTC.

    Times in a repeated hour mean its first occurrence. Times in a skipped hour are converted with the
    offset before the change: 02:30 becomes the moment of 03:30.
    """
    return local_ns - _zone_offsets_s(local_ns // S, zone) * S if len(local_ns) else local_ns


def _zone_offsets_s(local_s: Ints, zone: ZoneInfo) -> Ints:
    # UTC offsets change only at quarters of an hour.
    quarters, which = np.unique(local_s // (_HOUR // 4), return_inverse=True)
    return np.array([_zone_offset_s(quarter, zone) for quarter in quarters.tolist()], np.int64)[which]


def _zone_offset_s(quarter: int, zone: ZoneInfo) -> int:
    local = datetime(1970, 1, 1) + timedelta(seconds=quarter * (_HOUR // 4))
    offset = local.replace(tzinfo=zone).utcoffset()
    return round(offset.total_seconds()) if offset is not None else 0
