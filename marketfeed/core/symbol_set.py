"""Sets of symbols as names and prefixes: membership, and the intersection with what a client names. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from marketfeed.core.symbols import shortest_prefixes

if TYPE_CHECKING:
    from collections.abc import Iterable

_BEHIND = "\x7f"  # sorts after every character of a symbol


class SymbolSet:
    """The symbols that names and prefixes such as ``BTC*`` match. Immutable.

    Look-ups take the logarithm of the number of names and prefixes.
    """

    __slots__ = ("_hash", "names", "prefixes")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        patterns = list(patterns)
        # Sorted; no prefix begins with another one, and no name with a prefix.
        self.prefixes = tuple(shortest_prefixes(text[:-1] for text in patterns if text.endswith("*")))
        plain = {text for text in patterns if not text.endswith("*")}
        self.names: tuple[str, ...] = tuple(sorted(name for name in plain if not self._begins(name)))
        self._hash = hash((self.prefixes, self.names))  # sets of thousands are keys of dicts

    @property
    def everything(self) -> bool:
        """Return whether every symbol is in the set."""
        return self.prefixes == ("",)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Return the set in canonical form."""
        return (*(f"{prefix}*" for prefix in self.prefixes), *self.names)

    def __contains__(self, name: str) -> bool:
        at = bisect_left(self.names, name)
        return self._begins(name) or self.names[at : at + 1] == (name,)

    def covers(self, other: SymbolSet) -> bool:
        """Return whether every symbol that may ever be in ``other`` is in this set."""
        return all(map(self._begins, other.prefixes)) and all(name in self for name in other.names)

    def narrow(self, patterns: Iterable[str]) -> list[str]:
        """Return names and prefixes that match what is in this set and matched by one of ``patterns``.

        At most as many as ``patterns`` and this set have together.
        """
        asked = SymbolSet(patterns)
        found = [name for name in asked.names if name in self]
        for prefix in asked.prefixes:
            if self._begins(prefix):
                found.append(f"{prefix}*")
                continue
            found += (f"{inner}*" for inner in _beginning(self.prefixes, prefix))
            found += _beginning(self.names, prefix)
        return found

    def __and__(self, other: SymbolSet) -> SymbolSet:
        """Return the symbols that are in both."""
        return SymbolSet(self.narrow(other.patterns))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SymbolSet) and (self.prefixes, self.names) == (other.prefixes, other.names)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"SymbolSet({list(self.patterns)})"

    def _begins(self, name: str) -> bool:
        """Return whether ``name`` begins with one of the prefixes."""
        at = bisect_right(self.prefixes, name)
        return at > 0 and name.startswith(self.prefixes[at - 1])


def _beginning(ordered: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    first = bisect_left(ordered, prefix)
    return ordered[first : bisect_left(ordered, prefix + _BEHIND, first)]
