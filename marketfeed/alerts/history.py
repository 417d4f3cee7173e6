"""The history of alerts, newest first: pages of the log that are filtered while it is read back.

A page is bounded in alerts, in bytes and in entries that are looked at, since a filter may match hardly any.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, get_args

import msgspec
import trio

from marketfeed.alerts.alert import Alert, Severity
from marketfeed.alerts.log import ALL_SYMBOLS
from marketfeed.alerts.patterns import Patterns, about, symbol_set
from marketfeed.alerts.service import AlertRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.alerts.log import AlertLog, Entry

READ: Final = 250  # entries at a time: 1 ms
LOOKED_AT: Final = 5_000  # entries per page
PAGE_BYTES: Final = 1_048_576  # of a page, about; notices may have 16 kB of data
REST, MAX_REST_S = 3, 0.1  # between two pages: times the duration of the former, and at most
ID_LENGTH: Final = 26  # characters of an alert's id, which may all be digits
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)


class Wanted(msgspec.Struct, frozen=True):
    """Which alerts: all filters have to match. ``rules`` and ``symbols`` are names, and prefixes with ``*``.

    ``entitled`` are the symbols whose alerts the client may see; alerts about no symbol it may see anyway.
    """

    rules: tuple[str, ...] = ("*",)
    symbols: tuple[str, ...] = ALL_SYMBOLS
    severities: tuple[Severity, ...] = SEVERITIES
    entitled: tuple[str, ...] = ALL_SYMBOLS

    def shown(self) -> Callable[[Entry], bool]:
        """Return whether the client may see an entry, as in a live view; raises ValueError for no symbol."""
        entitled = symbol_set(self.entitled)
        return lambda entry: (
            entry.mark is None and entry.alert.to is None and about(entitled, entry.alert.symbol)
        )

    def matching(self) -> Callable[[Alert], bool]:
        """Return whether an alert is one of those asked for; raises ValueError for no symbol."""
        rules, symbols = Patterns(self.rules), symbol_set(self.symbols)
        return lambda alert: (
            alert.severity in self.severities
            and rules.match(alert.rule)
            and (symbols.everything or alert.symbol in symbols)
        )


class Page(msgspec.Struct, frozen=True):
    """Alerts, newest first. ``next`` is the position before which the next page begins, None at the end."""

    alerts: tuple[Alert, ...]
    next: int | None


async def look_back(log: AlertLog, wanted: Wanted, before: str, limit: int) -> Page | None:
    """Return a page of at most ``limit`` alerts, which may be empty although there are older ones.

    They are older than ``before``: an id, a position, or "" for the newest. None: the client may see no alert
    with this id. Raises ValueError for an invalid symbol, and AlertLogError.
    """
    shown, matching = wanted.shown(), wanted.matching()
    position = int(before) if before.isdecimal() and len(before) < ID_LENGTH else None
    if before and position is None:
        entry = await log.find(before)
        if entry is None or not shown(entry):
            return None
        position = entry.position
    alerts: list[Alert] = []
    size = looked_at = 0
    while True:
        entries = await log.read_back(position, READ)
        for entry in entries:
            position, looked_at = entry.position, looked_at + 1
            if shown(entry) and matching(entry.alert):
                alerts.append(entry.alert)
                size += len(msgspec.json.encode(entry.alert))
                if len(alerts) == limit or size >= PAGE_BYTES:
                    return Page(tuple(alerts), position)
        if len(entries) < READ:
            return Page(tuple(alerts), None)
        if looked_at >= LOOKED_AT:
            return Page(tuple(alerts), position)


class Histories:
    """Pages of one log for any number of clients: one at a time, with pauses, since each may be expensive."""

    def __init__(self, log: AlertLog) -> None:
        self._log = log
        self._looking_back = trio.Lock()
        self._next_at_s = -math.inf

    async def page(self, wanted: Wanted, before: str, limit: int) -> Page | None:
        """Return what :func:`look_back` does; raises AlertRefusedError for an invalid symbol."""
        async with self._looking_back:
            await trio.sleep_until(self._next_at_s)
            began_s = trio.current_time()
            try:
                return await look_back(self._log, wanted, before, limit)
            except ValueError as error:
                raise AlertRefusedError(str(error)) from None
            finally:
                now_s = trio.current_time()
                self._next_at_s = now_s + min(REST * (now_s - began_s), MAX_REST_S)
