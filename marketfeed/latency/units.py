"""Parsing and formatting of times and durations."""

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
        raise LogError(f"{text!r} is not a duration: a number and one of ns, us, ms, s, m, such as 20ms")
    return round(float(found[1]) * UNITS_NS[found[2]])


def unit_ns(text: str) -> int:
    """Return the nanoseconds of a log's unit: ns, us, ms or s. Raises LogError."""
    if text not in ("ns", "us", "ms", "s"):
        raise LogError(f"--unit {text}: must be ns, us, ms or s")
    return UNITS_NS[text]


def shown_ns(value_ns: float) -> str:
    """Format a duration with three digits, in ns, µs, ms or s."""
    if value_ns == 0:
        return "0"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value_ns >= size * 0.9995:
            return f"{value_ns / size:.{_decimals(value_ns / size)}f} {unit}"
    return f"{value_ns:.0f} ns"


def _decimals(value: float) -> int:
    return max(2 - math.floor(math.log10(value * 1.0005)), 0)


def moment_s(text: str) -> float:
    """Parse a time in ISO 8601, by default in UTC, or a Unix time; return the Unix time. Raises LogError."""
    if re.fullmatch(r"[0-9]{1,11}(\.[0-9]*)?", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise LogError(
            f"{text!r} is not a time: write 2026-11-24T20:30, optionally with Z or +01:00, or a Unix time"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def shown_s(moment: float) -> str:
    """Format a Unix time as ISO 8601 in UTC, to the second."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
