"""An alert and its identifier.

Identifiers are ULIDs (https://github.com/ulid/spec): 48 bits of time in milliseconds, then 80 bits that here
come from a hash of the cause instead of a random source. The same cause therefore has the same identifier
after a crash, and the log can refuse the duplicate.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from marketfeed.core.units import MS

Severity = Literal["info", "warning", "critical"]
State = Literal["raised", "cleared", "notice"]

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # base 32 without I, L, O and U
_PAIRS: Final = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)  # by 10 bits


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the alert log: an episode that begins or ends, or a notice that somebody published."""

    id: str  # ULID of the cause; see :func:`alert_id`
    key: str  # the id of the episode's ``raised``; of a notice, its publisher's own key
    rule: str  # name of the rule; of a notice "notice"
    symbol: str = ""  # "" if the alert is about no single symbol
    severity: Severity = "warning"
    state: State = "raised"
    value: float | None = None  # what was measured, in the rule's unit
    threshold: float | None = None  # what it was compared with, in the same unit
    t_ns: int = 0  # venue's time of the cause, Unix; 0 = none
    r_ns: int = 0  # arrival time of the cause, Unix
    message: str = ""  # one line for people
    suppressed: int = 0  # episodes of this rule and symbol that its cool-down kept back since the last alert
    to: str | None = None  # the only consumer that gets it; None: all whose patterns match
    publisher: str = ""  # of a notice, who published it, see Grant.holder; not sent to consumers
    data: dict[str, Any] | None = None  # of a notice, as its publisher sent it


def ulid(time_ms: int, tail: bytes) -> str:
    """Return the 26 characters of the ULID with ``time_ms``, 48 bits, and ``tail``, 10 bytes."""
    high, low = int.from_bytes(tail[:5], "big"), int.from_bytes(tail[5:], "big")
    return _digits(time_ms & (2**48 - 1)) + _eight(high) + _eight(low)


@lru_cache(maxsize=256)
def _digits(time_ms: int) -> str:
    """Return the first ten digits; many alerts have the same time."""
    return _PAIRS[time_ms >> 40] + _eight(time_ms & (2**40 - 1))


def _eight(number: int) -> str:
    """Return the eight digits of 40 bits."""
    pairs = _PAIRS
    return (
        pairs[number >> 30] + pairs[number >> 20 & 1023] + pairs[number >> 10 & 1023] + pairs[number & 1023]
    )


def alert_id(rule: str, symbol: str, state: str, t_ns: int, r_ns: int, venue_id: int = 0) -> str:
    """Return the identifier of an alert.

    Its time is ``t_ns``, the venue's, or ``r_ns`` if the venue sent none. Its tail is the first 80 bits of
    SHA-256 over rule, symbol, state, that time in ns and ``venue_id`` (a trade's; 0 = none), each followed
    by a null character.
    """
    at_ns = t_ns or r_ns
    cause = f"{rule}\0{symbol}\0{state}\0{at_ns}\0{venue_id}\0"
    return ulid(at_ns // MS, hashlib.sha256(cause.encode()).digest()[:10])
