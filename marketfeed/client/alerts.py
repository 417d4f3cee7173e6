"""Alerts of a feed: an iterator that acknowledges each alert when its work is done.

    driver.py ──► AlertQueue ──► Alerts, the caller's loop

The driver refers to the queue weakly: when the loop has ended, alerts are messages of the feed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.client.driver import Driver
    from marketfeed.client.feed import Feed
    from marketfeed.client.messages import Alert
    from marketfeed.errors import MarketfeedError


class AlertQueue:
    """Received alerts that the loop has not taken: each id once, ``size`` bytes in all.

    ``refused`` ends the loop: an acknowledgement was refused, or the consumer was dropped.
    """

    def __init__(self) -> None:
        self.size = 0
        self.refused: MarketfeedError | None = None
        self._alerts: dict[str, tuple[Alert, int]] = {}

    def put(self, alerts: Sequence[Alert], size: int) -> None:
        """Append alerts of about ``size`` bytes each, without those that the queue has already."""
        for alert in alerts:
            if alert.id not in self._alerts:
                self._alerts[alert.id] = (alert, size)
                self.size += size

    def take(self) -> Alert | None:
        """Return the next alert, None if there is none."""
        if not self._alerts:
            return None
        alert, size = self._alerts.pop(next(iter(self._alerts)))
        self.size -= size
        return alert


class Alerts:
    """Iterator over alerts; ``Feed.alerts`` makes it.

    With ``acknowledge``, an alert is acknowledged when the next one is asked for, so when the body of the
    loop has ended. After `break` or an exception the last one is not, and comes again to this consumer.
    """

    def __init__(
        self,
        feed: Feed,
        driver: Driver,
        patterns: Sequence[str],
        consumer: str | None,
        start: str | None,
        acknowledge: bool,
    ) -> None:
        self._feed, self._driver = feed, driver
        self._patterns, self._consumer, self._start = patterns, consumer, start
        self._acknowledge = acknowledge and consumer is not None
        self._queue: AlertQueue | None = None  # from the first alert on
        self._former: Alert | None = None

    def __aiter__(self) -> Alerts:
        """Iterate over alerts."""
        return self

    async def __anext__(self) -> Alert:
        """Acknowledge the former alert, and return the next one."""
        if self._queue is None:
            self._queue = self._driver.divert_alerts()
            await self._feed.subscribe(alerts=self._patterns, consumer=self._consumer, start=self._start)
        former, self._former = self._former, None
        if former is not None and former.ack and self._acknowledge:
            self._driver.core.acknowledge(self._driver.now(), [former.id])
            self._driver.wake()
        self._former = await self._driver.take_alert(self._queue)
        return self._former
