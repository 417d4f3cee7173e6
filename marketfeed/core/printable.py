r"""Escape untrusted text for terminals: messages of servers, names in files, tags of logs.

Terminals interpret control bytes and escape sequences, and reorder text after a bidirectional override. So
every character other than letters, marks, digits, punctuation, symbols and plain spaces is escaped as in a
Python string: ``\x1b``, ``\u202e``.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MOST: Final = 500  # characters of one text
# Formatting characters that change the order in which text is shown (Unicode, UAX #9).
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: object, most: int = MOST) -> str:
    """Return ``text`` on one line, with every character escaped that a terminal might interpret.

    Text of more than ``most`` characters is cut and ends with an ellipsis.
    """
    shown = str(text)
    if len(shown) > most:
        shown = shown[: most - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in shown
    )


def printable_json(text: str) -> str:
    """Return JSON that equals ``text``, in which a terminal interprets nothing but line feeds."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _as_json(char) for char in text)


def _as_json(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def one_line(text: str) -> str:
    """Return ``text`` of a person with single spaces for white space, line separators included.

    Raises ValueError for a control character, or one that reverses text: such text is shown to others.
    """
    line = " ".join(text.split())
    for char in line:
        if char in _BIDI or unicodedata.category(char) == "Cc":
            raise ValueError(f"control characters such as {char!a} are not allowed")
    return line
