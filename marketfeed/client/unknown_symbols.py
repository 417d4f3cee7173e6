"""Subscribed names that match no symbol, and suggestions for them. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_SUGGESTIONS: Final = 3  # per name
MIN_SIMILARITY: Final = 0.6  # from 0 to 1; difflib's default


def unmatched(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the ``names`` and patterns that match none of ``known``, in order, without duplicates."""
    there = set(known)
    return [
        name
        for name in dict.fromkeys(names)
        if not (any(one.startswith(name[:-1]) for one in there) if name.endswith("*") else name in there)
    ]


def near(name: str, known: Sequence[str]) -> list[str]:
    """Return the ``known`` names most similar to ``name``, ignoring case; for a pattern, patterns.

    Compares with every known name: 0.2 s for 65,536 of them.
    """
    if name == "*":
        return []
    star = name.endswith("*")
    wanted = name.rstrip("*")
    choices: dict[str, str] = {}
    for one in known:
        cut = one[: len(wanted)] if star else one
        choices.setdefault(cut.casefold(), cut)
    found = difflib.get_close_matches(wanted.casefold(), choices, MAX_SUGGESTIONS, MIN_SIMILARITY)
    return [choices[one] + ("*" if star else "") for one in found]


def told(name: str, known: Sequence[str], where: str) -> str:
    """Return the message that ``where``, such as "the engine", has no symbol ``name``, with suggestions."""
    text = f"{where} has no symbol with this prefix" if name.endswith("*") else f"{where} has no such symbol"
    if name == "*":
        text = f"{where} has no symbols"
    like = near(name, known)
    return f"{text}; did you mean {', '.join(like)}?" if like else text
