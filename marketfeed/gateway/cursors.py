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


async def reached(rings: Rings, cursor: Cursor | None) -> None:
    """Wait until ``rings`` have the ticks before ``cursor``, at most AHEAD_S; a checkpoint only if it waits.

    Returns at once for None and for a cursor of another epoch.
    """
    if cursor is None or cursor.epoch != rings.epoch:
        return
    with trio.move_on_after(AHEAD_S):
        while rings.head() < cursor.g:  # noqa: ASYNC110 - another process may write them
            await trio.sleep(LOOK_S)
