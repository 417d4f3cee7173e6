"""What sessions need of alerts, wherever they are served: in the engine's process or in a worker.

:class:`marketfeed.alerts.dispatch.Dispatch` implements it over the log; a worker passes each call on to the
engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from marketfeed.alerts.log import ALL_SYMBOLS
from marketfeed.errors import MarketfeedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.delivery import Due
    from marketfeed.alerts.history import Page, Wanted
    from marketfeed.alerts.log import Acknowledged, Consumer, Entry, Episode, Silence, Start


class AlertRefusedError(MarketfeedError):
    """A call that its caller has to change, such as one with an invalid name; the text says how."""


class NoticeConflictError(AlertRefusedError):
    """The publisher has used the key for a notice to another consumer; it has to use another key."""


class AlertsOffError(MarketfeedError):
    """The configuration has alerts off."""


class Published(msgspec.Struct, frozen=True):
    """What became of a notice.

    If its publisher has used its key before (not ``new``), ``id`` is that of the first notice.
    """

    id: str
    new: bool
    acknowledged: bool = False  # by the consumer that it is for, within the time to wait


class AlertService(Protocol):
    """Alerts for sessions. Every async method raises AlertLogError if the log cannot be read or written."""

    async def join(
        self,
        session: str,
        name: str,
        start: Start,
        patterns: Sequence[str],
        symbols: Sequence[str] = ALL_SYMBOLS,
    ) -> Consumer:
        """Have ``session`` take alerts of consumer ``name``, which the first use creates.

        Called again, it changes the patterns. ``symbols`` are names and prefixes that the session is entitled
        to; those of the consumer are replaced. Nothing outside them is taken from now on, and it is settled.
        Raises AlertRefusedError, among others if another session has joined with other symbols. After
        AlertLogError the consumer has those that it had before.
        """
        ...

    def leave(self, session: str) -> None:
        """Take no more alerts: what the session has not acknowledged goes to another. Idempotent."""
        ...

    async def take(self, session: str, limit: int) -> list[Due]:
        """Wait until alerts are due for ``session``, and return up to ``limit`` of them as delivered to it.

        One call at a time. Raises AlertRefusedError if the consumer was dropped, or the session has not
        joined one.
        """
        ...

    async def acknowledge(self, name: str, ids: Sequence[str]) -> Acknowledged:
        """Settle alerts of consumer ``name``, durably. Raises AlertRefusedError for an invalid name."""
        ...

    async def head(self) -> int:
        """Return the position of the newest entry."""
        ...

    async def entries(self, after: int, limit: int) -> list[Entry]:
        """Wait until there are entries after a position, and return up to ``limit`` of them."""
        ...

    async def history(self, wanted: Wanted, before: str, limit: int) -> Page | None:
        """Return alerts that were appended earlier, newest first: see :func:`look_back` in history.py.

        Raises AlertRefusedError for an invalid symbol.
        """
        ...

    async def publish(self, notice: Alert, wait_s: float | None = None) -> Published:
        """Keep a notice, once per ``notice.publisher`` and ``notice.key``.

        Wait up to ``wait_s`` until ``notice.to`` acknowledges it. Raises AlertRefusedError, and
        NoticeConflictError if the publisher has used the key for a notice to another consumer.
        """
        ...

    async def resolve(self, key: str, by: str, comment: str) -> Episode | None:
        """Record that a person took on an episode; None if there is no such episode."""
        ...

    async def silences(self) -> list[Silence]:
        """Return all silences, the newest expired ones included, by start."""
        ...

    async def add_silence(self, silence: Silence) -> None:
        """Keep a silence. Raises AlertRefusedError."""
        ...

    async def expire_silence(self, silence: str, by: str) -> bool:
        """End a silence now; False if there is none that ends later."""
        ...
