"""Resumption: the position of a session from its cursor, as far as the rings reach back."""

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

_Placed = tuple[int, Indices, Indices, Indices]  # channel, symbols, positions, missing ticks


@dataclass(frozen=True, slots=True)
class Resumption:
    """Result of a request with a cursor."""

    reset: tuple[str, ...]  # names that could not be resumed and get a snapshot, sorted

    @property
    def resumed(self) -> bool:
        """Return whether every tick since the cursor follows."""
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
    """Set the position of ``member`` to ``after`` for the symbols ``added`` that can be resumed.

    ``added[channel]``, shape ``(k,)``, are the symbols that the names of the request added. Each is due a
    snapshot, unless the rings reach back to the cursor; then it gets a position instead. A symbol is reset on
    both channels or on neither, because the answer lists names. At most ``most`` ticks are replayed.
    """
    if after.epoch != rings.epoch or after.g > rings.head():
        matched = table.in_order(np.concatenate(added))
        # A name without a symbol may have had one in the cursor's epoch.
        unknown = {name for name in names.distinct() if not table.matches(name)}
        return Resumption(tuple(sorted([*matched, *unknown]) if unknown else matched))
    placed: list[_Placed] = []
    broken: Indices = np.empty(0, np.int64)
    for channel, symbols in enumerate(added):
        if not len(symbols):
            continue
        at = rings.position(channel, symbols, after.g)
        # Loaded after the search: ticks that were overwritten meanwhile do not count as found.
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
    """Return ``placed`` without the symbols ``broken``."""
    if not len(broken):
        return placed
    left = []
    for channel, symbols, at, behind in placed:
        keep = np.isin(symbols, broken, invert=True)
        left.append((channel, symbols[keep], at[keep], behind[keep]))
    return left
