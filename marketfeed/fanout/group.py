"""Sessions of one lane and encoding that subscribed to the same names; all get the same frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marketfeed.core.records import TRADES
from marketfeed.fanout.ledger import Ledger
from marketfeed.fanout.wire import Encoding, FrameContent, Moment, is_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Interest
    from marketfeed.fanout.subscriber import Subscriber


class Group:
    """Members share the position of their lane, and running totals of what each of them was sent.

    The figures of one member are the totals less those at the time when it joined, so a delivery needs no
    bookkeeping per member.
    """

    __slots__ = (
        "_bases",
        "appends",
        "conflated",
        "content",
        "delivered",
        "encoding",
        "interest",
        "known",
        "lost",
        "members",
        "packs",
        "sent_bytes",
        "sent_ns",
    )  # fmt: skip

    def __init__(self, interest: Interest, encoding: Encoding, at_once: bool = False) -> None:
        """``at_once``: of a tier without interval, whose frames are never packed."""
        self.interest = interest
        self.encoding = encoding
        self.packs = encoding.packs and not at_once
        self.members: dict[Subscriber, Callable[[bytes], bool]] = {}  # and the ``offer`` of its sink
        self.content = FrameContent(encoding.mixed)  # of the flush in progress
        self.appends = (self.content.ticks.append, self.content.trades.append)  # by channel
        self.known = interest.counts()  # per channel, how many symbols were announced to every member
        self.delivered = self.conflated = self.lost = 0
        self.sent_bytes = 0
        self.sent_ns = 0
        self._bases = [0, 0, 0, 0]  # sums of the members' bases

    def frame(self, moment: Moment, table: SymbolTable) -> tuple[bytes, int]:
        """Return the frame of the flush in progress and its number of ticks; reset for the next flush."""
        content = self.content
        ticks = len(content)
        if self.encoding.announces and self.known != self.interest.counts():
            untold = self.interest.behind(self.known).tolist()
            content.announced = {table.name(symbol): symbol for symbol in untold}
            self.known = self.interest.counts()
        message = self.encoding.frame(content, moment)
        if self.packs:
            message = self.encoding.packed(message, len(self.members), moment.sent_ns)
        content.clear()
        self.delivered += ticks
        self.sent_bytes += len(message)
        return message, ticks

    def _add_bases(self, member: Subscriber, sign: int) -> None:
        self._bases = [mine + sign * its for mine, its in zip(self._bases, member.bases, strict=True)]

    def totals(self, position: int, published: int) -> Ledger:
        """Return the sum of the members' ledgers since they joined.

        ``position`` is the number of ticks of the group's symbols up to the lane's position,
        ``published`` their number in all.
        """
        count = len(self.members)
        matched, delivered, conflated, lost = self._bases
        # Ticks that the flush in progress has collected and not sent lie before the lane's position.
        pending = (published - position) * count
        waiting = len(self.content) * count
        return Ledger(
            matched=position * count - matched + pending,
            delivered=self.delivered * count - delivered,
            conflated=self.conflated * count - conflated,
            lost=self.lost * count - lost,
            pending=pending + waiting,
        )

    def position(self, seen: list[Indices]) -> int:
        """Return how many ticks of the group's symbols lie up to the lane's position ``seen``."""
        found = 0
        for counts, symbols in zip(seen, self.interest.symbols, strict=True):
            if len(symbols):
                found += int(np.add.reduce(counts.take(symbols)))
        return found

    def trades(self, seen: list[Indices], omitted: Indices) -> int:
        """Return how many trades the frames of the group had, up to the lane's position ``seen``.

        ``omitted`` are the lane's, by symbol. Only differences have a meaning. Between flushes only: trades
        are not counted on their way, and those that the flush in progress has collected lie before ``seen``.
        """
        symbols = self.interest.symbols[TRADES]
        if not len(symbols) or not is_session(self.encoding):
            return 0
        return int(seen[TRADES][symbols].sum() - omitted[symbols].sum())

    def join(self, member: Subscriber, seen: list[Indices], omitted: Indices) -> None:
        """Add a session that is at the lane's position ``seen``."""
        bases = (self.position(seen), self.delivered, self.conflated, self.lost)
        member.join(self, bases, (self.trades(seen, omitted), self.sent_bytes))
        self._add_bases(member, 1)
        self.members[member] = member.sink.offer

    def leave(self, member: Subscriber, seen: list[Indices], omitted: Indices) -> None:
        """Remove a session; its figures go to its own ledger, and the lane's position becomes its own."""
        matched, delivered, conflated, lost = member.bases
        self._add_bases(member, -1)
        ledger = member.ledger
        ledger.matched += self.position(seen) - matched
        ledger.delivered += self.delivered - delivered
        ledger.conflated += self.conflated - conflated
        ledger.lost += self.lost - lost
        trades, sent_bytes = member.sent_bases
        ledger.trades += self.trades(seen, omitted) - trades
        ledger.sent_bytes += self.sent_bytes - sent_bytes
        del self.members[member]
        own = [seen[channel][symbols] for channel, symbols in enumerate(self.interest.symbols)]
        member.leave_group(self.known, own)
