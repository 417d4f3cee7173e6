"""The symbol table: names to small integers, first come first numbered.

The names lie beside the rings, for other processes to read: a name is written,
then counted, and only then can ticks of it be published. So who loads the head
first and the count second has a name for every tick up to that head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.errors import InvalidSymbolError, SymbolsFullError

MAX_NAME_BYTES: Final = 24
MAX_SYMBOLS: Final = 65536  # a record's symbol is a u2
SYMBOL_WORDS: Final = '1 to 24 printable ASCII characters without space , * " and \\'
_FORBIDDEN: Final = frozenset(' ,*"\\')


def is_symbol(name: str) -> bool:
    """Tell whether ``name`` is 1 to 24 printable ASCII characters without space , * " and backslash."""
    return (
        0 < len(name) <= MAX_NAME_BYTES
        and name.isascii()
        and name.isprintable()
        and _FORBIDDEN.isdisjoint(name)
    )


def is_pattern(name: str) -> bool:
    """Tell whether ``name`` is a prefix pattern: ``*`` alone, or the start of a symbol and ``*``."""
    return name == "*" or (name.endswith("*") and is_symbol(name[:-1]))


@dataclass(frozen=True, slots=True)
class NameArea:
    """Names in memory that several processes see; one of them writes."""

    names: NDArray[np.bytes_]  # (max_symbols,) S24, by id
    count: NDArray[np.uint64]  # (1,) how many are there


class SymbolTable:
    """Names and their ids 0, 1, 2 … up to ``max_symbols``; a name keeps its id for the epoch.

    Over an ``area`` it takes in the names that are there, and :meth:`learn`
    those that come; :meth:`intern` is for the area's one writer.
    """

    def __init__(self, max_symbols: int, area: NameArea | None = None) -> None:
        if not 0 < max_symbols <= MAX_SYMBOLS:
            raise ValueError(f"max_symbols is 1 to {MAX_SYMBOLS}, not {max_symbols}")
        self.max_symbols = max_symbols
        self._area = area
        self._ids: dict[str, int] = {}
        self._names: list[str] = []
        self.learn()

    def learn(self) -> None:
        """Take in the names that the writer of the area added since the last time."""
        if self._area is None:
            return
        known, count = len(self._names), int(self._area.count[0])
        if known == count:
            return
        for number, name in enumerate(self._area.names[known:count].tolist(), known):
            self._names.append(name.decode("ascii"))
            self._ids[self._names[number]] = number

    def intern(self, name: str) -> int:
        """Return the id of ``name``, numbering it if it is new.

        Raises InvalidSymbolError for what cannot be a symbol, and
        SymbolsFullError when a new name finds the table full.
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
            self._area.count[0] = number + 1  # after the name: a reader never sees half of one
        return number

    def find(self, name: str) -> int | None:
        """Return the id of ``name``, or None while no feed has sent it."""
        return self._ids.get(name)

    def name(self, number: int) -> str:
        """Return the name numbered ``number``; raises IndexError for one not given out."""
        return self._names[number]

    def names(self, start: int = 0) -> list[str]:
        """Return the names from id ``start`` on, in order of their ids."""
        return self._names[start:]

    def matching(self, pattern: str, start: int = 0) -> Iterator[int]:
        """Yield the ids from ``start`` on whose names the name or prefix pattern matches."""
        if not pattern.endswith("*"):
            number = self._ids.get(pattern)
            if number is not None and number >= start:
                yield number
            return
        prefix = pattern[:-1]
        for number in range(start, len(self._names)):
            if self._names[number].startswith(prefix):
                yield number

    def __len__(self) -> int:
        return len(self._names)
