"""Index of prefixes and their users.

A name is looked up once per length of a prefix in use, at most 25 times, however many prefixes there are. The
rest of the cost is proportional to the matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from marketfeed.core.symbols import MAX_NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


class Prefixes(Generic[T]):
    """Prefixes and their takers. A single taker is stored without a container: takers must not be dicts."""

    __slots__ = ("_count", "_lengths", "_takers")

    def __init__(self) -> None:
        self._takers: dict[str, T | dict[T, None]] = {}
        self._count = [0] * (MAX_NAME_BYTES + 1)  # number of prefixes by length
        self._lengths: tuple[int, ...] = ()  # of the prefixes in use

    def add(self, prefix: str, taker: T) -> None:
        """Add ``taker``, which is not there yet, to ``prefix``."""
        known = self._takers.get(prefix)
        if known is None:
            self._takers[prefix] = taker
            self._counted(len(prefix), 1)
        elif isinstance(known, dict):
            known[taker] = None
        else:
            self._takers[prefix] = {known: None, taker: None}

    def discard(self, prefix: str, taker: T) -> None:
        """Remove ``taker``, which is there, from ``prefix``."""
        known = self._takers[prefix]
        if isinstance(known, dict):
            del known[taker]
            if known:
                return
        del self._takers[prefix]
        self._counted(len(prefix), -1)

    def _counted(self, length: int, more: int) -> None:
        self._count[length] += more
        if self._count[length] <= 1:
            self._lengths = tuple(length for length, count in enumerate(self._count) if count)

    def of(self, name: str) -> tuple[str, ...]:
        """Return the prefixes of ``name``, the shortest first."""
        takers = self._takers
        # A slice beyond the end of the name equals the name, which its own length finds.
        return tuple(
            name[:length] for length in self._lengths if length <= len(name) and name[:length] in takers
        )

    def takers(self, prefix: str) -> Iterable[T]:
        """Return the takers of ``prefix``."""
        known = self._takers[prefix]
        return known if isinstance(known, dict) else (known,)

    def __len__(self) -> int:
        return len(self._takers)
