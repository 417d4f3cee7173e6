r"""Escape untrusted text for terminals: messages of servers, names in files, tags of logs.

Terminals interpret control bytes and escape sequences, and reorder text after a bidirectional override. So
every character other than letters, marks, digits, punctuation, symbols and plain spaces is escaped as in a
Python string: ``\x1b``, ``\u202e``.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 500  # characters of one text


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
