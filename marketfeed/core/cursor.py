"""Cursors: the text by which a client says what it has.

It is ``"<epoch>:<g>"``, which is the engine's own business: clients treat it as opaque, so
that a later version can hold the positions of several origins in it. Exactly the text that
:class:`Cursor` writes is read back.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

EPOCH: Final = re.compile(r"[0-9a-zA-Z]{1,32}")
_CURSOR: Final = re.compile(rf"({EPOCH.pattern}):(0|[1-9][0-9]{{0,19}})")


class Cursor(NamedTuple):
    """A position: everything up to ``g`` of the life ``epoch`` of the rings."""

    epoch: str
    g: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.g}"


def parse_cursor(text: str) -> Cursor:
    """Return the cursor written in ``text``; raises ValueError if it is none."""
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[2]) >= 2**64:
        raise ValueError(f"not a cursor that the engine gave out: {text[:50]!r}")
    return Cursor(match[1], int(match[2]))
