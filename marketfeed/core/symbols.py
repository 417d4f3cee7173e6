"""The symbol table: maps names to ids, numbered in order of arrival.

The names are stored next to the rings, for other processes. A name is written, then counted, and only then
ticks of it are published. So a reader that loads the head first and the count second has a name for every
tick up to that head.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.errors import InvalidSymbolError, SymbolsFullError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MAX_NAME_BYTES: Final = 24
MAX_SYMBOLS: Final = 65536  # a record's symbol is a u2
SYMBOL_WORDS: Final = '1 to 24 printable ASCII characters without space , * " and \\'
_FORBIDDEN: Final = frozenset(' ,*"\\')
_BEHIND: Final = "\x7f"  # sorts after every character of a symbol

Ids = NDArray[np.int64]
_NO_IDS: Final[Ids] = np.empty(0, np.int64)


def is_symbol(name: str) -> bool:
    """Return whether ``name`` is 1 to 24 printable ASCII characters without space , * " and backslash."""
    return (
        0 < len(name) <= MAX_NAME_BYTES
        and name.isascii()
        and name.isprintable()
        and _FORBIDDEN.isdisjoint(name)
    )


def is_pattern(name: str) -> bool:
    """Return whether ``name`` is a prefix pattern: ``*`` alone, or the start of a symbol and ``*``."""
    return name == "*" or (name.endswith("*") and is_symbol(name[:-1]))


def shortest_prefixes(prefixes: Iterable[str]) -> list[str]:
    """Return the prefixes, sorted, without duplicates and without those that begin with another one."""
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept


@dataclass(frozen=True, slots=True)
class NameArea:
    """Names in shared memory with one writer."""

    names: NDArray[np.bytes_]  # (max_symbols,) S24, by id
    count: NDArray[np.uint64]  # (1,) number of names


class SymbolTable:
    """Names and their ids 0, 1, 2 … up to ``max_symbols``; a name keeps its id for the epoch.

    A table over an ``area`` loads its names; :meth:`learn` loads those that were added since. Only the writer
    of the area may call :meth:`intern`. Prefixes are looked up in the sorted names. The first look-up after
    names were added sorts them: 8 ms for 65,536 names, and 1 µs per prefix.
    """

    def __init__(self, max_symbols: int, area: NameArea | None = None) -> None:
        if not 0 < max_symbols <= MAX_SYMBOLS:
            raise ValueError(f"max_symbols must be 1 to {MAX_SYMBOLS}, not {max_symbols}")
        self.max_symbols = max_symbols
        self._area = area
        self._ids: dict[str, int] = {}
        self._names: list[str] = []
        self._sorted: list[str] = []  # names in order, as of the last look-up of a prefix
        self._order: Ids = np.empty(0, np.int64)  # their ids
        self.learn()

    def learn(self) -> None:
        """Load the names that the writer of the area has added since the last call."""
        if self._area is None:
            return
        known, count = len(self._names), int(self._area.count[0])
        if known == count:
            return
        for number, name in enumerate(self._area.names[known:count].tolist(), known):
            self._names.append(name.decode("ascii"))
            self._ids[self._names[number]] = number

    def intern(self, name: str) -> int:
        """Return the id of ``name``; assign one if it is new.

        Raises InvalidSymbolError for an invalid name, and SymbolsFullError for a new name if the table is
        full.
        """
        known = self._ids.get(name)
        if known is not None:
            return known
        if not is_symbol(name):
            raise InvalidSymbolError(f"not a symbol: {name[:40]!r}")
        if len(self._names) >= self.max_symbols:
            raise SymbolsFullError(
                f"symbol table full: {self.max_symbols} names; raise engine.max_symbols to take {name}"
            )
        number = len(self._names)
        self._names.append(name)
        self._ids[name] = number
        if self._area is not None:
            self._area.names[number] = name.encode("ascii")
            self._area.count[0] = number + 1  # after the name, so that readers never see an incomplete one
        return number

    def find(self, name: str) -> int | None:
        """Return the id of ``name``, None while no feed has sent it."""
        return self._ids.get(name)

    def name(self, number: int) -> str:
        """Return the name with the id ``number``; raises IndexError."""
        return self._names[number]

    def names(self, start: int = 0) -> list[str]:
        """Return the names from id ``start`` on, in order of ids."""
        return self._names[start:]

    def matching(self, pattern: str, start: int = 0) -> Ids:
        """Return the ids, from ``start`` on and ascending, of the names that ``pattern`` matches."""
        if pattern.endswith("*"):
            found = np.sort(self._beginning(pattern[:-1]))
            return found[np.searchsorted(found, start) :]
        number = self._ids.get(pattern, -1)
        return np.array([number] if number >= start else [], np.int64)

    def matches(self, pattern: str) -> bool:
        """Return whether the name or prefix pattern matches any name."""
        if not pattern.endswith("*"):
            return pattern in self._ids
        return bool(len(self._beginning(pattern[:-1])))

    def resolve(self, names: Iterable[str], prefixes: Collection[str] = ()) -> Ids:
        """Return the ids of the known ``names`` and of all names with one of ``prefixes``; ascending."""
        found = [number for name in names if (number := self._ids.get(name)) is not None]
        if not prefixes:
            return np.array(sorted(set(found)), np.int64) if found else _NO_IDS
        parts = [self._beginning(prefix) for prefix in prefixes]
        chosen = np.zeros(len(self._names), bool)
        chosen[found] = True
        chosen[np.concatenate(parts)] = True
        return np.flatnonzero(chosen)

    def in_order(self, ids: Ids) -> list[str]:
        """Return the distinct names of ``ids``, sorted."""
        if not len(ids):
            return []
        self._sort()
        chosen = np.zeros(len(self._names), bool)
        chosen[ids] = True
        return [self._sorted[at] for at in np.flatnonzero(chosen[self._order]).tolist()]

    def _beginning(self, prefix: str) -> Ids:
        """Return the ids of the names with ``prefix``, in order of the names."""
        self._sort()
        first = bisect_left(self._sorted, prefix)
        return self._order[first : bisect_left(self._sorted, prefix + _BEHIND, first)]

    def _sort(self) -> None:
        if len(self._sorted) < len(self._names):
            # Two sorted runs, which sort() merges.
            self._sorted += sorted(self._names[len(self._sorted) :])
            self._sorted.sort()
            self._order = np.fromiter(map(self._ids.__getitem__, self._sorted), np.int64, len(self._sorted))

    def __len__(self) -> int:
        return len(self._names)
