"""Alerts for the sessions of a worker: the engine has the log and makes every call."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from marketfeed.alerts.active import POLLING
from marketfeed.alerts.delivery import Due
from marketfeed.alerts.history import Page
from marketfeed.alerts.log import ALL_SYMBOLS, Acknowledged, Consumer, Entry, Episode, Silence
from marketfeed.alerts.service import AlertRefusedError, AlertsOffError, NoticeConflictError, Published
from marketfeed.errors import AlertLogError
from marketfeed.workers import alert_messages as calls
from marketfeed.workers.messages import AlertsAnswered, AskAlerts, CancelAlerts, Down, LeaveAlerts
from marketfeed.workers.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.history import Wanted
    from marketfeed.alerts.log import Start
    from marketfeed.workers.channel import Channel

CANCEL_S: Final = 1.0  # for the engine to answer that a call is cancelled

_acknowledged = msgspec.json.Decoder(Acknowledged)
_consumer = msgspec.json.Decoder(Consumer)
_dues = msgspec.json.Decoder(list[Due])
_entries = msgspec.json.Decoder(list[Entry])
_episode: msgspec.json.Decoder[Episode | None] = msgspec.json.Decoder(Episode | None)
_expired = msgspec.json.Decoder(bool)
_page: msgspec.json.Decoder[Page | None] = msgspec.json.Decoder(Page | None)
_position = msgspec.json.Decoder(int)
_published = msgspec.json.Decoder(Published)
_silences = msgspec.json.Decoder(list[Silence])


class RemoteAlerts:
    """An :class:`marketfeed.alerts.service.AlertService` over the control channel of a worker.

    A call that is cancelled is cancelled in the engine as well. If that had made it already, it returns its
    result nevertheless: what :meth:`take` took is lost to nobody.
    """

    def __init__(self, channel: Channel[Down]) -> None:
        self._channel = channel
        self._requests: Requests[AlertsAnswered] = Requests()
        self._takes: dict[str, int] = {}  # by session: the number of the call that waits
        self._joined: set[str] = set()  # sessions that have to leave, without those of clients that poll

    async def join(
        self,
        session: str,
        name: str,
        start: Start,
        patterns: Sequence[str],
        symbols: Sequence[str] = ALL_SYMBOLS,
    ) -> Consumer:
        """Have ``session`` take alerts of consumer ``name``."""
        if not session.startswith(POLLING):
            self._joined.add(session)
        call = calls.Join(session, name, start, tuple(patterns), tuple(symbols))
        return _consumer.decode(await self._ask(call))

    def leave(self, session: str) -> None:
        """Take no more alerts; the engine also gives back what it is answering just now.

        A :meth:`take` that waits ends at once, so that it does not mistake a later join for its own.
        """
        if (number := self._takes.get(session)) is not None:
            self._requests.respond(number, AlertsAnswered(number, "refused", reason="this session has left"))
        if session in self._joined or session.startswith(POLLING):
            self._joined.discard(session)
            self._channel.send(LeaveAlerts(session))

    async def take(self, session: str, limit: int) -> list[Due]:
        """Wait until alerts are due for ``session``, and return up to ``limit`` of them."""
        return _dues.decode(await self._ask(calls.Take(session, limit), session))

    async def acknowledge(self, name: str, ids: Sequence[str]) -> Acknowledged:
        """Settle alerts of consumer ``name``, durably."""
        return _acknowledged.decode(await self._ask(calls.Acknowledge(name, tuple(ids))))

    async def head(self) -> int:
        """Return the position of the newest entry."""
        return _position.decode(await self._ask(calls.Head()))

    async def entries(self, after: int, limit: int) -> list[Entry]:
        """Wait until there are entries after a position, and return up to ``limit`` of them."""
        return _entries.decode(await self._ask(calls.Entries(after, limit)))

    async def history(self, wanted: Wanted, before: str, limit: int) -> Page | None:
        """Return alerts that were appended earlier, newest first; None if ``before`` is unknown."""
        return _page.decode(await self._ask(calls.History(wanted, before, limit)))

    async def publish(self, notice: Alert, wait_s: float | None = None) -> Published:
        """Keep a notice; wait up to ``wait_s`` until ``notice.to`` acknowledges it."""
        return _published.decode(await self._ask(calls.Publish(notice, wait_s)))

    async def resolve(self, key: str, by: str, comment: str) -> Episode | None:
        """Record that a person took on an episode; None if there is no such episode."""
        return _episode.decode(await self._ask(calls.Resolve(key, by, comment)))

    async def silences(self) -> list[Silence]:
        """Return all silences, expired ones included, by start."""
        return _silences.decode(await self._ask(calls.Silences()))

    async def add_silence(self, silence: Silence) -> None:
        """Keep a silence."""
        await self._ask(calls.AddSilence(silence))

    async def expire_silence(self, silence: str, by: str) -> bool:
        """End a silence now; False if there is none that ends later."""
        return _expired.decode(await self._ask(calls.ExpireSilence(silence, by)))

    def answer(self, answered: AlertsAnswered) -> None:
        """Pass on an answer of the engine."""
        self._requests.respond(answered.number, answered)

    def end(self) -> None:
        """End all calls, because the engine has ended."""
        self._requests.end()

    async def _ask(self, call: calls.Call, taker: str | None = None) -> bytes:
        """Have the engine make ``call``; return its result, or raise its error. ``taker`` takes alerts."""
        data = calls.encode_call(call)
        with self._requests.open() as request, self._taking(taker, request.number):
            self._channel.send(AskAlerts(request.number, data))
            try:
                await request.wait()
            except trio.Cancelled:
                if request.response is None:
                    self._channel.send(CancelAlerts(request.number))
                    with trio.move_on_after(CANCEL_S, shield=True):
                        await request.wait()
                if request.response is None or request.response.outcome == "cancelled":
                    raise
        return _result_of(request.response)

    @contextmanager
    def _taking(self, session: str | None, number: int) -> Iterator[None]:
        if session is None:
            yield
            return
        self._takes[session] = number
        try:
            yield
        finally:
            if self._takes.get(session) == number:
                del self._takes[session]


def _result_of(answered: AlertsAnswered | None) -> bytes:
    if answered is None:
        raise AlertLogError("the engine has ended")
    match answered.outcome:
        case "done":
            return answered.result
        case "refused":
            raise AlertRefusedError(answered.reason)
        case "conflict":
            raise NoticeConflictError(answered.reason)
        case "off":
            raise AlertsOffError(answered.reason)
        case _:
            raise AlertLogError(answered.reason)
