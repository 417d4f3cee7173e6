"""Query parameters of subscriptions over HTTP: parse and check. Pure.

Names, tiers and cursors are those of a WebSocket's requests; docs/protocol.md describes them for users.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from marketfeed.alerts.history import SEVERITIES, Wanted
from marketfeed.alerts.log import ALL_SYMBOLS, PATTERNS
from marketfeed.alerts.patterns import symbol_set
from marketfeed.api.requests import Subscribe
from marketfeed.core.cursor import Cursor, parse_cursor
from marketfeed.errors import ErrorCode, RequestError
from marketfeed.gateway import protocol
from marketfeed.gateway.events import AlertRequest
from marketfeed.gateway.session_alerts import check_consumer

if TYPE_CHECKING:
    from marketfeed.alerts.alert import Severity
    from marketfeed.alerts.log import Start
    from marketfeed.fanout.interest import Names
    from marketfeed.fanout.tiers import Tier
    from marketfeed.gateway.limits import Limits

# Names under which polyfills of EventSource send the last event id, as they cannot send a header.
LAST_EVENT_ID: Final = (
    "lastEventId",
    "lastEventID",
    "Last-Event-ID",
    "last-event-id",
    "last_event_id",
    "evs_last_event_id",
)
# Parameters that they add for old browsers and against caches.
POLYFILL: Final = ("padding", "r", "evs_preamble", "evs_buffer_size_limit")
CACHE_BUSTER: Final = "_"  # clients such as jQuery add it to any URL
MAX_TIMEOUT_S: Final = 300.0  # of a long poll
# Not what float() reads besides: 1_0, +1, nan, digits of other scripts.
_NUMBER: Final = re.compile(r"([0-9]{1,10}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE]-?[0-9]{1,2})?", re.ASCII)
_BEFORE: Final = re.compile(r"([0-9A-HJKMNP-TV-Z]{26}|[0-9]{1,18})?")  # a ULID, or a position
Query = Mapping[str, list[str]]


def check_keys(query: Query, allowed: tuple[str, ...], ignored: tuple[str, ...] = ()) -> None:
    """Raise RequestError for a parameter that is not allowed, or is given more than once."""
    for key, values in query.items():
        if key in ignored or key == CACHE_BUSTER:
            continue
        if key not in allowed:
            what = ", ".join(allowed) or "none here"
            raise RequestError(ErrorCode.SYNTAX, f"unknown parameter {key[:40]!r}; allowed: {what}")
        if len(values) > 1:
            raise RequestError(ErrorCode.SYNTAX, f"{key}: given {len(values)} times")


def names_of(query: Query, limits: Limits, required: bool = True) -> Names:
    """Return the names in ``quotes`` and ``trades``, at least one if ``required``; raises RequestError."""
    quotes, trades = (_listed(query, channel) for channel in ("quotes", "trades"))
    names = protocol.names_of(Subscribe("subscribe", quotes=quotes, trades=trades))
    if required and not any(names):
        raise RequestError(
            ErrorCode.SYNTAX, "quotes, trades: at least one name in quotes=A,B* or trades=A,B*"
        )
    _check_count(names, limits)
    return names


def symbols_of(query: Query, limits: Limits) -> tuple[str, ...]:
    """Return the names in ``symbols``, at least one; raises RequestError."""
    names = protocol.names_of(Subscribe("subscribe", quotes=_listed(query, "symbols")))
    if not any(names):
        most = limits.symbols_per_session
        what = "empty" if "symbols" in query else "missing"
        raise RequestError(ErrorCode.SYNTAX, f"symbols: {what}; symbols=A,B*, 1 to {most} names and patterns")
    _check_count(names, limits)
    return names.quotes


def _check_count(names: Names, limits: Limits) -> None:
    excess = limits.excess(names)
    if excess is not None:
        raise RequestError(ErrorCode.SYMBOL_LIMIT, excess)


def tier_of(query: Query, tiers: Mapping[str, Tier], default: Tier) -> Tier:
    """Return the tier that ``tier`` names; raises RequestError."""
    name = query.get("tier", [default.name])[0]
    tier = tiers.get(name)
    if tier is None:
        raise RequestError(ErrorCode.SYNTAX, f"tier: one of {', '.join(tiers)}, not {name[:40]!r}")
    return tier


def cursor_of(query: Query, last_event_id: str | None = None) -> Cursor | None:
    """Return the cursor to resume from; raises RequestError for an invalid one.

    It is the first of: ``last_event_id``, the header; the parameter that polyfills of EventSource send
    instead; ``after``, with which the page first connected.
    """
    said = [("Last-Event-ID", last_event_id or "")]
    said += [(key, query.get(key, [""])[0]) for key in (*LAST_EVENT_ID, "after")]
    where, text = next(((where, text) for where, text in said if text), ("", ""))
    if not text:
        return None
    try:
        return parse_cursor(text)
    except ValueError as error:
        raise RequestError(ErrorCode.SYNTAX, f"{where}: {error}") from None


def timeout_of(query: Query, default: str = "30") -> float:
    """Return ``timeout_s``, or ``default``; raises RequestError."""
    text = query.get("timeout_s", [default])[0]
    timeout_s = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= timeout_s <= MAX_TIMEOUT_S:
        raise RequestError(ErrorCode.SYNTAX, f"timeout_s: 0 to {MAX_TIMEOUT_S:g}, not {text[:20]!r}")
    return timeout_s


def alerts_of(query: Query) -> AlertRequest:
    """Return the alerts in ``alerts``, ``consumer`` and ``start``; raises RequestError."""
    patterns = tuple(dict.fromkeys(_listed(query, "alerts")))
    consumer, start = (query.get(key, [None])[0] for key in ("consumer", "start"))
    if not patterns and (consumer or start):
        raise RequestError(ErrorCode.SYNTAX, "consumer, start: need alerts, such as alerts=*")
    check_consumer(patterns, consumer, start)
    return AlertRequest(patterns, consumer, cast("Start | None", start))


def consumer_of(query: Query) -> tuple[str, tuple[str, ...], Start]:
    """Return ``consumer``, which is required, ``alerts`` and ``start``; raises RequestError."""
    patterns, consumer, start = alerts_of({"alerts": ["*"], **query})
    if consumer is None:
        raise RequestError(ErrorCode.SYNTAX, "consumer: missing; the name of a durable consumer")
    return consumer, patterns, start or "all"


def wanted_of(query: Query, entitled: tuple[str, ...]) -> tuple[Wanted, str]:
    """Return which alerts of the log are asked for, and ``before``; raises RequestError.

    ``entitled`` are the symbols of alerts that the client may see.
    """
    patterns, _, _ = alerts_of({"alerts": ["*"], **query})
    symbols = tuple(_listed(query, "symbols")) or ALL_SYMBOLS
    severities = tuple(_listed(query, "severity")) or SEVERITIES
    strange = [one for one in severities if one not in SEVERITIES]
    if strange:
        raise RequestError(ErrorCode.SYNTAX, f"severity: {', '.join(SEVERITIES)}, not {strange[0][:40]!r}")
    if len(symbols) > PATTERNS:
        raise RequestError(ErrorCode.SYNTAX, f"symbols: at most {PATTERNS} names and prefixes")
    try:
        symbol_set(symbols)
    except ValueError as error:
        raise RequestError(ErrorCode.SYNTAX, f"symbols: {error}") from None
    before = query.get("before", [""])[0]
    if not _BEFORE.fullmatch(before):
        raise RequestError(ErrorCode.SYNTAX, f"before: an id, or `next` of an answer, not {before[:40]!r}")
    return Wanted(patterns or ("*",), symbols, cast("tuple[Severity, ...]", severities), entitled), before


def number_of(query: Query, key: str, most: int, default: int) -> int:
    """Return the integer ``key``, from 1 to ``most``; raises RequestError."""
    text = query.get(key, [str(default)])[0]
    digits = text.isascii() and text.isdecimal() and len(text) <= 9
    if not digits or not 1 <= int(text) <= most:
        raise RequestError(ErrorCode.SYNTAX, f"{key}: 1 to {most}, not {text[:20]!r}")
    return int(text)


def _listed(query: Query, key: str) -> list[str]:
    text = query.get(key, [""])[0]
    return text.split(",") if text else []
