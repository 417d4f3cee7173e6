"""Who takes a symbol's fragments in a lane: groups by name, and groups by prefix.

A group costs what it wrote and not what that matches: a prefix is held once, and who
takes a symbol is looked up when it first ticks. Symbols of the same prefixes share
what was found. Keys are ``channel * max_symbols + symbol``.
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

# In order of their coming: a tuple while they are few, as most symbols of 100,000 small groups have one
# taker in a lane, and a dict with one entry takes 230 bytes.
_Named = dict[Group, None] | tuple[Group, ...]
_Found = TypeVar("_Found")


class _Cache(dict[int, _Found]):
    """What ``find`` returns for a key, found when first asked for."""

    def __init__(self, find: Callable[[int], _Found]) -> None:
        self._find = find

    def __missing__(self, key: int) -> _Found:
        found = self[key] = self._find(key)
        return found


class Takers:
    """The groups of a lane by what they take.

    ``wanted[channel]`` and ``members[channel]``, shape ``(max_symbols,)``, tell whether any group
    takes a symbol, and how many members those groups have but for probes. ``appends[key]`` holds the
    ``append`` of everybody who takes it, and ``groups[key]`` the groups: a tuple and not a view of
    something else, which would cost a tenth more for each delivery.
    """

    def __init__(self, symbols: SymbolTable, max_symbols: int) -> None:
        self._symbols = symbols
        self._offset = max_symbols
        self._named: dict[int, _Named] = {}
        self._prefixes = [Prefixes[Group]() for _ in CHANNELS]
        self._wanting = [np.zeros(max_symbols, np.int32) for _ in CHANNELS]  # groups
        self.wanted = [np.zeros(max_symbols, bool) for _ in CHANNELS]
        self.members = [np.zeros(max_symbols, np.int32) for _ in CHANNELS]
        self.groups = _Cache(self._groups_of)
        self.appends = _Cache(self._appends_of)
        # By channel and the prefixes that a symbol begins with, where no group names it.
        self._sharing: dict[tuple[int, tuple[str, ...]], tuple[Group, ...]] = {}
        self._sharing_appends: dict[tuple[int, tuple[str, ...]], tuple[Callable[[bytes], None], ...]] = {}

    def add(self, group: Group) -> None:
        """Let ``group``, which has no members yet, take what its interest means."""
        interest = group.interest
        for channel, symbols in enumerate(interest.symbols):
            for prefix in interest.prefixes[channel]:
                self._prefixes[channel].add(prefix, group)
            if not len(symbols):
                continue
            self._want(channel, symbols, 1)
            for key in (interest.named[channel] + channel * self._offset).tolist():
                self._name(key, group)
            if interest.prefixes[channel]:
                self._forget(channel, symbols)

    def grow(self, group: Group, channel: int, symbols: Indices, by_name: bool) -> None:
        """Let ``group`` take further ``symbols``, which its names or its prefixes mean."""
        self._want(channel, symbols, 1)
        if group.encoding.counted:
            self.members[channel][symbols] += len(group.members)
        if by_name:
            for key in (symbols + channel * self._offset).tolist():
                self._name(key, group)

    def drop(self, group: Group) -> None:
        """Let ``group``, whose members are counted no more, take nothing."""
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
        """Let go of what makes a cycle with this; it cannot be used any more."""
        del self.groups, self.appends

    def count(self, group: Group, more: int) -> None:
        """Count ``more`` members of ``group``."""
        if not group.encoding.counted:
            return
        for members, symbols in zip(self.members, group.interest.symbols, strict=True):
            if len(symbols):
                members[symbols] += more

    def _want(self, channel: int, symbols: Indices, more: int) -> None:
        wanting = self._wanting[channel]
        wanting[symbols] += more
        self.wanted[channel][symbols] = True if more > 0 else wanting[symbols] > 0

    def _name(self, key: int, group: Group) -> None:
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
        """Forget what was found for ``symbols``, as prefixes of theirs have other takers now."""
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
