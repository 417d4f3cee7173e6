"""What ends a feed for good, and what is only the end of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from marketfeed.client.unreachable import rejection

if TYPE_CHECKING:
    from marketfeed.client.websocket import Rejected

FIRST_FINAL_CODE: Final = 4500  # close codes from here on: the same session would be refused again
# Statuses of a handshake that a repetition does not change: docs/protocol.md#the-protocol-version-1.
FINAL_STATUSES: Final = frozenset({400, 401, 403, 404, 405, 407, 410, 414, 421, 426, 431})
MAX_ADVISED_S: Final = 600.0  # the most that an engine may ask for: docs/protocol.md#close-codes


class Rejection(NamedTuple):
    """An HTTP answer to the handshake; ``retry_s`` is what its Retry-After asks for."""

    reason: str
    final: bool
    retry_s: float | None


def rejection_of(answer: Rejected, secure: bool) -> Rejection:
    """Return what ``answer`` means; redirects are not followed, and final."""
    reason = rejection(answer.status, answer.headers, answer.body, secure=secure)
    final = answer.status in FINAL_STATUSES or 300 <= answer.status < 400
    asked = answer.headers.get("retry-after", "").strip()
    retry_s = min(float(asked), MAX_ADVISED_S) if asked.isascii() and asked.isdecimal() else None
    return Rejection(reason, final, retry_s)
