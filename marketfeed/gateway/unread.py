"""Limit on the memory of large responses that clients have not read.

A response is complete before it is sent: 10 MB for the quotes of a full symbol table. A client that does not
read keeps it in memory until the send times out, and may do so on many connections. So there is a limit on
all large responses together; beyond it the oldest is aborted.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.gateway.rate_limited_log import RateLimitedLog

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

LARGE_BYTES: Final = 1 << 18  # smaller responses are not counted
MOST_BYTES: Final = 48 << 20
GRACE_S: Final = 1.0  # before a response may be aborted


class Unread:
    """The large responses of a server; counts aborted ones in ``refused``."""

    def __init__(self, refused: Counter[str]) -> None:
        self._refused = refused
        self._sizes: dict[trio.CancelScope, int] = {}  # oldest first
        self._began_s: dict[trio.CancelScope, float] = {}
        self._log = RateLimitedLog()
        self.waiting_bytes = 0

    @contextmanager
    def sending(self, size: int, most_s: float) -> Iterator[trio.CancelScope]:
        """Bound the block, which sends a response of ``size`` bytes.

        The block is cancelled after ``most_s`` seconds, or if the response has to be aborted.
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
            self._log.warning("an answer was given up: clients do not read theirs", most=MOST_BYTES)

    def _forget(self, scope: trio.CancelScope) -> None:
        if scope in self._sizes:
            self.waiting_bytes -= self._sizes.pop(scope)
            del self._began_s[scope]
