"""Points in time and durations as people type them for silences, and ages as they read them."""

from __future__ import annotations

import datetime
import re
from typing import Final

from marketfeed.core.units import DAY_NS, S

UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
WHEN: Final = "2026-11-27T18:00Z; UTC if it has no offset"
DURATION: Final = "a duration such as 30m, 2h, 1h30m or 1d (units s, m, h, d, w)"
_LAST_YEAR: Final = 2200  # far below what 64 bits of ns hold
_PART: Final = re.compile(r"([0-9]{1,9})([smhdw])")


def when_ns(text: str) -> int:
    """Return the Unix time of ``text``, ISO 8601, in ns. Raises ValueError with what is allowed."""
    try:
        at = datetime.datetime.fromisoformat(text)
        at = at.replace(tzinfo=datetime.UTC) if at.tzinfo is None else at.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time in ISO 8601, such as {WHEN}") from None
    if not 1970 <= at.year < _LAST_YEAR:
        raise ValueError(f"{text!r}: the year must be from 1970 to {_LAST_YEAR - 1}")
    whole = at - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (whole.days * 86_400 + whole.seconds) * S + whole.microseconds * 1000


def duration_ns(text: str) -> int:
    """Return the duration ``text`` in ns, above 0 and at most 100 years. Raises ValueError likewise."""
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"{text!r} is not {DURATION}")
    found = sum(int(number) * UNITS_S[unit] for number, unit in parts) * S
    if not 0 < found <= 36_500 * DAY_NS:
        raise ValueError(f"{text!r}: must be above 0, and at most 100 years")
    return found


def age(seconds: int) -> str:
    """Return an age with its two largest units, such as 2h 5m; a clock that was set back makes it 0s."""
    units = [(name, size) for name, size in reversed(UNITS_S.items()) if name != "w"]
    left = max(seconds, 0)
    parts: list[str] = []
    for name, size in units:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0")) or "0s"
