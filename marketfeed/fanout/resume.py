"""Where a session goes on after a cut: its cursor against what the rings still hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marketfeed.core.cursor import Cursor
from marketfeed.core.rings import Indices, Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.fanout.interest import Names
from marketfeed.fanout.subscriber import Subscriber


@dataclass(frozen=True, slots=True)
class Resumption:
    """What became of a request's cursor, judged when it is answered."""

    reset: tuple[str, ...]  # names that could not be resumed and get a snapshot, in order

    @property
    def resumed(self) -> bool:
        """Return whether all that was missed since the cursor follows."""
        return not self.reset


def resume(
    member: Subscriber,
    added: list[Indices],
    names: Names,
    after: Cursor,
    rings: Rings,
    table: SymbolTable,
    most: int,
) -> Resumption:
    """Put ``member`` behind ``after`` for the symbols ``added`` to it, as far as they can be resumed.

    ``added[channel]``, shape ``(k,)``, are those that the names of the
    request brought, all of them down for a snapshot; where the rings reach
    back to the cursor, the position takes its place. A symbol is reset on
    both channels or on neither, as names are what the answer holds. ``most``
    is how many ticks may be replayed in all.
    """
    if after.epoch != rings.epoch or after.g > rings.head():
        reset = {table.name(symbol) for symbols in added for symbol in symbols.tolist()}
        # A name that matches nothing yet was another's in the cursor's epoch.
        reset.update(
            name for name in (*names.quotes, *names.trades) if next(iter(table.matching(name)), None) is None
        )
        return Resumption(tuple(sorted(reset)))
    positions, missing = [], []
    broken: Indices = np.empty(0, np.int64)
    for channel, symbols in enumerate(added):
        at = rings.position(channel, symbols, after.g)
        # Loaded after the search: what was overwritten meanwhile does not count as found.
        floor = rings.oldest(channel, symbols) - 1
        behind = np.maximum(rings.published(channel)[symbols] - at, 0)
        broken = np.union1d(broken, symbols[(at <= floor) & (floor > 0)])
        positions.append(at)
        missing.append(behind if member.tier.every else np.minimum(behind, 1))
    kept = [np.isin(symbols, broken, invert=True) for symbols in added]
    if sum(int(behind[keep].sum()) for behind, keep in zip(missing, kept, strict=True)) > most:
        for symbols, behind in zip(added, missing, strict=True):
            broken = np.union1d(broken, symbols[behind > 0])
        kept = [np.isin(symbols, broken, invert=True) for symbols in added]
    for channel, (symbols, at, keep) in enumerate(zip(added, positions, kept, strict=True)):
        member.place(channel, symbols[keep], at[keep])
        if keep.any():
            member.g = min(member.g, after.g)
    return Resumption(tuple(sorted(table.name(symbol) for symbol in broken.tolist())))
