"""The meter: what each user was sent, from figures that the fan-out has anyway.

    sessions ── a sweep between flushes, a few at a time ──► what is new ──► report by user
    sessions that end, answers to polls ─────────────────────────┘

Nothing is counted for a user on the way of a tick. A group has running totals, so a session's figures are
these less those at its joining (group.py). The trades among its ticks follow from the lane's position. Bytes
of frames that hold both channels are divided in proportion to the ticks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np
import trio

from marketfeed.access.usage import (
    ALERTS,
    MAX_SETS_BYTES,
    MAX_USERS,
    Counts,
    Interval,
    Report,
    User,
    UserReport,
    plus,
)
from marketfeed.core.binary import FrameParser, Kind
from marketfeed.core.compressed import inflated
from marketfeed.core.records import CHANNELS, QUOTES, RECORD, TRADES
from marketfeed.fanout.wire import TRADE_HEAD, is_session
from marketfeed.fanout.ws_frames import BINARY, payload_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from marketfeed.core.rings import Indices
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Interest
    from marketfeed.fanout.lanes import Lanes
    from marketfeed.fanout.ledger import SessionLedger
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.fanout.wire import Encoding

QUOTE_HEAD: Final = b'{"T":"q",'
Figures = tuple[int, int, int]  # ticks, trades among them, bytes
NOTHING: Final[Figures] = (0, 0, 0)


class _Account:
    """What of one session has been reported."""

    __slots__ = ("alerts", "figures", "noted", "user")

    def __init__(self, user: User) -> None:
        self.user = user
        self.figures: dict[str, Figures] = {}  # by tier
        self.alerts = (0, 0)  # number, bytes
        self.noted: Indices | None = None  # the symbols that were noted last


class Meter:
    """Meters the sessions and polls of one shard. Sessions that are not attached are not metered.

    The shard calls :meth:`note`, :meth:`end` and :meth:`step` between flushes; other tasks call the rest.
    """

    def __init__(self, lanes: Lanes, symbols: SymbolTable, wake: Callable[[], None]) -> None:
        self._lanes = lanes
        self._symbols = symbols
        self._wake = wake
        self._accounts: dict[Subscriber, _Account] = {}
        self._due: deque[Subscriber] = deque()
        self._swept = trio.Event()
        self._counts: dict[User, Counts] = {}  # not reported yet
        self._new: dict[User, list[Indices]] = {}  # likewise: symbols
        self._known: dict[User, Indices] = {}  # symbols of the day, ascending

    def __len__(self) -> int:
        """Return the number of sessions that are metered."""
        return len(self._accounts)

    # For other tasks.

    def attach(self, member: Subscriber, user: User) -> None:
        """Meter a session as that of ``user``, from its beginning. Idempotent.

        What a session was sent that changes its user, and is not reported yet, counts for the new one.
        """
        account = self._accounts.get(member)
        if account is None:
            self._accounts[member] = _Account(user)
        elif account.user != user:
            account.user, account.noted = user, None

    def polled(self, user: User, tier: str, names: Iterable[str], body: bytes) -> None:
        """Count ``body``, a JSON answer to a request for ``names`` on ``tier``, with its ticks."""
        if not body:
            return
        quotes, trades = body.count(QUOTE_HEAD), body.count(TRADE_HEAD)
        self._add(user, tier, (quotes + trades, trades, len(body)), QUOTES)
        plain: list[str] = []
        prefixes: list[str] = []
        for name in names:
            (prefixes if name.endswith("*") else plain).append(name.removesuffix("*"))
        self._see(user, self._symbols.resolve(plain, prefixes))

    async def sweep(self) -> None:
        """Bring the figures of all sessions up to date; return when the shard has done so."""
        if not self._due:
            self._due.extend(self._accounts)
            self._swept = trio.Event()
        if self._due:
            self._wake()
            await self._swept.wait()

    def finish(self) -> None:
        """Bring the figures up to date at once, when the shard does not run any more."""
        for member in self._accounts:
            self._settle(member)
        self._due.clear()
        self._swept.set()

    def new_day(self) -> None:
        """Forget which symbols each user had: from now on they count for another day."""
        self._known.clear()
        for account in self._accounts.values():
            account.noted = None

    def take(self, interval: Interval) -> list[Report]:
        """Return what was not reported yet, as usage in ``interval``, in reports of limited size."""
        counts, self._counts = self._counts, {}
        new, self._new = self._new, {}
        reports = [Report(interval, [], [])]  # also if it is empty: that too is a rate
        numbers: dict[int, int] = {}  # of a set in the present report, by id of its array
        left = MAX_SETS_BYTES
        for user in counts | new:
            if len(reports[-1].users) >= MAX_USERS or left <= 0:
                reports.append(Report(interval, [], []))
                numbers, left = {}, MAX_SETS_BYTES
            report, row = reports[-1], UserReport(*user, counts.get(user, {}), [])
            for symbols in new.get(user, ()):
                number = numbers.get(id(symbols))
                if number is None:
                    number = numbers[id(symbols)] = len(report.sets)
                    report.sets.append(symbols.astype("<u4").tobytes())
                    left -= len(report.sets[-1])
                row.sets.append(number)
            report.users.append(row)
        return reports

    # For the shard, between flushes.

    def note(self, member: Subscriber) -> None:
        """Record the symbols of a session whose names are about to change."""
        account = self._accounts.get(member)
        if account is not None:
            self._note(account, member.interest)

    def end(self, member: Subscriber) -> None:
        """Record what a session has got that has left its group, and meter it no more."""
        if member in self._accounts:
            self._settle(member)
            del self._accounts[member]

    def step(self, now_ns: int) -> bool:
        """Bring the figures of one session up to date; return False if none is due."""
        if not self._due:
            return False
        self._settle(self._due.popleft())
        if not self._due:
            self._swept.set()
        return True

    def _settle(self, member: Subscriber) -> None:
        account = self._accounts.get(member)
        if account is None:
            return
        self._note(account, member.interest)
        channel = QUOTES if len(member.interest.symbols[QUOTES]) else TRADES
        for tier, ledger in (member.earlier or {}).items():
            self._count(account, tier, _figures(ledger), channel)
        self._count(account, member.ledger_tier, self._present(member), channel)
        if member.alerts:
            number, size = member.alerts - account.alerts[0], member.alert_bytes - account.alerts[1]
            account.alerts = (member.alerts, member.alert_bytes)
            if number or size:
                plus(self._counts.setdefault(account.user, {}), {(member.tier.name, ALERTS): (number, size)})

    def _present(self, member: Subscriber) -> Figures:
        """Return the figures of a session on its present tier."""
        ticks, trades, size = _figures(member.ledger)
        group, lane = member.group, self._lanes.get(member)
        if group is None or lane is None or not is_session(group.encoding):
            return ticks, trades, size
        base_trades, base_size = member.sent_bases
        ticks += group.delivered - member.bases[1]
        # What a flush that was cancelled has collected was not sent.
        unsent = group.content.trade_count()
        trades += group.trades(lane.seen, lane.omitted) - base_trades - unsent
        return ticks, trades, size + group.sent_bytes - base_size

    def _count(self, account: _Account, tier: str, now: Figures, channel: int) -> None:
        """Count what ``now`` has more than was reported; bytes without ticks are those of ``channel``."""
        had = account.figures.get(tier, NOTHING)
        if now != had:
            account.figures[tier] = now
            ticks, trades, size = (new - old for new, old in zip(now, had, strict=True))
            self._add(account.user, tier, (ticks, trades, size), channel)

    def _add(self, user: User, tier: str, more: Figures, channel: int) -> None:
        ticks, trades, size = more
        of_trades = size * trades // ticks if ticks else size * channel
        both = ((ticks - trades, size - of_trades), (trades, of_trades))
        found = {(tier, name): one for name, one in zip(CHANNELS, both, strict=True) if any(one)}
        if found:
            plus(self._counts.setdefault(user, {}), found)

    def _note(self, account: _Account, interest: Interest) -> None:
        symbols = interest.distinct()
        if symbols is not account.noted:
            account.noted = symbols
            self._see(account.user, symbols)

    def _see(self, user: User, symbols: Indices) -> None:
        """Record ``symbols``, ascending; users with the same subscription share the array."""
        known = self._known.get(user)
        if known is symbols or not len(symbols):
            return
        if known is None:
            new = self._known[user] = symbols
        else:
            # As setdiff1d, which takes ten times as long for a few symbols, at the end of each session.
            at = np.searchsorted(known, symbols)
            new = symbols[known.take(at, mode="clip") != symbols]
            if not len(new):
                return
            within = len(known) + len(new) == len(symbols)
            self._known[user] = symbols if within else np.union1d(known, new)
        self._new.setdefault(user, []).append(new)


def _figures(ledger: SessionLedger) -> Figures:
    return ledger.delivered, ledger.trades, ledger.sent_bytes


def trades_in(message: bytes, encoding: Encoding) -> int:
    """Return the number of trades in a frame with ticks of a session; its cost grows with the frame."""
    at, length = payload_span(message) or (0, 0)
    if encoding.codec == "json":
        return (inflated(message[at:]).encode() if message[0] == BINARY else message).count(TRADE_HEAD)
    parser = FrameParser()
    parser.feed(message[at : at + length])
    found = 0
    while (part := parser.next_frame()) is not None:
        if part.kind is Kind.TRADES:
            found += len(part.payload) // RECORD.itemsize
    return found
