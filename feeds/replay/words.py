"""Meaning of words in cells: sides of trades, and rows to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from marketfeed.core.records import BUY, SELL, UNKNOWN_SIDE
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from marketfeed.feeds.replay.recording import Reporter

_BUYS: Final = frozenset({"b", "buy", "buyer", "bid"})
_SELLS: Final = frozenset({"s", "sell", "seller", "a", "ask"})
_NEITHER: Final = frozenset({"", "-", "n", "none", "null", "nan", "unknown"})  # explicitly unknown
_TRUE: Final = frozenset({"true", "t", "1", "yes", "y"})
_FALSE: Final = frozenset({"false", "f", "0", "no", "n"})
UNKNOWN: Final = 0  # unrecognised word

Text = str | int


class Not(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``{ not = … }``: any other text."""

    other: Text | list[Text] = msgspec.field(name="not")


WhereValue = Text | list[Text] | Not


class Where(NamedTuple):
    """Filter on one column: keep rows whose text is in ``texts``, or, if ``inverted``, is not."""

    texts: frozenset[str]
    inverted: bool

    def keeps(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Return whether each of ``names`` passes the filter."""
        return np.array([(name in self.texts) != self.inverted for name in names], bool)


def where_of(key: str, value: WhereValue, max_bytes: int) -> Where:
    """Parse one entry of ``where``; raises ConfigError."""
    inverted = isinstance(value, Not)
    wanted = value.other if isinstance(value, Not) else value
    texts = frozenset(str(text).strip() for text in (wanted if isinstance(wanted, list) else [wanted]))
    if not texts:
        raise ConfigError(f"where.{key}: an empty list keeps {'all' if inverted else 'no'} rows")
    for text in texts:
        if len(text.encode()) > max_bytes:
            raise ConfigError(f"where.{key}: a text of at most {max_bytes} bytes, not {len(text.encode())}")
    return Where(texts, inverted)


def side_words(sides: dict[str, str]) -> dict[str, int]:
    """Return the configured ``sides`` as records have them; raises ConfigError."""
    found = {word.strip(): _side(side.strip().lower()) for word, side in sides.items()}
    if UNKNOWN in found.values():
        raise ConfigError(
            *(
                f'sides.{word}: "b" or "buy", "s" or "sell", or "-" for neither, not {side!r}'
                for word, side in sides.items()
                if found[word.strip()] == UNKNOWN
            )
        )
    return found


class Sides(NamedTuple):
    """The aggressor's side of each row, shape ``(k,)``; UNKNOWN for unrecognised words."""

    column: str  # side or buyer_maker
    codes: NDArray[np.int64]
    names: list[str]
    values: NDArray[np.uint8]

    def resolved(self, keep: NDArray[np.bool_], reporter: Reporter, at: str) -> NDArray[np.uint8]:
        """Return the sides of the rows in ``keep``; unrecognised words become "-", are counted and logged."""
        values = self.values[keep]
        unknown = values == UNKNOWN
        if unknown.any():
            codes, counts = np.unique(self.codes[keep][unknown], return_counts=True)
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
                reporter.unknown_word(self.column, self.names[code], count, at, _HINTS[self.column])
        return np.where(unknown, np.uint8(UNKNOWN_SIDE), values)


_HINTS: Final = {
    "side": 'not a known side; sides = { "…" = "b", "…" = "s" } defines the file\'s words',
    "buyer_maker": "neither true nor false",
}


def sides_of(
    wanted: dict[str, Any],
    words: dict[str, int],
    texts: Callable[[str], tuple[NDArray[np.int64], list[str]]],
) -> Sides | None:
    """Return the aggressor's side of each row, None without a column for it.

    ``words`` is the configured ``sides``; it takes precedence over the built-in words.
    """
    for column, known in (("side", _side), ("buyer_maker", _maker)):
        if column in wanted:
            codes, names = texts(column)
            values = [words.get(name) or known(name.lower()) for name in names]
            return Sides(column, codes, names, np.array(values or [UNKNOWN_SIDE], np.uint8)[codes])
    return None


def _side(word: str) -> int:
    if word in _NEITHER:
        return UNKNOWN_SIDE
    return BUY if word in _BUYS else SELL if word in _SELLS else UNKNOWN


def _maker(word: str) -> int:
    """Return the aggressor's side for a cell of ``buyer_maker``."""
    if word in _TRUE:
        return SELL
    if word in _FALSE:
        return BUY
    return UNKNOWN_SIDE if word in _NEITHER else UNKNOWN
