"""Cursors of clients that come from another node of a cluster.

A mirror is some milliseconds behind its origin, so a cursor can be ahead of its rings. Such a request waits a
moment: without the wait, the client would be reset although nothing is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from marketfeed.core.cursor import Cursor
    from marketfeed.core.rings import Rings

AHEAD_S: Final = 1.0  # then the client is reset: its cursor is not of this origin
LOOK_S: Final = 0.01


def is_ahead(rings: Rings, cursor: Cursor | None) -> bool:
    """Return whether ``cursor`` is of the epoch of ``rings``, and they do not have all ticks before it."""
    return cursor is not None and cursor.epoch == rings.epoch and rings.head() < cursor.g


async def reached(rings: Rings, cursor: Cursor | None) -> None:
    """Wait until ``cursor`` is not ahead of ``rings``, at most AHEAD_S; a checkpoint only if it waits."""
    with trio.move_on_after(AHEAD_S):
        while is_ahead(rings, cursor):  # noqa: ASYNC110 - another process may write them
            await trio.sleep(LOOK_S)
