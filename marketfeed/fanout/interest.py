"""Subscriptions: names and prefix patterns per channel, and the symbols that they match now.

Sessions that subscribed to the same names share one interest, on any tier and phase, so a prefix of 5,000
symbols is resolved once. The cost is proportional to the matches: prefixes that begin with another one are
left out, the others are looked up in the sorted names, and a new symbol looks up its own prefixes.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from marketfeed.core.records import CHANNELS
from marketfeed.core.symbols import SymbolTable, shortest_prefixes
from marketfeed.fanout.awaited import Awaited
from marketfeed.fanout.prefixes import Prefixes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from marketfeed.core.rings import Indices

KEY_BYTES: Final = 20  # of a hash over the names; long enough that no two sets collide


class Grows(Protocol):
    """What is told that the interest of a group has grown."""

    def grow(self, group: Any, channel: int, symbols: Indices, by_name: bool) -> None:
        """Add the ids ``symbols`` to ``group``; ``by_name``: a name matched them, else a pattern."""
        ...


class Names:
    """The names of one subscription per channel, as the client wrote them, without duplicates. Immutable.

    Stored as one text: 5,000 names of 24 characters take 125 kB, a quarter of separate strings.
    """

    __slots__ = ("texts",)

    def __init__(self, quotes: Iterable[str] = (), trades: Iterable[str] = ()) -> None:
        first = ",".join(dict.fromkeys(quotes)) if quotes else ""
        second = ",".join(dict.fromkeys(trades)) if trades else ""
        # By channel; names are separated by commas.
        self.texts = (first, first) if first == second else (first, second)

    @property
    def quotes(self) -> tuple[str, ...]:
        """Return the names on the quotes channel."""
        return _split(self.texts[0])

    @property
    def trades(self) -> tuple[str, ...]:
        """Return the names on the trades channel."""
        return _split(self.texts[1])

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yield the names of each channel."""
        return iter(map(_split, self.texts))

    @property
    def size(self) -> int:
        """Return the number of characters of all names and the commas between them."""
        return sum(map(len, self.texts))

    def distinct(self) -> set[str]:
        """Return the union of the names of both channels."""
        return {*self.quotes, *self.trades}

    def plus(self, other: Names) -> Names:
        """Return these names, then those of ``other`` that are not among them."""
        if not any(self.texts):
            return other
        return Names(*(mine + more for mine, more in zip(self, other, strict=True)))

    def minus(self, other: Names) -> Names:
        """Return these names without those of ``other``; patterns are compared as text."""
        if not any(other.texts):
            return self
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


NO_NAMES: Final = Names()


class _Meaning(NamedTuple):
    """Canonical form of the names of one channel."""

    prefixes: tuple[str, ...]  # sorted; none begins with another one
    names: tuple[str, ...]  # sorted; none begins with a prefix

    @classmethod
    def of(cls, text: str) -> _Meaning:
        """Return the canonical form of ``text``, one of ``Names.texts``."""
        if not text:
            return _NOTHING
        names = _split(text)
        if "*" not in text:
            return cls((), tuple(sorted(names)))
        prefixes = shortest_prefixes(name[:-1] for name in names if name.endswith("*"))
        plain = sorted(name for name in names if not name.endswith("*") and not _begins(name, prefixes))
        return cls(tuple(prefixes), tuple(plain))

    def text(self) -> str:
        return ",".join(
            [*(prefix + "*" for prefix in self.prefixes), *self.names] if self.prefixes else self.names
        )


_NOTHING: Final = _Meaning((), ())
_NO_PREFIXES: Final[list[tuple[str, ...]]] = [(), ()]


class Interest:
    """Names and the ids of the symbols that they match; grows as new symbols come.

    ``symbols[channel]``, shape ``(k,)``, holds each id once, in order of discovery. An array that grows is
    replaced, not changed. ``named[channel]`` are the ids that a name matches and no prefix of
    ``prefixes[channel]``.
    """

    __slots__ = ("_distinct", "alike", "groups", "key", "named", "prefixes", "symbols", "upto", "users")

    def __init__(self, key: bytes, meanings: Sequence[_Meaning], table: SymbolTable) -> None:
        self.key = key
        quotes, trades = meanings
        self.alike = quotes == trades  # both channels share all arrays
        self.prefixes = [quotes.prefixes, trades.prefixes]
        self.upto = len(table)  # ids from here on are new symbols
        self.symbols: list[Indices] = []
        self.named: list[Indices] = []
        for meaning in meanings[:1] if self.alike else meanings:
            self.symbols.append(table.resolve(meaning.names, meaning.prefixes))
            self.named.append(table.resolve(meaning.names) if meaning.prefixes else self.symbols[-1])
        if self.alike:
            self.symbols, self.named, self.prefixes = self.symbols * 2, self.named * 2, self.prefixes[:1] * 2
        self.users = 0
        self._distinct: tuple[tuple[int, ...], Indices] | None = None  # and the counts that it is of
        self.groups: list[tuple[object, Grows]] = []  # that are told of added symbols

    def channels(self, channel: int) -> tuple[int, ...]:
        """Return the channels that have the same names as ``channel``, itself included."""
        return (0, 1) if self.alike else (channel,)

    def grow(self, channel: int, symbols: Indices, by_name: bool) -> None:
        """Add ``symbols``, all new, to ``channel`` and to the other one if it has the same names."""
        grown = np.concatenate([self.symbols[channel], symbols])
        if not self.prefixes[channel]:
            named = grown
        else:
            named = np.concatenate([self.named[channel], symbols]) if by_name else self.named[channel]
        for each in self.channels(channel):
            self.symbols[each], self.named[each] = grown, named
            for group, takers in list(self.groups):
                takers.grow(group, each, symbols, by_name)

    def leave(self, group: object) -> None:
        """Tell ``group`` of added symbols no more."""
        self.groups = [pair for pair in self.groups if pair[0] is not group]

    def counts(self) -> tuple[int, ...]:
        """Return the number of symbols per channel. Symbols are only appended."""
        return tuple(map(len, self.symbols))

    def distinct(self) -> Indices:
        """Return the symbols of both channels, ascending. The same array until the interest grows."""
        counts = self.counts()
        if self._distinct is None or self._distinct[0] != counts:
            both = self.symbols[:1] if self.alike else self.symbols
            self._distinct = (counts, np.unique(np.concatenate(both)))
        return self._distinct[1]

    def behind(self, known: tuple[int, ...]) -> Indices:
        """Return the union of the symbols after the first ``known`` of each channel, shape ``(k,)``."""
        more = [symbols[count:] for symbols, count in zip(self.symbols, known, strict=True)]
        return np.unique(np.concatenate(more))


class Interests:
    """The interests of a shard, one per set of names."""

    def __init__(self, table: SymbolTable) -> None:
        self._table = table
        self._all: dict[bytes, Interest] = {}
        self._awaited = [Awaited[Interest]() for _ in CHANNELS]  # names without a symbol yet
        self._prefixes = [Prefixes[Interest]() for _ in CHANNELS]
        self._patterned = 0  # number of interests with prefixes

    def use(self, names: Names) -> Interest:
        """Return the interest in ``names``, new or shared. Release it with :meth:`drop`."""
        if not any(names.texts):  # of every new session
            meanings, key = [_NOTHING, _NOTHING], b""
        else:
            meanings = [_Meaning.of(text) for text in names.texts]
            text = "\0".join([meaning.text() for meaning in meanings])
            key = blake2b(text.encode("ascii"), digest_size=KEY_BYTES).digest()
        interest = self._all.get(key)
        if interest is None:
            interest = self._all[key] = Interest(key, meanings, self._table)
            self._patterned += interest.prefixes != _NO_PREFIXES
            for channel, meaning in enumerate(meanings[:1] if interest.alike else meanings):
                if meaning is _NOTHING:
                    continue
                for prefix in meaning.prefixes:
                    self._prefixes[channel].add(prefix, interest)
                if len(interest.named[channel]) < len(meaning.names):
                    unknown = [name for name in meaning.names if self._table.find(name) is None]
                    self._awaited[channel].add(unknown, interest)
        interest.users += 1
        return interest

    def drop(self, interest: Interest) -> None:
        """Release an interest; the last release removes it."""
        interest.users -= 1
        if interest.users:
            return
        del self._all[interest.key]
        self._patterned -= interest.prefixes != _NO_PREFIXES
        for channel in range(1 if interest.alike else len(CHANNELS)):
            for prefix in interest.prefixes[channel]:
                self._prefixes[channel].discard(prefix, interest)
            self._awaited[channel].discard(interest)

    @property
    def open(self) -> int:
        """Return an upper bound of the interests that a new symbol can join."""
        return self._patterned + sum(map(len, self._awaited))

    def join(self, symbols: Sequence[int]) -> None:
        """Add the new ``symbols``, ids in ascending order, to the interests that match them."""
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
    """Return whether ``name`` begins with one of ``prefixes``: sorted, none begins with another one."""
    at = bisect_right(prefixes, name)
    return at > 0 and name.startswith(prefixes[at - 1])
