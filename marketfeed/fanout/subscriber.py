"""A session in the fan-out: its subscription, its position and its sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from marketfeed.fanout.interest import NO_NAMES, Interest, Names
from marketfeed.fanout.ledger import Ledger, SessionLedger
from marketfeed.fanout.meter import trades_in
from marketfeed.fanout.state import Event, State, after
from marketfeed.fanout.tiers import Tier
from marketfeed.fanout.wire import CodecName, Encoding

if TYPE_CHECKING:
    from marketfeed.core.rings import Indices, Rings
    from marketfeed.errors import CloseCode
    from marketfeed.fanout.group import Group

LaneKey = tuple[Tier, int, CodecName]  # the tier by value, as a reload may change it; phase; codec
JOINED_BYTES: Final = 4096  # of frames that are sent together: each send costs 30 to 60 µs
_NOTHING: Indices = np.empty(0, np.int64)


class Sink(Protocol):
    """Destination of frames. No method waits or raises."""

    @property
    def received(self) -> int:
        """Return how many bytes the peer has sent so far."""
        ...

    def offer(self, frame: bytes) -> bool:
        """Accept a whole frame; return False if part of it remains unsent, or the sink is closed."""
        ...

    def acknowledged(self) -> int:
        """Return a number that rises exactly when the peer acknowledges bytes while some are unsent."""
        ...

    def unsent(self) -> int:
        """Return how many unsent bytes the kernel holds."""
        ...

    def pace(self, send_buffer_bytes: int) -> None:
        """Limit the unsent bytes in the kernel to about ``send_buffer_bytes``."""
        ...

    def end(self, code: CloseCode) -> None:
        """Request the end of the session; it ends asynchronously."""
        ...


class Subscriber:
    """A session's state, its subscription and its position in the rings.

    ``state`` changes in :meth:`join`, :meth:`leave_group`, :meth:`block`, :meth:`drained`, :meth:`lag`,
    :meth:`recover` and :meth:`end` only; :class:`~marketfeed.fanout.state.State` has the table.

    A live session shares the position of its ``group``. Any other has its own: ``seen[channel]``, with the
    shape of ``interest.symbols[channel]``, which the shard advances until the session can join a group.
    """

    __slots__ = (
        "alert_bytes",
        "alerts",
        "answer",
        "asked_ns",
        "awaited",
        "backlog",
        "bases",
        "doublings",
        "earlier",
        "encoding",
        "fresh",
        "g",
        "group",
        "heard",
        "id",
        "ids",
        "interest",
        "known",
        "lag_conflated",
        "ledger",
        "ledger_tier",
        "names",
        "next_advance_ns",
        "phase",
        "ping_payload",
        "pinged_ns",
        "pings",
        "quiet_until_ns",
        "replayed",
        "round_trip_ns",
        "seen",
        "sent_bases",
        "sent_ns",
        "sink",
        "state",
        "stuck_at",
        "stuck_ns",
        "synced",
        "synced_once",
        "tail_ticks",
        "tail_trades",
        "tier",
        "untold",
    )  # fmt: skip

    def __init__(
        self, id: str, sink: Sink, tier: Tier, encoding: Encoding, interest: Interest, now_ns: int
    ) -> None:
        self.id = id
        self.sink = sink
        self.tier = tier
        self.phase = tier.phase_of(id)
        self.names = NO_NAMES
        self.interest = interest
        self.encoding = encoding
        # Per channel, how many symbols of the interest were announced, except those in ``untold``:
        self.known: tuple[int, ...] = (0, 0)
        self.untold: Indices = _NOTHING
        # Ticks move the client's cursor: after `synced`, or at once if every name was resumed.
        self.ids = True
        self.state = State.CATCHING_UP
        self.group: Group | None = None
        self.bases = (0, 0, 0, 0)  # of the group when the session joined: matched, delivered, conflated, lost
        self.sent_bases = (0, 0)  # likewise: trades, bytes
        # While it is in no group:
        self.seen: list[Indices] = [_NOTHING, _NOTHING]
        self.g = 0  # every tick of the subscription up to here was sent
        self.fresh: list[Indices] = [_NOTHING, _NOTHING]  # symbols whose snapshot is due
        # The next frames, a few, with the number of ticks in each, and of trades among them:
        self.backlog: list[tuple[bytes, int, int]] = []
        self.answer = b""  # to requests, framed, to be sent before the backlog
        self.synced: list[str | int | None] = []  # ids of the requests whose `synced` is due
        self.synced_once = False
        self.awaited = True  # feeds that can wait wait for it (slowest.py)
        self.tail_ticks = self.tail_trades = 0  # in the frame that the sink holds
        self.replayed = 0  # ticks sent in this catch-up
        self.lag_conflated = 0
        self.next_advance_ns = 0
        # For keepalive.py:
        self.sent_ns = self.pinged_ns = now_ns
        self.pings = 0  # since the last byte from the peer
        self.ping_payload = b""  # of the unanswered pings, the first of which was sent at `asked_ns`
        self.asked_ns = 0
        self.doublings = 0  # of the interval of pings; negative: halvings
        self.round_trip_ns = 0  # of the first ping, later at the last change of `doublings`
        self.heard = 0  # bytes
        self.stuck_at = self.stuck_ns = 0
        self.quiet_until_ns = 0  # no heartbeat or ping is due before; 0 while the session is blocked
        # Of ``ledger_tier``, which follows ``tier`` once the session has caught up there.
        self.ledger = SessionLedger()
        self.ledger_tier = tier.name
        self.earlier: dict[str, SessionLedger] | None = None  # of the tiers it had before
        self.alerts = self.alert_bytes = 0  # that it was sent, by the gateway

    @property
    def lane_key(self) -> LaneKey:
        """Return the key of the session's lane."""
        return self.tier, self.phase, self.encoding.codec

    @property
    def blocked(self) -> bool:
        """Whether the sink holds unsent bytes."""
        return self.state is State.BLOCKED or self.state is State.LAGGING_BLOCKED

    @property
    def lagging(self) -> bool:
        """Whether the client was sent ``{"T":"lag","on":true}`` and no ``"on":false`` since."""
        return self.state is State.LAGGING or self.state is State.LAGGING_BLOCKED

    # Transitions: all of them.

    def join(self, group: Group, bases: tuple[int, int, int, int], sent_bases: tuple[int, int]) -> None:
        """Become a member of ``group``, with its present totals; drop the session's own position."""
        self.state = after(self.state, Event.JOIN)
        self.group = group
        self.bases, self.sent_bases = bases, sent_bases
        self.seen = [_NOTHING, _NOTHING]

    def leave_group(self, known: tuple[int, ...], seen: list[Indices]) -> None:
        """Leave the group; ``known`` and ``seen`` are the group's and become the session's own."""
        self.state = after(self.state, Event.LEAVE)
        self.group = None
        self.known = known
        self.seen = seen

    def block(self, ticks: int = 0, trades: int = 0) -> None:
        """Record that the sink holds unsent bytes: ``ticks`` ticks, of which ``trades`` are trades."""
        self.state = after(self.state, Event.BLOCK)
        self.tail_ticks += ticks
        self.tail_trades += trades
        self.quiet_until_ns = 0

    def send_backlog(self) -> bool:
        """Offer the answer and the backlog, short frames together; return False if the session is blocked."""
        while self.backlog or self.answer:
            if self.blocked:
                return False
            frame, ticks, trades = self.backlog.pop(0) if self.backlog else (b"", 0, 0)
            while self.backlog and len(frame) + len(self.backlog[0][0]) <= JOINED_BYTES:
                behind = self.backlog.pop(0)
                frame, ticks, trades = frame + behind[0], ticks + behind[1], trades + behind[2]
            if not self.offer(frame, ticks, trades):
                return False
        return not self.blocked

    def drained(self) -> None:
        """Count the ticks that the sink held as delivered."""
        self.state = after(self.state, Event.DRAIN)
        self.ledger.delivered += self.tail_ticks
        self.ledger.trades += self.tail_trades
        self.tail_ticks = self.tail_trades = 0

    def lag(self) -> None:
        """Begin to conflate quotes."""
        self.state = after(self.state, Event.LAG)
        self.lag_conflated = 0

    def recover(self) -> None:
        """Receive every quote again."""
        self.state = after(self.state, Event.RECOVER)

    def end(self) -> None:
        """Mark the session as gone. Idempotent."""
        self.state = after(self.state, Event.END)

    def hold(self, frame: bytes, ticks: int) -> None:
        """Count a frame of a group, which it has left since, as held by the sink and not as delivered."""
        trades = trades_in(frame, self.encoding) if ticks else 0
        self.ledger.delivered -= ticks
        self.ledger.trades -= trades
        self.block(ticks, trades)

    def got_alerts(self, number: int, size: int) -> None:
        """Count alerts, which the gateway sends, and their bytes."""
        self.alerts += number
        self.alert_bytes += size

    def offer(self, frame: bytes, ticks: int, trades: int = 0) -> bool:
        """Send a frame to this session only, behind the answer that is due.

        The ticks of the frame count as delivered now, or once the sink has drained; answers do not count.

        Returns False if the session is blocked afterwards. A live session has to leave its group first.
        """
        self.ledger.sent_bytes += len(frame)
        if self.answer:
            frame, self.answer = self.answer + frame, b""
        if self.sink.offer(frame):
            self.ledger.delivered += ticks
            self.ledger.trades += trades
            return True
        self.block(ticks, trades)
        return False

    def rename(self, names: Names, interest: Interest, rings: Rings) -> list[Indices]:
        """Replace the names of a session that is in no group; symbols that it keeps keep their position.

        Returns the symbols that are new to it, by channel; their snapshots are due. Pending ticks of symbols
        that it drops are abandoned.
        """
        added: list[Indices] = []
        for channel, (old, new) in enumerate(zip(self.interest.symbols, interest.symbols, strict=True)):
            if not len(old):  # the first request costs a tenth of a change
                added.append(new)
                self.fresh[channel] = np.sort(new)
                self.seen[channel] = np.zeros(len(new), np.int64)
                continue
            position = np.full(rings.max_symbols, -1, np.int64)
            position[old] = 0  # of symbols that joined the interest meanwhile
            position[old[: len(self.seen[channel])]] = self.seen[channel]
            fresh, wanted = (np.zeros(rings.max_symbols, bool) for _ in range(2))
            fresh[self.fresh[channel]] = True
            wanted[new] = True
            gone = old[~(wanted[old] | fresh[old])]
            pending = int((rings.published_of(channel, gone) - position[gone]).sum())
            self.ledger.matched += pending
            self.ledger.abandoned += pending
            kept = position[new]
            added.append(new[kept < 0])
            fresh &= wanted
            fresh[added[-1]] = True
            self.fresh[channel] = np.flatnonzero(fresh)
            self.seen[channel] = np.maximum(kept, 0)
        if self.encoding.announces:
            told = np.zeros(rings.max_symbols, bool)
            for ids, count in zip(self.interest.symbols, self.known, strict=True):
                told[ids[:count]] = True
            told[self.untold] = False
            wanted_now = np.concatenate(interest.symbols)
            self.untold = np.unique(wanted_now[~told[wanted_now]])
        self.known = interest.counts()
        self.names, self.interest = names, interest
        return added

    def place(self, channel: int, symbols: Indices, at: Indices) -> None:
        """Set the position of ``symbols``, shape ``(k,)``, to ``at``; their snapshots are no longer due."""
        mine = self.interest.symbols[channel]
        if len(symbols) == len(mine) and (symbols == mine).all():  # as after most cuts
            self.seen[channel], self.fresh[channel] = at, _NOTHING
            return
        size = int(mine.max(initial=0)) + 1
        where = np.zeros(size, np.int64)
        where[mine] = np.arange(len(mine))
        self.seen[channel][where[symbols]] = at
        fresh = np.zeros(size, bool)
        fresh[self.fresh[channel]] = True
        fresh[symbols] = False
        self.fresh[channel] = np.flatnonzero(fresh)

    def change_lane(self, tier: Tier, encoding: Encoding) -> None:
        """Move to another lane at the same position; pending ticks still count on the old tier."""
        if encoding is not self.encoding:
            self.encoding = encoding
            self.known, self.untold = (0, 0), _NOTHING
        if tier is not self.tier:
            self.tier = tier
            self.phase = tier.phase_of(self.id)
            self.sink.pace(tier.send_buffer_bytes)

    def switch_ledger(self) -> None:
        """Use the ledger of the present tier: no tick that was pending at the change is left."""
        if self.ledger_tier == self.tier.name:
            return
        self.earlier = self.earlier or {}
        self.earlier[self.ledger_tier] = self.ledger
        self.ledger = self.earlier.pop(self.tier.name, SessionLedger())
        self.ledger_tier = self.tier.name

    def ledgers(self, lane_seen: list[Indices] | None, rings: Rings) -> dict[str, Ledger]:
        """Return copies of the present ledgers by tier; ``lane_seen`` is the position of the lane."""
        now = Ledger()
        now.add(self.ledger)
        seen = self.seen
        if self.group is not None and lane_seen is not None:
            matched, delivered, conflated, lost = self.bases
            group = self.group
            now.matched += group.position(lane_seen) - matched
            now.delivered += group.delivered - delivered
            now.conflated += group.conflated - conflated
            now.lost += group.lost - lost
            now.pending += len(group.content)  # collected by the flush in progress
            seen = [lane_seen[channel][symbols] for channel, symbols in enumerate(group.interest.symbols)]
        ahead = 0
        for channel, symbols in enumerate(self.interest.symbols):
            placed = symbols[: len(seen[channel])]
            behind = rings.published_of(channel, placed) - seen[channel]
            if len(self.fresh[channel]):
                behind = behind[np.isin(placed, self.fresh[channel], invert=True)]
            ahead += int(behind.sum())
        now.matched += ahead
        now.pending += ahead + self.tail_ticks + sum(ticks for _, ticks, _ in self.backlog)
        return {**(self.earlier or {}), self.ledger_tier: now}


Blocked = list[tuple[Subscriber, int, bytes]]  # with the ticks of a frame that its sink holds, and the frame
