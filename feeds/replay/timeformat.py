"""Times in a configured format such as ``%d.%m.%Y %H:%M:%S.%f``, parsed over all rows at once.

The directives are those of strptime, with three differences that recordings need. ``%f`` accepts any
number of decimals of the second, of which it uses nine, and may be absent together with the point or
comma before it. ``%3f``, ``%6f`` and ``%9f`` match that many digits. Adjacent directives, as in
``%H%M%S%3f``, allow missing leading zeros: ``93000123`` is 09:30:00.123.

Source: ISO C, strftime; Python's documentation of datetime, "strftime() and strptime() Format Codes".
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import numpy as np

from marketfeed.core.units import S
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.fields import Fields, Ints, Mask, stripped

MAX_CHARS: Final = 40  # of a format; less than the padding of fields
_FRACTION_DIGITS: Final = 9
_WIDTHS: Final = {"Y": 4, "y": 2, "m": 2, "d": 2, "H": 2, "I": 2, "M": 2, "S": 2}
_RANGES: Final = {"Y": (1970, 2261), "y": (0, 99), "m": (1, 12), "d": (1, 31), "H": (0, 23), "I": (1, 12),
                  "M": (0, 59), "S": (0, 59)}  # fmt: skip
_KNOWN: Final = "%Y %y %m %b %d %H %I %p %M %S %f %3f %6f %9f %z %%"
_TOKEN: Final = re.compile(r"%([369]?f|[YymdHIMSbpz%])|([^%])")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_OFFSET: Final = re.compile(r"[Zz]|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9])(?::?([0-5][0-9]))?)?")
_CENTURY_FROM: Final = 69  # %y from 69 means 1969, as in POSIX


class Reading(NamedTuple):
    """A parsed column of times. Values of ``broken`` rows are undefined."""

    day: Ints | None  # days since 1970-01-01; None: the format has no date
    clock_ns: Ints  # time of day since midnight
    offset_s: Ints | None  # from UTC; None: the format has no %z
    broken: Mask


class TimeFormat:
    """One validated format; construction raises ConfigError that begins with ``key``."""

    def __init__(self, text: str, key: str = "time_format") -> None:
        self._key, self.text = key, text
        if not text.isascii() or not 0 < len(text) <= MAX_CHARS:
            raise ConfigError(f"{key}: 1 to {MAX_CHARS} ASCII characters, not {text[:60]!r}")
        parts: list[str] = []  # a directive without %, or "=" and a character
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ConfigError(
                    f"{key}: {text[at : at + 2]!r} in {text!r} is not known; known are {_KNOWN}"
                )
            parts.append("=%" if match[1] == "%" else match[1] or f"={match[2]}")
            at = match.end()
        names = [part[-1] for part in parts if part[0] != "="]
        twice = next((name for name in names if name != "%" and names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"{key}: %{twice} occurs twice in {text!r}")
        dated = [bool({*"Yy"} & {*names}), bool({*"mb"} & {*names}), "d" in names]
        self.has_date = all(dated)
        if any(dated) and not self.has_date:
            raise ConfigError(f"{key}: {text!r} needs year, month and day, or none of them")
        if {"Y", "y"} <= {*names} or {"m", "b"} <= {*names} or ("H" in names) == ("I" in names):
            raise ConfigError(f"{key}: {text!r} needs one hour, %H or %I, and at most one year and month")
        if ("I" in names) != ("p" in names):
            raise ConfigError(f"{key}: {text!r} needs %I and %p together")
        if "z" in names and parts[-1] != "z":
            raise ConfigError(f"{key}: %z must be last, not as in {text!r}")
        self.has_offset = "z" in names
        self._runs = _runs_of(parts)

    def read(self, fields: Fields) -> Reading:
        """Parse a column; surrounding blanks are ignored."""
        cursor = _Cursor(fields)
        found: dict[str, Ints] = {}
        for run in self._runs:
            match run[0]:
                case "z":
                    offset_s = cursor.offset()
                case "b":
                    found["m"] = cursor.word(_MONTHS) + 1
                case "p":
                    found["p"] = cursor.word(("am", "pm"))
                case text if text[0] == "=":
                    optional = len(run) > 1
                    found |= cursor.fraction(ord(text[1])) if optional else cursor.literal(ord(text[1]))
                case _:
                    found |= cursor.digits(run)
        broken = cursor.finish()
        for name, (low, high) in _RANGES.items():
            if name in found:
                broken |= (found[name] < low) | (found[name] > high)
        hour = found["H"] if "H" in found else found["I"] % 12 + 12 * found["p"]
        nothing = np.zeros(len(broken), np.int64)
        seconds = hour * 3600 + found.get("M", nothing) * 60 + found.get("S", nothing)
        day = _days(found, broken) if self.has_date else None
        return Reading(
            day, seconds * S + found.get("f", nothing), offset_s if self.has_offset else None, broken
        )


def _runs_of(parts: list[str]) -> list[list[str]]:
    """Group the parts parsed together: adjacent digits, a word, a character, a separator and fraction."""
    runs: list[list[str]] = []
    for number, part in enumerate(parts):
        before = parts[number - 1] if number else ""
        after = parts[number + 1] if number + 1 < len(parts) else ""
        beside = _is_digits(part) and _is_digits(before)
        optional = part == "f" and before in ("=.", "=,") and not _is_digits(after)
        if beside or optional:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _is_digits(part: str) -> bool:
    return part in _WIDTHS or part in ("f", "3f", "6f", "9f")


class _Cursor:
    """Parser of all rows in parallel, from left to right."""

    def __init__(self, fields: Fields) -> None:
        self._data, starts, self._ends = stripped(fields)
        self._at = starts.copy()
        self._last = len(self._data) - 1
        self._broken: Mask = self._at >= self._ends

    def _char(self, at: Ints) -> Ints:
        return self._data[np.clip(at, 0, self._last)].astype(np.int64)

    def _digit(self) -> tuple[Ints, Mask]:
        digit = self._char(self._at) - 48
        return digit, (self._at < self._ends) & (digit >= 0) & (digit < 10)

    def literal(self, char: int) -> dict[str, Ints]:
        """Match ``char``."""
        self._broken |= (self._at >= self._ends) | (self._char(self._at) != char)
        self._at += 1
        return {}

    def fraction(self, char: int) -> dict[str, Ints]:
        """Parse ``char`` and decimals after it, if present."""
        there = (self._at < self._ends) & (self._char(self._at) == char)
        self._at += there
        return {"f": self._decimals(there)}

    def _decimals(self, there: Mask) -> Ints:
        value = np.zeros(len(self._at), np.int64)
        place = 0
        while True:
            digit, more = self._digit()
            more &= there
            if place == 0:
                self._broken |= there & ~more
            if not more.any():
                return value
            if place < _FRACTION_DIGITS:
                value += np.where(more, digit * 10 ** (_FRACTION_DIGITS - 1 - place), 0)
            self._at += more
            there, place = more, place + 1

    def digits(self, run: list[str]) -> dict[str, Ints]:
        """Parse adjacent directives; a final ``f`` takes all further digits."""
        fixed = [name for name in run if name != "f"]
        widths = [int(name[0]) if name[-1] == "f" else _WIDTHS[name] for name in fixed]
        width = sum(widths)
        start, count = self._at.copy(), np.zeros(len(self._at), np.int64)
        for _ in range(width):
            _, more = self._digit()
            more &= count == self._at - start
            count += more
            self._at += more
        # Leading zeros may be missing, except in years and before decimals.
        self._broken |= count < (width if {"Y", "y", "f"} & {*run} else 1)
        found: dict[str, Ints] = {}
        place = 0
        for name, wide in zip(fixed, widths, strict=True):
            value = np.zeros(len(start), np.int64)
            for _ in range(wide):
                at = start + place - (width - count)
                value = value * 10 + np.where(at < start, 0, self._char(at) - 48)
                place += 1
            found[name[-1]] = value * 10 ** (_FRACTION_DIGITS - wide) if name[-1] == "f" else value
        if run[-1] == "f":
            found["f"] = self._decimals(np.ones(len(start), bool))
        return found

    def word(self, words: tuple[str, ...]) -> Ints:
        """Parse one of ``words``, case-insensitively; return its index."""
        value = np.full(len(self._at), -1, np.int64)
        for number, word in enumerate(words):
            same = self._at + len(word) <= self._ends
            for place, letter in enumerate(word.encode()):
                same &= (self._char(self._at + place) | 32) == letter
            value[same] = number
        self._broken |= value < 0
        self._at += len(words[0])
        return np.maximum(value, 0)

    def offset(self) -> Ints:
        """Parse the rest as an offset from UTC (``+0100``, ``-05:00``, ``Z``) in seconds."""
        seconds = np.zeros(len(self._at), np.int64)
        known: dict[bytes, int | None] = {}
        for row in np.flatnonzero(~self._broken).tolist():
            text = self._data[self._at[row] : self._ends[row]].tobytes()
            if text not in known:
                known[text] = written_offset_s(text.decode("ascii", "replace"))
            offset = known[text]
            self._broken[row] |= offset is None
            seconds[row] = offset or 0
        self._at = self._ends.copy()
        return seconds

    def finish(self) -> Mask:
        """Return the broken rows; unparsed text makes a row broken."""
        self._broken |= self._at != self._ends
        return self._broken


def _days(found: dict[str, Ints], broken: Mask) -> Ints:
    """Return the days since 1970-01-01; marks impossible dates in ``broken``."""
    year = found["Y"] if "Y" in found else found["y"] + np.where(found["y"] >= _CENTURY_FROM, 1900, 2000)
    months = (np.clip(year, 1970, 2261) - 1970) * 12 + np.clip(found["m"], 1, 12) - 1
    firsts = months.astype("M8[M]").astype("M8[D]")
    length = ((months + 1).astype("M8[M]").astype("M8[D]") - firsts).astype(np.int64)
    broken |= (found["d"] > length) | (year < 1970)
    days: Ints = firsts.astype(np.int64) + found["d"] - 1
    return days


def written_offset_s(text: str) -> int | None:
    """Parse an offset from UTC, in seconds; None if invalid."""
    match = _OFFSET.fullmatch(text.strip())
    if match is None:
        return None
    sign, *parts = match.groups()
    hours, minutes, seconds = (int(part or 0) for part in parts)
    return (-1 if sign == "-" else 1) * (hours * 3600 + minutes * 60 + seconds)
