"""A group: sessions on one tier, phase and encoding that wrote the same names. One frame serves them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.fanout.ledger import Ledger
from marketfeed.fanout.wire import Encoding, FrameContent, Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Interest
    from marketfeed.fanout.subscriber import Subscriber


class Group:
    """Members share a position, which is their lane's, and running totals of what any one of them got.

    A member's own figures are the totals now less those when it joined, so
    that delivering costs no bookkeeping per member.
    """

    __slots__ = (
        "_bases", "appends", "conflated", "delivered", "encoding", "interest", "known", "lost", "members",
        "sent_ns", "step",
    )  # fmt: skip

    def __init__(self, interest: Interest, encoding: Encoding) -> None:
        self.interest = interest
        self.encoding = encoding
        self.members: dict[Subscriber, Callable[[bytes], bool]] = {}  # and where to send
        self.step = FrameContent(encoding.mixed)  # of the flush under way
        self.appends = (self.step.ticks.append, self.step.trades.append)  # by channel
        self.known = interest.counts()  # of its symbols, how many every member has been told of
        self.delivered = self.conflated = self.lost = 0
        self.sent_ns = 0
        self._bases = [0, 0, 0, 0]  # the sums of the members' own

    def frame(self, moment: Moment, table: SymbolTable) -> tuple[bytes, int]:
        """Return the frame of the flush under way and how many ticks it holds; ready for the next one."""
        step = self.step
        ticks = len(step)
        if self.encoding.announces and self.known != self.interest.counts():
            untold = self.interest.behind(self.known).tolist()
            step.announced = {table.name(symbol): symbol for symbol in untold}
            self.known = self.interest.counts()
        message = self.encoding.frame(step, moment)
        step.clear()
        self.delivered += ticks
        return message, ticks

    def _add_bases(self, member: Subscriber, sign: int) -> None:
        self._bases = [mine + sign * its for mine, its in zip(self._bases, member.bases, strict=True)]

    def totals(self, position: int, published: int) -> Ledger:
        """Return what all members together got as members.

        ``position`` and ``published`` are how many ticks of the group's symbols
        lie at or before the lane's position, and how many there are.
        """
        count = len(self.members)
        matched, delivered, conflated, lost = self._bases
        # What a flush under way has collected and not sent yet lies before the lane's position.
        pending = (published - position) * count
        waiting = len(self.step) * count
        return Ledger(
            matched=position * count - matched + pending,
            delivered=self.delivered * count - delivered,
            conflated=self.conflated * count - conflated,
            lost=self.lost * count - lost,
            pending=pending + waiting,
        )

    def position(self, seen: list[Indices]) -> int:
        """Return how many ticks of its symbols lie at or before the lane's position ``seen``."""
        symbols = self.interest.symbols
        return sum(int(seen[channel][symbols[channel]].sum()) for channel in range(len(symbols)))

    def join(self, member: Subscriber, seen: list[Indices]) -> None:
        """Take in a session that stands exactly at the lane's position."""
        member.join(self, (self.position(seen), self.delivered, self.conflated, self.lost))
        self._add_bases(member, 1)
        self.members[member] = member.sink.offer

    def leave(self, member: Subscriber, seen: list[Indices]) -> None:
        """Let a session go, with its figures booked to its own ledger, and its position its own."""
        matched, delivered, conflated, lost = member.bases
        self._add_bases(member, -1)
        ledger = member.ledger
        ledger.matched += self.position(seen) - matched
        ledger.delivered += self.delivered - delivered
        ledger.conflated += self.conflated - conflated
        ledger.lost += self.lost - lost
        del self.members[member]
        own = [seen[channel][symbols] for channel, symbols in enumerate(self.interest.symbols)]
        member.leave_group(self.known, own)
