"""Ticks that one session has missed: how many, and the next ones, encoded, in order of ``g``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.records import CHANNELS, QUOTES, TRADES, stamps_of
from marketfeed.fanout.codecs import gap_fragment
from marketfeed.fanout.state import State
from marketfeed.fanout.tick_runs import EMPTY, Run, merged

if TYPE_CHECKING:
    from marketfeed.core.rings import Indices, Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.lane import Lane
    from marketfeed.fanout.subscriber import Subscriber

ADVANCE_TICKS: Final = 2048  # of one advance: about 2 ms, of which a tenth does not depend on the number
FEW_TICKS: Final = 16  # that are read one by one, which costs less than arrays


def distance(lane: Lane, member: Subscriber) -> tuple[list[int], int, bool]:
    """Compare the positions of both.

    Returns the missing ticks per channel, the most that are missing of one symbol, and whether the member
    is ahead with any.
    """
    totals, most, ahead = [0] * len(CHANNELS), 0, False
    for channel, symbols in enumerate(member.interest.symbols):
        behind = lane.seen[channel].take(symbols)
        behind -= member.seen[channel]
        if behind.any():
            ahead = ahead or bool((behind < 0).any())
            np.maximum(behind, 0, out=behind)
            totals[channel] = int(behind.sum())
            most = max(most, int(behind.max()))
    return totals, most, ahead


class MissedTicks:
    """Reads what lies between a session and its lane, over the rings of one shard."""

    def __init__(self, rings: Rings, symbols: SymbolTable) -> None:
        self._rings = rings
        self._symbols = symbols

    def read(self, lane: Lane, member: Subscriber, in_full: int) -> tuple[list[bytes], Run]:
        """Return the next gaps and ticks, in order of ``g``, and move the member behind them."""
        if in_full <= FEW_TICKS and member.tier.every and member.state is not State.LAGGING:
            few = self._read_few(lane, member)
            if few is not None:
                return [], few
        bound, upto = self._bound(lane, member, in_full)
        gaps: list[bytes] = []
        runs: list[Run] = []
        for channel, symbols in enumerate(member.interest.symbols):
            if not len(symbols):
                continue
            if member.tier.every and not (member.state is State.LAGGING and channel == QUOTES):
                runs.append(self._read_every(lane, member, channel, bound, upto.get(channel), gaps))
            else:
                runs.append(self._read_latest(lane, member, channel, bound))
        member.g = bound
        return gaps, merged(runs)

    def _read_few(self, lane: Lane, member: Subscriber) -> Run | None:
        """Do the same as :meth:`read` one by one; None, without effect, if a tick cannot be read."""
        found: list[tuple[int, int, bytes]] = []
        moves: list[Indices] = []
        for channel, symbols in enumerate(member.interest.symbols):
            ahead = lane.seen[channel].take(symbols)
            ahead -= member.seen[channel]
            moves.append(np.maximum(ahead, 0, out=ahead))
            for at in ahead.nonzero()[0].tolist():
                symbol, seen = int(symbols[at]), int(member.seen[channel][at])
                for n in range(seen + 1, seen + int(ahead[at]) + 1):
                    tick = self._rings.few.tick(channel, symbol, n, lane.g)
                    if tick is None:
                        return None
                    found.append((tick.fields[2], channel, lane.encoder.fragment(tick)))
        for seen_by_us, ahead in zip(member.seen, moves, strict=True):
            seen_by_us += ahead
        member.ledger.matched += len(found)
        member.g = lane.g
        found.sort()
        gs = np.array([g for g, _, _ in found], np.uint64)
        return Run(gs, [channel for _, channel, _ in found], [fragment for _, _, fragment in found])

    def _bound(
        self, lane: Lane, member: Subscriber, in_full: int
    ) -> tuple[int, dict[int, tuple[Indices, Indices]]]:
        """Return a ``g`` up to which ADVANCE_TICKS / 4 to ADVANCE_TICKS of the ``in_full`` ticks lie.

        Also returns, by channel and as far as the search has them, the indices of the symbols that move and
        the ``n`` to which they move. A search, because the cost of an advance must not depend on how
        unevenly the ticks are distributed over ``g``.
        """
        if in_full <= ADVANCE_TICKS:
            return lane.g, {}
        ahead = []
        for channel in [TRADES] if member.state is State.LAGGING else [QUOTES, TRADES]:
            symbols, seen = member.interest.symbols[channel], member.seen[channel]
            upto = lane.seen[channel][symbols]
            more = np.flatnonzero(upto > seen)
            if len(more):
                held = np.maximum(seen[more], self._rings.oldest(channel, symbols[more]) - 1)
                ahead.append((channel, symbols[more], more, held, upto[more]))
        low, high = 0, lane.g - member.g
        span = high
        width = max(high * ADVANCE_TICKS // (2 * in_full), 1)
        while high - low > 1:
            count = 0
            reached: dict[int, tuple[Indices, Indices]] = {}
            for channel, symbols, more, held, last in ahead:
                at = np.minimum(self._rings.position(channel, symbols, member.g + width), last)
                reached[channel] = more, at
                count += int(np.maximum(at - held, 0).sum())
            if count > ADVANCE_TICKS:
                high = width
            elif count < ADVANCE_TICKS // 4:
                low = width
            else:
                return member.g + width, reached
            width = low * 2 if high == span and 0 < low * 2 < high else (low + high) // 2
        return member.g + high, {}

    def _read_every(
        self,
        lane: Lane,
        member: Subscriber,
        channel: int,
        bound: int,
        reached: tuple[Indices, Indices] | None,
        gaps: list[bytes],
    ) -> Run:
        symbols, seen = member.interest.symbols[channel], member.seen[channel]
        if reached is not None:
            some, upto = reached
        else:
            some, upto = np.arange(len(symbols)), lane.seen[channel][symbols]
            if bound < lane.g:
                upto = np.minimum(upto, self._rings.position(channel, symbols, bound))
        moves = upto > seen[some]
        ahead, upto = some[moves], upto[moves]
        if not len(ahead):
            return EMPTY
        ticks = self._rings.read(channel, symbols[ahead], seen[ahead], upto, bound)
        for i in np.flatnonzero(ticks.lost).tolist():
            name = self._symbols.name(int(symbols[ahead[i]]))
            next_n = int(ticks.seen[i] - ticks.counts[i]) + 1
            gaps.append(gap_fragment(name, CHANNELS[channel], int(ticks.lost[i]), next_n))
        member.ledger.matched += int((ticks.seen - seen[ahead]).sum())
        member.ledger.lost += int(ticks.lost.sum())
        seen[ahead] = ticks.seen
        stamps = stamps_of(ticks.records)
        order = stamps.argsort()
        fragments = lane.encoder.fragments(channel, ticks.records.take(order, mode="clip"))
        return Run(stamps[order], [channel] * len(fragments), fragments)

    def _read_latest(self, lane: Lane, member: Subscriber, channel: int, bound: int) -> Run:
        symbols, seen = member.interest.symbols[channel], member.seen[channel]
        ahead = np.flatnonzero(lane.seen[channel][symbols] > seen)
        if not len(ahead):
            return EMPTY
        latest = lane.encoder.latest(channel, symbols[ahead], lane.seen[channel][symbols[ahead]], lane.g)
        held = ahead[latest.held]
        taken = (latest.gs <= bound) & (latest.ns > seen[held])
        skipped = int((latest.ns - seen[held] - 1)[taken].sum())
        member.ledger.matched += skipped + int(taken.sum())
        member.ledger.conflated += skipped
        member.lag_conflated += skipped
        seen[held[taken]] = latest.ns[taken]
        chosen = np.flatnonzero(taken)
        order = chosen[latest.gs[chosen].argsort()]
        fragments = [latest.fragments[i] for i in order.tolist()]
        return Run(latest.gs[order], [channel] * len(fragments), fragments)
