"""Trade conditions: text cells of one to four letters, as in TAQ files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from marketfeed.core.cells import FORMULAS
from marketfeed.core.details import CONDITION_WORDS, CONDITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from marketfeed.feeds.replay.recording import Reporter

MOST: Final = 4  # conditions of a trade
_NONE: Final = frozenset({"", "nan", "null"})
_SEPARATORS: Final = str.maketrans({",": " ", ";": " ", "|": " "})


class Conditions(NamedTuple):
    """Conditions of each row."""

    values: NDArray[np.bytes_]  # (k,) S4
    codes: NDArray[np.int64]  # (k,) into ``names``
    names: Sequence[str]
    unknown: NDArray[np.bool_]  # (k,) unreadable cells

    def report(self, keep: NDArray[np.bool_], reporter: Reporter, at: str) -> None:
        """Count and log unreadable cells of the rows in ``keep``."""
        codes, counts = np.unique(self.codes[keep & self.unknown], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            reporter.unknown_word(
                "condition", self.names[code], count, at, f"one to {MOST} conditions: {CONDITION_WORDS}"
            )


def conditions_of(codes: NDArray[np.int64], names: Sequence[str]) -> Conditions:
    """Return the conditions of each row; the cell of a row is ``names[codes[row]]``."""
    found = [condition_letters(name) for name in names] or [b""]
    letters = np.array([text or b"" for text in found], f"S{MOST}")
    unknown = np.array([text is None for text in found])
    return Conditions(letters[codes], codes, names, unknown[codes])


def condition_letters(text: str) -> bytes | None:
    """Return the conditions in a cell, one byte each; None if the cell is invalid.

    Blanks are ignored. Between separators (``,`` ``;`` ``|``) a condition has exactly one letter. A
    leading ``'``, which exports write before text that a spreadsheet would run as a formula, is ignored.
    """
    if text.lower() in _NONE:
        return b""
    if text.startswith("'") and text[1:].startswith(FORMULAS):
        text = text[1:]
    parts = text.translate(_SEPARATORS).split()
    if text != text.translate(_SEPARATORS) and any(len(part) != 1 for part in parts):
        return None
    letters = "".join(parts)
    if len(letters) > MOST or not CONDITIONS.issuperset(map(ord, letters)):
        return None
    return letters.encode("ascii")
