"""Alerts of a feed: an iterator that acknowledges each alert when its work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.client.driver import Driver
    from marketfeed.client.feed import Feed
    from marketfeed.client.messages import Alert


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
        self._begun = False
        self._former: Alert | None = None

    def __aiter__(self) -> Alerts:
        """Iterate over alerts."""
        return self

    async def __anext__(self) -> Alert:
        """Acknowledge the former alert, and return the next one."""
        if not self._begun:
            self._begun = True
            self._driver.divert_alerts()
            await self._feed.subscribe(alerts=self._patterns, consumer=self._consumer, start=self._start)
        former, self._former = self._former, None
        if former is not None and former.ack and self._acknowledge:
            self._driver.core.acknowledge(self._driver.now(), [former.id])
            self._driver.wake()
        self._former = await self._driver.take_alert()
        return self._former
