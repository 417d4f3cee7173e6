"""Numbers of symbols that stay the same over all lives of an engine; each life numbers its symbols anew.

The first life's ids are these numbers already, and nothing is translated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class SymbolNumbers:
    """The names of the symbols of all lives so far, by number."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def of(self, names: Callable[[], Sequence[str]]) -> Translation:
        """Return the translation for a life; ``names`` returns those of its symbols, by id."""
        return Translation(self, names)

    def number(self, name: str) -> int:
        """Return the number of ``name``; assign one if it is new."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


class Translation:
    """From the ids of one life to numbers."""

    def __init__(self, numbers: SymbolNumbers, names: Callable[[], Sequence[str]]) -> None:
        self._numbers = numbers
        self._names = names
        self._by_id = np.empty(0, "<u4")
        self._same = True  # every id is its number

    def learn(self) -> None:
        """Number the symbols that the life has named since the last call."""
        names, known = self._names(), len(self._by_id)
        if len(names) > known:
            more = np.array([self._numbers.number(name) for name in names[known:]], "<u4")
            self._same = self._same and bool((more == np.arange(known, len(names))).all())
            self._by_id = np.concatenate([self._by_id, more])

    def numbers(self, ids: bytes) -> bytes:
        """Return the numbers of an array of ids; both are uint32 little-endian."""
        self.learn()
        if self._same:
            return ids
        translated: bytes = self._by_id[np.frombuffer(ids, "<u4")].tobytes()
        return translated
