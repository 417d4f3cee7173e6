"""Cursors: a client's position in the stream, as text.

The text is ``"<epoch>:<g>"``. Clients treat it as opaque, so that a later version can hold the positions of
several origins. Only text that :class:`Cursor` has written is accepted.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

EPOCH: Final = re.compile(r"[0-9a-zA-Z]{1,32}")
_CURSOR: Final = re.compile(rf"({EPOCH.pattern}):(0|[1-9][0-9]{{0,19}})")


class Cursor(NamedTuple):
    """A position: all ticks up to ``g`` in the epoch ``epoch`` of the rings."""

    epoch: str
    g: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.g}"


def parse_cursor(text: str) -> Cursor:
    """Parse a cursor; raises ValueError."""
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[2]) >= 2**64:
        raise ValueError(f"not a cursor of this engine: {text[:50]!r}")
    return Cursor(match[1], int(match[2]))
