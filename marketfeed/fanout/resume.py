"""Where a session goes on after a cut: its cursor against what the rings still hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from marketfeed.core.rings import Indices, Rings

if TYPE_CHECKING:
    from marketfeed.core.cursor import Cursor
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Names
    from marketfeed.fanout.subscriber import Subscriber

_Placed = tuple[int, Indices, Indices, Indices]  # channel, symbols, where they are put, how many are missing


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
        matched = table.in_order(np.concatenate(added))
        # A name that matches nothing yet was another's in the cursor's epoch.
        unknown = {name for name in names.distinct() if not table.matches(name)}
        return Resumption(tuple(sorted([*matched, *unknown]) if unknown else matched))
    placed: list[_Placed] = []
    broken: Indices = np.empty(0, np.int64)
    for channel, symbols in enumerate(added):
        if not len(symbols):
            continue
        at = rings.position(channel, symbols, after.g)
        # Loaded after the search: what was overwritten meanwhile does not count as found.
        floor = rings.oldest(channel, symbols) - 1
        behind = np.maximum(rings.published_of(channel, symbols) - at, 0)
        gone = (at <= floor) & (floor > 0)
        if gone.any():
            broken = np.union1d(broken, symbols[gone])
        placed.append((channel, symbols, at, behind if member.tier.every else np.minimum(behind, 1)))
    placed = _without(placed, broken)
    if sum(int(behind.sum()) for _, _, _, behind in placed) > most:
        for _, symbols, _, behind in placed:
            broken = np.union1d(broken, symbols[behind > 0])
        placed = _without(placed, broken)
    for channel, symbols, at, _ in placed:
        member.place(channel, symbols, at)
        if len(symbols):
            member.g = min(member.g, after.g)
    return Resumption(tuple(table.in_order(broken)))


def _without(placed: list[_Placed], broken: Indices) -> list[_Placed]:
    """Leave out what is of the symbols ``broken``."""
    if not len(broken):
        return placed
    left = []
    for channel, symbols, at, behind in placed:
        keep = np.isin(symbols, broken, invert=True)
        left.append((channel, symbols[keep], at[keep], behind[keep]))
    return left
