"""Names that were asked for and that no symbol has: which, and what was perhaps meant. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEAR: Final = 3  # suggestions for one name
CLOSE: Final = 0.6  # how similar they have to be, of 1: difflib's own default


def unmatched(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return those of ``names``, patterns among them, that match none of ``known``: in order, each once."""
    there = set(known)
    return [
        name
        for name in dict.fromkeys(names)
        if not (any(one.startswith(name[:-1]) for one in there) if name.endswith("*") else name in there)
    ]


def near(name: str, known: Sequence[str]) -> list[str]:
    """Return what of ``known`` is most like ``name``, whatever its case; for a pattern, patterns.

    Compares with every name: 0.2 s for 65,536 of them.
    """
    if name == "*":
        return []
    star = name.endswith("*")
    wanted = name.rstrip("*")
    choices: dict[str, str] = {}
    for one in known:
        cut = one[: len(wanted)] if star else one
        choices.setdefault(cut.casefold(), cut)
    found = difflib.get_close_matches(wanted.casefold(), choices, NEAR, CLOSE)
    return [choices[one] + ("*" if star else "") for one in found]


def told(name: str, known: Sequence[str], where: str) -> str:
    """Return in words that ``where``, such as "the engine", has no symbol ``name``, and what is near."""
    text = f"{where} has no symbol that begins so" if name.endswith("*") else f"{where} has no such symbol"
    if name == "*":
        text = f"{where} has no symbol"
    like = near(name, known)
    return f"{text}; did you mean {', '.join(like)}?" if like else text
