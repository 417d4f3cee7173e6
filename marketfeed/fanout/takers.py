"""The groups of a lane that take each symbol, by name and by prefix.

The memory of a group is proportional to its names and not to their matches: a prefix is stored once, and the
groups of a symbol are looked up at its first tick. Symbols with the same prefixes share the result. Keys are
``channel * max_symbols + symbol``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from marketfeed.core.records import CHANNELS
from marketfeed.fanout.group import Group
from marketfeed.fanout.prefixes import Prefixes

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices
    from marketfeed.core.symbols import SymbolTable

FEW: Final = 4

# In order of addition. A tuple up to FEW: most symbols of 100,000 small groups have one group in a lane, and
# a dict with one entry takes 230 bytes.
_Named = dict[Group, None] | tuple[Group, ...]
_Found = TypeVar("_Found")


class _Cache(dict[int, _Found]):
    """Results of ``find`` by key, computed on first access."""

    def __init__(self, find: Callable[[int], _Found]) -> None:
        self._find = find

    def __missing__(self, key: int) -> _Found:
        found = self[key] = self._find(key)
        return found


class Takers:
    """Index from symbols to the groups of a lane.

    ``wanted[channel]`` and ``members[channel]``, shape ``(max_symbols,)``, hold whether any group takes a
    symbol, and the number of members of these groups without probes. ``groups[key]`` holds the groups of a
    symbol, and ``appends[key]`` their ``append`` methods. Both are tuples: other views would cost a tenth
    more per delivery.
    """

    def __init__(self, symbols: SymbolTable, max_symbols: int) -> None:
        self._symbols = symbols
        self._offset = max_symbols
        self._named: dict[int, _Named] = {}
        self._prefixes = [Prefixes[Group]() for _ in CHANNELS]
        self._wanting = [np.zeros(max_symbols, np.int32) for _ in CHANNELS]  # number of groups
        self.wanted = [np.zeros(max_symbols, bool) for _ in CHANNELS]
        self.members = [np.zeros(max_symbols, np.int32) for _ in CHANNELS]
        self.groups = _Cache(self._groups_of)
        self.appends = _Cache(self._appends_of)
        # By channel and the prefixes of a symbol, for symbols that no group names.
        self._sharing: dict[tuple[int, tuple[str, ...]], tuple[Group, ...]] = {}
        self._sharing_appends: dict[tuple[int, tuple[str, ...]], tuple[Callable[[bytes], None], ...]] = {}

    def add(self, group: Group) -> None:
        """Add ``group``, which has no members yet, with the symbols of its interest."""
        interest = group.interest
        for channel, symbols in enumerate(interest.symbols):
            for prefix in interest.prefixes[channel]:
                self._prefixes[channel].add(prefix, group)
            if not len(symbols):
                continue
            self._want(channel, symbols, 1)
            self._name(channel, interest.named[channel], group)
            if interest.prefixes[channel]:
                self._forget(channel, symbols)

    def grow(self, group: Group, channel: int, symbols: Indices, by_name: bool) -> None:
        """Add ``symbols`` to ``group``, which a name or a prefix of its interest matches."""
        self._want(channel, symbols, 1)
        if group.encoding.counted:
            self.members[channel][symbols] += len(group.members)
        if by_name:
            self._name(channel, symbols, group)

    def drop(self, group: Group) -> None:
        """Remove ``group``, whose members have been subtracted."""
        interest = group.interest
        for channel, symbols in enumerate(interest.symbols):
            for prefix in interest.prefixes[channel]:
                self._prefixes[channel].discard(prefix, group)
            if not len(symbols):
                continue
            self._want(channel, symbols, -1)
            for key in (interest.named[channel] + channel * self._offset).tolist():
                self._unname(key, group)
            if interest.prefixes[channel]:
                self._forget(channel, symbols)

    def close(self) -> None:
        """Break the reference cycles. The index cannot be used afterwards."""
        del self.groups, self.appends

    def count(self, group: Group, more: int) -> None:
        """Add ``more`` to the number of members of ``group``."""
        if not group.encoding.counted:
            return
        for members, symbols in zip(self.members, group.interest.symbols, strict=True):
            if len(symbols):
                members[symbols] += more

    def _want(self, channel: int, symbols: Indices, more: int) -> None:
        wanting = self._wanting[channel]
        wanting[symbols] += more
        self.wanted[channel][symbols] = True if more > 0 else wanting[symbols] > 0

    def _name(self, channel: int, symbols: Indices, group: Group) -> None:
        for key in (symbols + channel * self._offset).tolist():
            named = self._named.get(key, ())
            if isinstance(named, dict):
                named[group] = None
            else:
                named = (*named, group)
                self._named[key] = named if len(named) <= FEW else dict.fromkeys(named)
            self.appends.pop(key, None)
            self.groups.pop(key, None)

    def _unname(self, key: int, group: Group) -> None:
        named = self._named[key]
        if isinstance(named, dict):
            del named[group]
        else:
            named = self._named[key] = tuple(other for other in named if other is not group)
        if not named:
            del self._named[key]
        self.appends.pop(key, None)
        self.groups.pop(key, None)

    def _forget(self, channel: int, symbols: Indices) -> None:
        """Invalidate the results for ``symbols``, whose prefixes have other groups now."""
        self._sharing.clear()
        self._sharing_appends.clear()
        if len(symbols) >= len(self.appends) + len(self.groups):
            self.appends.clear()
            self.groups.clear()
            return
        for key in (symbols + channel * self._offset).tolist():
            self.appends.pop(key, None)
            self.groups.pop(key, None)

    def _groups_of(self, key: int) -> tuple[Group, ...]:
        channel, symbol = divmod(key, self._offset)
        named = tuple(self._named.get(key, ()))
        prefixes = self._prefixes[channel].of(self._symbols.name(symbol))
        if not prefixes:
            return named
        sharing = self._sharing.get((channel, prefixes))
        if sharing is None:
            takers = self._prefixes[channel].takers
            sharing = tuple(group for prefix in prefixes for group in takers(prefix))
            self._sharing[channel, prefixes] = sharing
        return named + sharing if named else sharing

    def _appends_of(self, key: int) -> tuple[Callable[[bytes], None], ...]:
        channel, symbol = divmod(key, self._offset)
        if key in self._named:
            return tuple(group.appends[channel] for group in self._groups_of(key))
        prefixes = self._prefixes[channel].of(self._symbols.name(symbol))
        sharing = self._sharing_appends.get((channel, prefixes))
        if sharing is None:
            sharing = tuple(group.appends[channel] for group in self._groups_of(key))
            self._sharing_appends[channel, prefixes] = sharing
        return sharing
