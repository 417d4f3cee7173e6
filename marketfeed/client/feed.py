"""A feed: one stream of an engine, over as many connections as it takes, for trio and asyncio."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from marketfeed.client.alerts import Alerts
from marketfeed.client.http import exchange, publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from marketfeed.client.batch import Batch
    from marketfeed.client.core import State
    from marketfeed.client.driver import Driver
    from marketfeed.client.messages import Message, Quote, Trade
    from marketfeed.client.statistics import Statistics

REQUEST_S: Final = 10.0  # for an answer over HTTP
PUBLISH_S: Final = 30.0  # for a notice, with all repetitions


class Feed:
    """The stream of an engine. :func:`connect` makes it; all methods belong to its event loop.

    Iterate over it for messages, ``async for message in feed``, or over :meth:`batches`. One task may do so
    at a time. The iteration ends when the feed is closed, and raises RefusedError when the engine refuses it
    for good. A lost connection is no error: the feed reconnects, resumes, and tells Disconnected, Connected,
    Resumed or Reset in their place.
    """

    def __init__(self, driver: Driver) -> None:
        """Use :func:`connect`."""
        self._driver = driver
        self._core = driver.core
        self._messages: list[Message] = []  # of the batch that is being iterated over
        self._position = 0
        self._arrived_ns = 0

    @property
    def driver(self) -> Driver:
        """The tasks of the feed: for fronts, not for callers."""
        return self._driver

    @property
    def state(self) -> State:
        """Whether the feed is connected, and why not; times are of the event loop's clock."""
        return self._core.state

    @property
    def epoch(self) -> str:
        """Epoch of the engine's rings, "" before the first connection; a restart begins a new one."""
        return self._core.epoch

    @property
    def source(self) -> str:
        """`stale` while the engine does not hear the source of its ticks, else `live`."""
        return self._core.source

    @property
    def tier(self) -> str:
        """The tier as the engine last told it, "" before that."""
        return self._core.intake.tier

    @property
    def cursor(self) -> str | None:
        """Cursor up to which all requests for ticks have been served, for a later ``after``.

        It is that of the received messages, which are at most the buffer ahead of those iterated over. None
        before there is one.
        """
        return self._core.subscriptions.cursor

    @property
    def arrived_ns(self) -> int:
        """Unix time at which the message that was iterated over last had been read."""
        return self._arrived_ns

    @property
    def passed_over(self) -> int:
        """How many messages were passed over: those of a newer protocol, and those that break it."""
        return self._core.intake.counters.unknown

    def statistics(self) -> Statistics:
        """Return the counters of the feed and its latencies, since it began."""
        return self._core.statistics()

    def latest(self, symbol: str, channel: str = "quotes") -> Quote | Trade | None:
        """Return the newest received tick of ``symbol``, None if there is none."""
        return self._core.intake.newest.of(symbol, channel)

    def frame(self, channel: str = "quotes") -> Any:
        """Return the newest received tick of each symbol as a pandas DataFrame.

        To collect all ticks, concatenate :meth:`Batch.to_pandas`. Raises ImportError if pandas is not
        installed.
        """
        return self._core.intake.newest.frame(channel)

    @staticmethod
    def age_s(tick: Quote | Trade) -> float:
        """Return the seconds since the engine received ``tick``, by this machine's clock, at least 0."""
        return max(time.time_ns() / 1e9 - tick.r / 1e6, 0.0)

    async def wait_state(self, before: State) -> State:
        """Wait until the state is another than ``before``, or the feed has ended; return it."""
        while self._core.state is before and not self._driver.over:
            await self._driver.wait_changed()
        return self._core.state

    def close(self) -> None:
        """End the feed, as leaving its context does. What has been received can still be iterated over."""
        self._driver.close()

    # Messages.

    def __aiter__(self) -> Feed:
        """Iterate over messages."""
        return self

    async def __anext__(self) -> Message:
        """Return the next message. Lets other tasks run once per batch."""
        while self._position >= len(self._messages):
            batch = await self._driver.take()
            self._messages, self._position = batch.in_order(), 0
            self._arrived_ns = batch.arrived_ns
        self._position += 1
        return self._messages[self._position - 1]

    def batches(self) -> Batches:
        """Iterate over batches, one per message of the WebSocket, and one per change of the connection."""
        return Batches(self._driver)

    # Requests.

    async def subscribe(
        self,
        quotes: Sequence[str] | str = (),
        trades: Sequence[str] | str = (),
        *,
        tier: str | None = None,
        after: str | None = None,
        alerts: Sequence[str] | str = (),
        consumer: str | None = None,
        start: str | None = None,
    ) -> None:
        """Add names to the subscription, and wait for the engine's answer, while there is no connection too.

        Names are symbols, prefixes followed by ``*``, or ``*``. ``tier`` changes the tier of the whole feed.
        ``after`` resumes these names from a cursor of an earlier feed. ``alerts`` are patterns of rules, of a
        durable ``consumer`` or, without it, of a live view; ``start`` is `all` or `now`, at the first use of
        the consumer. Subscriptions survive every reconnect. Raises RequestRefusedError; nothing changes then.
        """
        wanted = {
            "quotes": listed(quotes),
            "trades": listed(trades),
            "alerts": listed(alerts),
            "consumer": consumer,
            "start": start,
            "tier": tier,
            "cursor": after or "",
        }
        await self._driver.answer(self._core.subscribe(self._driver.now(), **wanted))

    async def unsubscribe(
        self,
        quotes: Sequence[str] | str = (),
        trades: Sequence[str] | str = (),
        *,
        alerts: Sequence[str] | str = (),
    ) -> None:
        """Remove names from the subscription, exactly as they were written, and wait for the answer."""
        names = (listed(quotes), listed(trades), listed(alerts))
        await self._driver.answer(self._core.unsubscribe(self._driver.now(), *names))

    async def set_tier(self, tier: str) -> None:
        """Change the tier of the feed, and wait for the answer. Raises RequestRefusedError."""
        await self.subscribe(tier=tier)

    # Alerts.

    def alerts(
        self,
        patterns: Sequence[str] | str = ("*",),
        *,
        consumer: str | None = None,
        start: str | None = None,
        acknowledge: bool = True,
    ) -> Alerts:
        """Iterate over alerts of the rules that ``patterns`` match.

            async for alert in feed.alerts(consumer="risk-1"):
                ...  # what is to be durable is so before the body ends

        As a durable ``consumer``, which its first use creates: from all alerts in the log or, with ``start``
        `now`, from then on. Each alert is acknowledged when the body of the loop has ended; without
        ``acknowledge`` only by ``alert.acknowledge()`` or :meth:`acknowledge`. What is not acknowledged comes
        again: after a while, after a cut, after a restart of either side. Expect duplicates; ``alert.id``
        identifies an alert. Without ``consumer`` it is a live view: alerts come once, and are not
        acknowledged. While it is iterated over, alerts do not come as messages of the feed.
        Raises RequestRefusedError, also if an acknowledgement is refused.
        """
        return Alerts(self, self._driver, listed(patterns), consumer, start, acknowledge)

    async def acknowledge(self, alerts: Iterable[str]) -> None:
        """Acknowledge alerts by their ids, and wait until that is on disk. Repeated over reconnects."""
        wanted = list(dict.fromkeys(alerts))
        if wanted:
            await self._driver.settlement(wanted)

    async def publish(
        self,
        msg: str,
        *,
        key: str | None = None,
        sev: str | None = None,
        symbol: str | None = None,
        to: str | None = None,
        data: dict[str, Any] | None = None,
        timeout_s: float = PUBLISH_S,
    ) -> str:
        """Publish a notice; return the id of its alert, which is on disk then.

        ``key`` is the caller's own, a random one without it: a notice with a key that was used before is not
        kept again, so the request is repeated until the engine has answered, for ``timeout_s``. ``sev`` is
        `info`, `warning` or `critical`, ``symbol`` what it is about, ``to`` the only consumer that gets it,
        ``data`` an object that is passed on. Raises RequestRefusedError and ConnectError.
        """
        notice = {"key": key, "msg": msg, "sev": sev, "S": symbol, "to": to, "data": data}
        return await publish(self._driver.backend, self.request, notice, timeout_s)

    async def request(
        self, path: str, *, method: str = "GET", body: Any = None, timeout_s: float = REQUEST_S
    ) -> Any:
        """Request another route of the engine, such as `/v1/symbols`, with the feed's token.

        ``body`` is encoded as JSON. Returns the decoded answer, None if it has no body. Raises
        RequestRefusedError with the HTTP status as code, and ConnectError.
        """
        driver = self._driver
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if self._core.token is None else {"Authorization": f"Bearer {self._core.token}"}
        answer = await exchange(driver.backend, driver.nodes.now, method, path, data, headers, timeout_s)
        return answer.json(f"{method} {path}")


class Batches:
    """Iterator over the batches of a feed."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __aiter__(self) -> Batches:
        """Iterate over batches."""
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch."""
        return await self._driver.take()


def listed(names: Sequence[str] | str) -> list[str]:
    """Return names as a list; one name may be given as a string."""
    return [names] if isinstance(names, str) else list(names)
