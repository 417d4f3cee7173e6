"""What somebody subscribed to: names and prefix patterns per channel, and the symbols they mean now.

An interest is shared by everybody who wrote the same names, on whatever tier
and phase, so a prefix of 5,000 symbols is resolved once per pattern set. It costs
what it matches: prefixes that begin with another one are left out, the others are
looked up in the sorted names, and a symbol that comes later looks up its own prefixes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np

from marketfeed.core.records import CHANNELS
from marketfeed.core.rings import Indices
from marketfeed.core.symbols import SymbolTable, shortest_prefixes
from marketfeed.fanout.awaited import Awaited
from marketfeed.fanout.prefixes import Prefixes

KEY_BYTES: Final = 20  # of a hash over the names, which no two sets have in common

# Called with a channel, the ids that were added, and whether by a name of their own (else by a pattern).
Grow = Callable[[int, Indices, bool], None]


class Names:
    """The names of one subscription per channel, as written, without doubles. Immutable.

    Held as text: 5,000 names of 24 characters take 125 KB so, and four times that as strings.
    """

    __slots__ = ("texts",)

    def __init__(self, quotes: Iterable[str] = (), trades: Iterable[str] = ()) -> None:
        first, second = (",".join(dict.fromkeys(names)) for names in (quotes, trades))
        # By channel, with a comma between two names.
        self.texts = (first, first) if first == second else (first, second)

    @property
    def quotes(self) -> tuple[str, ...]:
        """Return the names of the channel of quotes."""
        return _split(self.texts[0])

    @property
    def trades(self) -> tuple[str, ...]:
        """Return the names of the channel of trades."""
        return _split(self.texts[1])

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yield the names of each channel."""
        return iter(map(_split, self.texts))

    @property
    def size(self) -> int:
        """Return how many characters the names have in all, with a comma between two."""
        return sum(map(len, self.texts))

    def distinct(self) -> set[str]:
        """Return the names of both channels, each once."""
        return {*self.quotes, *self.trades}

    def plus(self, other: Names) -> Names:
        """Return these names, then those of ``other`` that are not among them."""
        return Names(*(mine + more for mine, more in zip(self, other, strict=True)))

    def minus(self, other: Names) -> Names:
        """Return these names without exactly those of ``other``."""
        return Names(
            *(
                [name for name in mine if name not in gone]
                for mine, gone in zip(self, map(frozenset, other), strict=True)
            )
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return f"Names({self.quotes}, {self.trades})"


class _Meaning(NamedTuple):
    """What the names of one channel come down to: no name is in both, and none twice."""

    prefixes: tuple[str, ...]  # sorted; none begins with another one
    names: tuple[str, ...]  # sorted; none begins with a prefix

    @classmethod
    def of(cls, text: str) -> _Meaning:
        """Return what names mean, given as :class:`Names` holds them."""
        names = _split(text)
        if "*" not in text:
            return cls((), tuple(sorted(names)))
        prefixes = shortest_prefixes(name[:-1] for name in names if name.endswith("*"))
        plain = sorted(name for name in names if not name.endswith("*") and not _begins(name, prefixes))
        return cls(tuple(prefixes), tuple(plain))

    def text(self) -> str:
        return ",".join([*(prefix + "*" for prefix in self.prefixes), *self.names])


class Interest:
    """Names and the ids of the symbols they match, which grow as symbols come.

    ``symbols[channel]`` has shape ``(k,)``: ids in ascending order of
    discovery, each once. It is replaced, not changed, when it grows. ``named[channel]``
    are those of them that a name stands for, and not a prefix of ``prefixes[channel]``.
    """

    __slots__ = ("alike", "grown", "key", "named", "prefixes", "symbols", "upto", "users")

    def __init__(self, key: bytes, meanings: Sequence[_Meaning], table: SymbolTable) -> None:
        self.key = key
        self.alike = meanings[0] == meanings[1]  # and share everything
        self.prefixes = [meaning.prefixes for meaning in meanings]
        self.upto = len(table)  # what is above comes later
        self.symbols: list[Indices] = []
        self.named: list[Indices] = []
        for meaning in meanings[:1] if self.alike else meanings:
            self.symbols.append(table.resolve(meaning.names, meaning.prefixes))
            self.named.append(table.resolve(meaning.names) if meaning.prefixes else self.symbols[-1])
        if self.alike:
            self.symbols, self.named, self.prefixes = self.symbols * 2, self.named * 2, self.prefixes[:1] * 2
        self.users = 0
        self.grown: dict[object, Grow] = {}  # told of what is added

    def channels(self, channel: int) -> tuple[int, ...]:
        """Return the channels that mean what ``channel`` does."""
        return (0, 1) if self.alike else (channel,)

    def grow(self, channel: int, symbols: Indices, by_name: bool) -> None:
        """Add ``symbols``, none of which is there, to ``channel`` and those that mean the same."""
        grown = np.concatenate([self.symbols[channel], symbols])
        if not self.prefixes[channel]:
            named = grown
        else:
            named = np.concatenate([self.named[channel], symbols]) if by_name else self.named[channel]
        for each in self.channels(channel):
            self.symbols[each], self.named[each] = grown, named
            for told in list(self.grown.values()):
                told(each, symbols, by_name)

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
        self._all: dict[bytes, Interest] = {}
        self._awaited = [Awaited[Interest]() for _ in CHANNELS]  # names that no feed has sent yet
        self._prefixes = [Prefixes[Interest]() for _ in CHANNELS]
        self._patterned = 0  # interests that have prefixes

    def use(self, names: Names) -> Interest:
        """Return the interest in ``names``, new or shared; pair with :meth:`drop`."""
        meanings = [_Meaning.of(text) for text in names.texts]
        text = "\0".join(meaning.text() for meaning in meanings)
        key = blake2b(text.encode("ascii"), digest_size=KEY_BYTES).digest()
        interest = self._all.get(key)
        if interest is None:
            interest = self._all[key] = Interest(key, meanings, self._table)
            self._patterned += any(interest.prefixes)
            for channel, meaning in enumerate(meanings[:1] if interest.alike else meanings):
                for prefix in meaning.prefixes:
                    self._prefixes[channel].add(prefix, interest)
                if len(interest.named[channel]) < len(meaning.names):
                    unknown = [name for name in meaning.names if self._table.find(name) is None]
                    self._awaited[channel].add(unknown, interest)
        interest.users += 1
        return interest

    def drop(self, interest: Interest) -> None:
        """Give back what :meth:`use` returned; forgotten with its last user."""
        interest.users -= 1
        if interest.users:
            return
        del self._all[interest.key]
        self._patterned -= any(interest.prefixes)
        for channel in range(1 if interest.alike else len(CHANNELS)):
            for prefix in interest.prefixes[channel]:
                self._prefixes[channel].discard(prefix, interest)
            self._awaited[channel].discard(interest)

    @property
    def open(self) -> int:
        """Return how many interests a new symbol can join at most."""
        return self._patterned + sum(map(len, self._awaited))

    def join(self, symbols: Sequence[int]) -> None:
        """Let ``symbols``, ids of the table in ascending order, join the interests that want them."""
        names = [self._table.name(symbol) for symbol in symbols]
        for channel, (prefixes, awaited) in enumerate(zip(self._prefixes, self._awaited, strict=True)):
            by_prefix: dict[Interest, list[int]] = {}
            if len(prefixes):
                for symbol, name in zip(symbols, names, strict=True):
                    for prefix in prefixes.of(name):
                        for interest in prefixes.takers(prefix):
                            if symbol >= interest.upto:
                                by_prefix.setdefault(interest, []).append(symbol)
            by_name: dict[Interest, list[int]] = {}
            for index, interest in sorted(awaited.take(names), key=lambda pair: pair[0]):
                by_name.setdefault(interest, []).append(symbols[index])
            for joining, named in ((by_prefix, False), (by_name, True)):
                for interest, more in joining.items():
                    interest.grow(channel, np.array(more, np.int64), named)

    def __len__(self) -> int:
        return len(self._all)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _begins(name: str, prefixes: Sequence[str]) -> bool:
    """Tell whether ``name`` begins with one of the sorted ``prefixes``, none of which begins with another."""
    at = bisect_right(prefixes, name)
    return at > 0 and name.startswith(prefixes[at - 1])
