"""Acknowledgements of alerts: one request at a time, repeated until it is settled, as it is idempotent.

wanted ──► asked: `ack` is under way ──► `acked`: settled           a lost connection makes asked wanted again
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from marketfeed.client.subscriptions import REPEAT_S

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST: Final = 500  # alerts in one request


class Acknowledgements:
    """Ids of alerts that the caller has dealt with, and that the engine has not settled yet."""

    def __init__(self) -> None:
        self._wanted: dict[str, None] = {}
        self._asked: tuple[str, ...] = ()
        self._request: int | None = None
        self._not_before_s = 0.0

    def __contains__(self, alert: str) -> bool:
        """Return whether the acknowledgement of ``alert`` is wanted or under way."""
        return alert in self._wanted

    def add(self, alerts: Iterable[str]) -> None:
        """Acknowledge ``alerts``."""
        self._wanted.update(dict.fromkeys(alerts))

    def to_send(self, number: int, now_s: float) -> str | None:
        """Return the next request, with the id ``number``; None if there is nothing to send now."""
        if self._asked or not self._wanted or now_s < self._not_before_s:
            return None
        self._asked, self._request = tuple(self._wanted)[:MOST], number
        return msgspec.json.encode({"action": "ack", "alerts": self._asked, "id": number}).decode()

    def next_s(self) -> float:
        """Return when a request is to be sent, inf if none is."""
        return self._not_before_s if self._wanted and not self._asked else float("inf")

    def settled(self, number: object) -> tuple[str, ...]:
        """Take the end of the request ``number``, a success or a final refusal; return its alerts."""
        if self._request is None or number != self._request:
            return ()
        done, self._asked, self._request = self._asked, (), None
        for alert in done:
            self._wanted.pop(alert, None)
        return done

    def later(self, number: object, now_s: float) -> bool:
        """Repeat the request ``number`` after a delay; return False if it is none of these."""
        if self._request is None or number != self._request:
            return False
        self._asked, self._request, self._not_before_s = (), None, now_s + REPEAT_S
        return True

    def cut(self) -> None:
        """The connection is lost: ask again on the next one."""
        self._asked, self._request, self._not_before_s = (), None, 0.0
