"""Times and durations as people write and read them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

from marketfeed.errors import LogError

UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) *(ns|us|µs|ms|s|m)")


def duration_ns(text: str) -> int:
    """Return the nanoseconds of a duration such as ``20ms`` or ``1.5s``. Raises LogError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise LogError(f"{text!r} is no duration: a number and one of ns, us, ms, s, m, such as 20ms")
    return round(float(found[1]) * UNITS_NS[found[2]])


def unit_ns(text: str) -> int:
    """Return the nanoseconds of what a log counts: ns, us, ms or s. Raises LogError."""
    if text not in ("ns", "us", "ms", "s"):
        raise LogError(f"--unit {text}: ns, us, ms or s")
    return UNITS_NS[text]


def shown_ns(value_ns: float) -> str:
    """Return a duration in three digits and the unit that suits it."""
    if value_ns == 0:
        return "0"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value_ns >= size * 0.9995:
            return f"{value_ns / size:.{_decimals(value_ns / size)}f} {unit}"
    return f"{value_ns:.0f} ns"


def _decimals(value: float) -> int:
    return max(2 - math.floor(math.log10(value * 1.0005)), 0)


def moment_s(text: str) -> float:
    """Return the Unix time of a moment: ISO 8601 (UTC if unsaid), or a Unix time. Raises LogError."""
    if re.fullmatch(r"[0-9]{1,11}(\.[0-9]*)?", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise LogError(
            f"{text!r} is no time: 2026-11-24T20:30, with Z or +01:00 if need be, or a Unix time"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def shown_s(moment: float) -> str:
    """Return a moment as ISO 8601 in UTC, to the second."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
