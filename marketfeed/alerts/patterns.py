"""Many patterns at once: a look-up does not take longer, the more patterns there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


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
