"""Large answers on their way to clients, in bounded memory.

An answer is whole before it is sent: 10 MB for the quotes of a full symbol table. A client that asks and does
not read keeps it in memory until it times out, and it may ask on many connections. So there is a limit on all
large answers together, and beyond it the oldest is given up.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.gateway.complaints import Complaints

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

LARGE_BYTES: Final = 1 << 18  # smaller ones are not counted
MOST_BYTES: Final = 48 << 20
GRACE_S: Final = 1.0  # that any client has to take its answer


class Unread:
    """The large answers of a server; counts into ``refused`` what it gives up."""

    def __init__(self, refused: Counter[str]) -> None:
        self._refused = refused
        self._sizes: dict[trio.CancelScope, int] = {}  # the oldest first
        self._began_s: dict[trio.CancelScope, float] = {}
        self._complaints = Complaints()
        self.waiting_bytes = 0

    @contextmanager
    def sending(self, size: int, most_s: float) -> Iterator[trio.CancelScope]:
        """Count an answer of ``size`` bytes as large, or not, while the block sends it.

        The block is cancelled if the answer is given up, and after ``most_s`` seconds.
        """
        with trio.move_on_after(most_s) as scope:
            if size <= LARGE_BYTES:
                yield scope
                return
            self._make_room(size)
            self._sizes[scope], self._began_s[scope] = size, trio.current_time()
            self.waiting_bytes += size
            try:
                yield scope
            finally:
                self._forget(scope)

    def _make_room(self, size: int) -> None:
        before_s = trio.current_time() - GRACE_S
        while self._sizes and self.waiting_bytes + size > MOST_BYTES:
            oldest = next(iter(self._sizes))
            if self._began_s[oldest] > before_s:
                return
            self._forget(oldest)
            oldest.cancel()
            self._refused["answer not read"] += 1
            self._complaints.tell("an answer was given up: clients do not read theirs", most=MOST_BYTES)

    def _forget(self, scope: trio.CancelScope) -> None:
        if scope in self._sizes:
            self.waiting_bytes -= self._sizes.pop(scope)
            del self._began_s[scope]
