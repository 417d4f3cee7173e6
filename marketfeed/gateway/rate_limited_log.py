"""Rate-limited warnings about clients: at most one of each kind a minute."""

from __future__ import annotations

from typing import Any, Final

import structlog
import trio

PERIOD_S: Final = 60.0
MAX_SHOWN: Final = 120  # characters of text from a client

log = structlog.get_logger()


class RateLimitedLog:
    """Writes warnings; each has the number of suppressed warnings of its kind since the last."""

    def __init__(self) -> None:
        self._next_s: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, event: str, **fields: Any) -> None:
        """Log ``event``, one of a fixed set, unless it was logged less than a minute ago."""
        now_s = trio.current_time()
        if now_s < self._next_s.get(event, now_s):
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return
        self._next_s[event] = now_s + PERIOD_S
        left_out = self._left_out.pop(event, 0)
        log.warning(event, **fields, **({"left_out": left_out} if left_out else {}))


def shown(text: str) -> str:
    """Return ``text`` from a client in a form safe for terminals: truncated, and escaped except ASCII."""
    return text[:MAX_SHOWN].encode("unicode_escape").decode("ascii")
