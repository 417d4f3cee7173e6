"""What somebody subscribed to: names and prefix patterns per channel, and the symbols they mean now.

An interest is shared by everybody who wrote the same names, on whatever tier
and phase, so a prefix of 5,000 symbols is resolved once per pattern set.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from marketfeed.core.records import CHANNELS
from marketfeed.core.rings import Indices
from marketfeed.core.symbols import SymbolTable, is_pattern

# The names of each channel in order, each once: a third of what sets of ten would take.
Key = tuple[tuple[str, ...], tuple[str, ...]]


class Names(NamedTuple):
    """The names of one subscription per channel, as written, without doubles."""

    quotes: tuple[str, ...] = ()
    trades: tuple[str, ...] = ()

    def plus(self, other: Names) -> Names:
        """Return these names, then those of ``other`` that are not among them."""
        return Names(*(tuple(dict.fromkeys(mine + more)) for mine, more in zip(self, other, strict=True)))

    def minus(self, other: Names) -> Names:
        """Return these names without exactly those of ``other``."""
        return Names(
            *(
                tuple(name for name in mine if name not in gone)
                for mine, gone in zip(self, map(frozenset, other), strict=True)
            )
        )


class Interest:
    """Names and the ids of the symbols they match, which grow as symbols come.

    ``symbols[channel]`` has shape ``(k,)``: ids in ascending order of
    discovery, each once. It is replaced, not changed, when it grows.
    """

    __slots__ = ("grown", "key", "patterns", "symbols", "users")

    def __init__(self, key: Key, table: SymbolTable) -> None:
        self.key = key
        self.patterns = tuple(tuple(filter(is_pattern, names)) for names in key)
        self.symbols: list[Indices] = [
            np.array(sorted({i for name in names for i in table.matching(name)}), np.int64) for names in key
        ]
        self.users = 0
        self.grown: dict[object, Callable[[int, int], None]] = {}  # told of each (channel, symbol) added

    def counts(self) -> tuple[int, ...]:
        """Return how many symbols there are per channel; they only grow, at the end."""
        return tuple(map(len, self.symbols))

    def behind(self, known: tuple[int, ...]) -> Indices:
        """Return the symbols behind the first ``known`` of each channel, each once, shape ``(k,)``."""
        more = [symbols[count:] for symbols, count in zip(self.symbols, known, strict=True)]
        return np.unique(np.concatenate(more))


class Interests:
    """All interests of a shard, one per set of names."""

    def __init__(self, table: SymbolTable) -> None:
        self._table = table
        self._known = len(table)
        self._all: dict[Key, Interest] = {}
        self._awaited: dict[str, set[Interest]] = {}  # plain names that no feed has sent yet
        self._patterned: dict[Interest, None] = {}

    def use(self, names: Names) -> Interest:
        """Return the interest in ``names``, new or shared; pair with :meth:`drop`."""
        key = (tuple(sorted(set(names.quotes))), tuple(sorted(set(names.trades))))
        interest = self._all.get(key)
        if interest is None:
            self.learn()
            interest = self._all[key] = Interest(key, self._table)
            if any(interest.patterns):
                self._patterned[interest] = None
            for name in {*key[0], *key[1]}:
                if not is_pattern(name) and self._table.find(name) is None:
                    self._awaited.setdefault(name, set()).add(interest)
        interest.users += 1
        return interest

    def drop(self, interest: Interest) -> None:
        """Give back what :meth:`use` returned; forgotten with its last user."""
        interest.users -= 1
        if interest.users:
            return
        del self._all[interest.key]
        self._patterned.pop(interest, None)
        for name in {*interest.key[0], *interest.key[1]}:
            awaiting = self._awaited.get(name)
            if awaiting is not None:
                awaiting.discard(interest)
                if not awaiting:
                    del self._awaited[name]

    def learn(self) -> None:
        """Let symbols that came since the last call join the interests they match."""
        self._table.learn()
        if self._known == len(self._table):
            return
        start, names = self._known, self._table.names(self._known)
        self._known += len(names)
        for symbol, name in enumerate(names, start):
            self._join(symbol, name, self._awaited.pop(name, ()))
            self._join(symbol, name, list(self._patterned))

    def _join(self, symbol: int, name: str, interests: Iterable[Interest]) -> None:
        for interest in interests:
            for channel in range(len(CHANNELS)):
                matched = _is_among(interest.key[channel], name) or any(
                    name.startswith(pattern[:-1]) for pattern in interest.patterns[channel]
                )
                if matched and symbol not in interest.symbols[channel]:
                    interest.symbols[channel] = np.append(interest.symbols[channel], symbol)
                    for grow in list(interest.grown.values()):
                        grow(channel, symbol)

    def __len__(self) -> int:
        return len(self._all)


def _is_among(names: tuple[str, ...], name: str) -> bool:
    at = bisect_left(names, name)
    return at < len(names) and names[at] == name
