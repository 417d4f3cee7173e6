r"""Text from somebody else, made safe to print: a server's messages, names in files, tags of logs.

A terminal acts on control bytes and escape sequences, and shows text after a bidirectional override in
another order than it has. So everything beside letters, marks, digits, punctuation, symbols and plain spaces
is shown as Python would write it in a string: ``\x1b``, ``\u202e``.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 500  # characters of one text; a message is a line, whatever a server sends


def printable(text: object, most: int = MOST) -> str:
    """Return ``text`` on one line, with everything escaped that a terminal might act on.

    What is beyond ``most`` characters is cut and marked by an ellipsis.
    """
    shown = str(text)
    if len(shown) > most:
        shown = shown[: most - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in shown
    )
