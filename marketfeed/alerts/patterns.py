"""Many patterns at once: a look-up takes hardly longer, the more patterns there are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from marketfeed.core.symbol_set import SymbolSet
from marketfeed.core.symbols import is_pattern, is_symbol

if TYPE_CHECKING:
    from collections.abc import Iterable

CACHED: Final = 32  # sets of symbols; one of 10,000 takes 5 ms to make and 1 MB to keep


class Patterns:
    """Names, and prefixes that end in ``*``, as :func:`marketfeed.alerts.log.matches` has them."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._prefixes: set[str] = set()
        for pattern in patterns:
            if pattern.endswith("*"):
                self._prefixes.add(pattern[:-1])
            else:
                self._names.add(pattern)
        self._lengths = sorted({len(prefix) for prefix in self._prefixes})

    def match(self, name: str) -> bool:
        """Return whether one of the patterns matches ``name``."""
        prefixes = self._prefixes
        return name in self._names or any(name[:length] in prefixes for length in self._lengths)


@lru_cache(maxsize=CACHED)
def symbol_set(symbols: tuple[str, ...]) -> SymbolSet:
    """Return the symbols that names and prefixes match; raises ValueError for what is neither."""
    for symbol in symbols:
        if not (is_symbol(symbol) or is_pattern(symbol)):
            raise ValueError(f"not a symbol, nor the beginning of one and *: {symbol[:40]!r}")
    return SymbolSet(symbols)


def about(symbols: SymbolSet, symbol: str) -> bool:
    """Return whether an alert about ``symbol`` may be seen by a holder of ``symbols``; "" is about none."""
    return not symbol or symbol in symbols
