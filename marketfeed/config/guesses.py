"""Suggestions for misspelled words: the closest known word, if any is close enough. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEAST_PART: Final = 3  # a part of a word counts as close from this many letters


def guess(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean …?"`` with the closest of ``known``, or "" if none is close to ``word``."""
    folded = word.casefold()
    near = [(_distance(folded, one.casefold()), one) for one in known if _alike(folded, one.casefold())]
    return f"; did you mean {min(near, key=lambda pair: pair[0])[1]}?" if near else ""


def _alike(word: str, known: str) -> bool:
    """Return whether one word contains the other, or at most a third of its letters is mistyped."""
    shorter, longer = sorted((word, known), key=len)
    if len(shorter) >= _LEAST_PART and shorter in longer:
        return True
    allowed = max(len(shorter) // 3, 1)
    return len(shorter) > 1 and len(longer) - len(shorter) <= allowed and _distance(word, known) <= allowed


def _distance(one: str, other: str) -> int:
    """Return the optimal string alignment distance: insertions, deletions, substitutions, swaps."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, their in enumerate(other, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != their)))
            if i > 1 < j and letter == other[j - 2] and one[i - 2] == their:
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]
