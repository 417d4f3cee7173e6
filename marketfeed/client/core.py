"""The client's protocol, without I/O and without a clock: bytes in, events out; time is an argument.

        attempt ──► (token) ──► opened ──► handshake ──► `connected`, `auth` ──► subscriptions ──► ticks
           ▲                                                                                       │
           └─ a delay ◄── lost: an error of the socket, a close, silence ◄─────────────────────────┘

A front (driver.py) owns socket and clock. It calls :meth:`Core.attempt`, opens a connection, calls
:meth:`Core.opened`, and from then on passes on what it reads, sends :meth:`Core.data_to_send` after each
call, and calls :meth:`Core.tick` at :attr:`Core.deadline_s`. Events are batches for the caller, answers to
requests, and acknowledgements that are settled. When :attr:`Core.finished` is set, nothing follows.

One class holds all that a front calls, so the file is longer than 300 lines.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from marketfeed.client.batch import Batch
from marketfeed.client.credentials import Credentials
from marketfeed.client.dialogue import Answered, Dialogue, Settled
from marketfeed.client.messages import Disconnected
from marketfeed.client.refusals import FIRST_FINAL_CODE, MAX_ADVISED_S, rejection_of
from marketfeed.client.subscriptions import Subscriptions
from marketfeed.client.websocket import Ended, Received, Rejected, WebSocket
from marketfeed.core.backoff import Backoff
from marketfeed.core.printable import printable
from marketfeed.errors import (
    CLOSE_TEXT,
    CloseCode,
    ConnectError,
    FeedProtocolError,
    MarketfeedError,
    RefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from marketfeed.client.intake import Now
    from marketfeed.client.statistics import Statistics

FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
_NEVER: Final = float("inf")

Event = Batch | Answered | Settled


@dataclass(frozen=True)
class Settings:
    """What does not change while a feed lives.

    ``host`` and ``resource`` are those of the handshake's request. ``wait``: the first attempt may fail, as
    all others.
    """

    host: str
    resource: str
    secure: bool = False
    headers: Sequence[tuple[bytes, bytes]] = ()
    token: str | None = field(default=None, repr=False)
    renewable: bool = False  # there is a callback for tokens
    tier: str | None = None
    encoding: str = "json"
    compress: bool = False
    wait: bool = False
    connect_s: float = 10.0  # for handshake and `auth`
    ping_s: float = 10.0  # between pings
    mute_s: float = 10.0  # from a ping until anything is received
    first_retry_s: float = FIRST_RETRY_S
    max_retry_s: float = MAX_RETRY_S


@dataclass(frozen=True)
class State:
    """State of a feed: ``name`` is `disconnected`, `connecting` or `connected`.

    ``code`` and ``reason`` say why it is not connected; 0 and "" while it is. ``since_s`` and ``retry_s``,
    the time of the next attempt or None, are times of the event loop's clock.
    """

    name: str
    code: int
    reason: str
    since_s: float
    retry_s: float | None = None


class Core:
    """State of one feed over all its connections."""

    def __init__(self, settings: Settings, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """``uniform(low, high)`` draws the random factors of delays."""
        self._settings = settings
        delays = (settings.first_retry_s, settings.max_retry_s)
        self._backoff = Backoff(*delays, uniform=uniform)
        renewal = Backoff(*delays, uniform=uniform)
        self._credentials = Credentials(settings.token, renewable=settings.renewable, backoff=renewal)
        self.subscriptions = Subscriptions(settings.encoding, settings.tier, settings.compress)
        self._dialogue = Dialogue(
            self._credentials, self.subscriptions, settings.ping_s, settings.mute_s, self._on_ready
        )
        self.intake = self._dialogue.intake
        self.state = State("disconnected", 0, "not connected yet", 0.0)
        self.finished: MarketfeedError | None = None
        self.closed = False  # by the caller
        self._directed: str | None = None  # the URL to which the engine has sent the client
        self._ws: WebSocket | None = None
        self._events: list[Event] = []
        self._leaving = b""  # the last bytes of a connection that is over
        self._give_up_s = self._retry_s = _NEVER

    @property
    def connected(self) -> bool:
        """Whether the connection is in use; if not, the front sends what is to be sent, and closes it."""
        return self._ws is not None

    @property
    def epoch(self) -> str:
        """The epoch of the engine's rings, "" before the first connection."""
        return self._dialogue.epoch

    @property
    def source(self) -> str:
        """`stale` while the engine does not hear the source of its ticks, else `live`."""
        source = self._dialogue.source
        return "live" if source is None else source.state

    @property
    def token(self) -> str | None:
        """The token in use, None without one."""
        return self._credentials.token

    def statistics(self) -> Statistics:
        """Return the present counters."""
        return self.intake.counters.statistics()

    # The front's calls.

    def attempt(self, now: Now) -> None:
        """Begin to connect. If :attr:`wants_token` is set then, the front gets a token first."""
        self._dialogue.now, self._retry_s = now, _NEVER
        self._credentials.need(now.s)
        self.state = State("connecting", self.state.code, self.state.reason, now.s)

    def take_directed(self) -> str | None:
        """Return where `closing` has sent the client since the last call, None if nowhere."""
        directed, self._directed = self._directed, None
        return directed

    def opened(self, now: Now, host: str | None = None, resource: str | None = None) -> None:
        """Begin the handshake on a new connection, to the ``host`` of the settings or another one."""
        self._dialogue.now = now
        made = self._settings
        self._ws = WebSocket(host or made.host, resource or made.resource, made.headers, secure=made.secure)
        self._leaving = b""
        self._dialogue.begin(self._ws)
        self._give_up_s = now.s + made.connect_s

    def receive_data(self, data: bytes, now: Now) -> list[Event]:
        """Take what was read, b"" at the end of the connection."""
        self._dialogue.now = now
        self.intake.counters.received_bytes += len(data)
        self._dialogue.heard()
        ws = self._ws
        if ws is not None:
            try:
                for received in ws.receive_data(data):
                    self._received(received, now)
                    if self._ws is not ws:
                        break
            except FeedProtocolError as error:
                what = f"the server does not speak marketfeed's protocol: {printable(error)}"
                self._drop(CloseCode.PROTOCOL, what)
        return self._taken()

    def lost(self, reason: str, now: Now) -> list[Event]:
        """Take the failure of an attempt, or the loss of a connection."""
        self._dialogue.now = now
        self._lose(CloseCode.ABNORMAL, reason)
        return self._taken()

    def tick(self, now: Now) -> list[Event]:
        """Do what is due."""
        self._dialogue.now = now
        if self._ws is not None:
            if now.s >= self._give_up_s:
                self._drop(CloseCode.ABNORMAL, f"no answer within {self._settings.connect_s:g} s")
            else:
                self._dialogue.tick()
                self._heed()
        return self._taken()

    @property
    def deadline_s(self) -> float:
        """When to call :meth:`tick`; while there is no connection, when to call :meth:`attempt`."""
        if self._ws is None:
            return self._retry_s
        return min(self._give_up_s, self._dialogue.deadline_s)

    @property
    def sends(self) -> bool:
        """Whether there is something to send."""
        return bool(self._leaving) or (self._ws is not None and self._ws.sends)

    def data_to_send(self) -> bytes:
        """Return the bytes to send now, also after the end of a connection, before it is closed."""
        data, self._leaving = self._leaving, b""
        return data if self._ws is None else data + self._ws.data_to_send()

    def reading(self, reads: bool, now: Now) -> None:
        """Note that the front stops reading, because the caller is slow, or reads again."""
        self._dialogue.now = now
        self._dialogue.reading(reads)

    def close(self, now: Now) -> None:
        """End the feed; what is to be sent then is a close frame, if there is a connection.

        A feed that has ended for good remains so.
        """
        self._retry_s = _NEVER
        if self.finished is None:
            self.closed = True
            self.state = State("disconnected", CloseCode.NORMAL, CLOSE_TEXT[CloseCode.NORMAL], now.s)
        self._leave(CloseCode.NORMAL)

    # Tokens.

    @property
    def wants_token(self) -> bool:
        """Whether the front is to call the callback for tokens."""
        return self._credentials.due and self._credentials.renewable

    def take_token(self, token: str | None, now: Now) -> list[Event]:
        """Take what the callback returned; None ends the feed."""
        self._dialogue.now = now
        if token is None:
            reason = "unauthorised: get_token returned None"
            self._finish(CloseCode.AUTHENTICATION, RefusedError(CloseCode.AUTHENTICATION, reason))
        else:
            self._credentials.take(token)
            if self._dialogue.greeted:
                self._dialogue.authenticate()
        return self._taken()

    def token_failed(self, reason: str, now: Now) -> list[Event]:
        """Take that the callback has failed: it is called again later."""
        self._dialogue.now = now
        self._credentials.failed(now.s)
        if self._ws is None:
            self._lose(CloseCode.ABNORMAL, f"get_token: {reason}")
        return self._taken()

    # Requests of the caller.

    def subscribe(self, now: Now, **wanted: Any) -> int:
        """Subscribe, now or as soon as there is a session, with the fields of subscriptions.Request.

        Returns the id that :class:`Answered` will have.
        """
        if wanted.get("cursor"):
            self.intake.resume_elsewhere()
        request = self.subscriptions.add(**wanted)
        self._send_due(now)
        return request.id

    def unsubscribe(
        self, now: Now, quotes: Sequence[str], trades: Sequence[str], alerts: Sequence[str]
    ) -> int:
        """Unsubscribe from names as they were subscribed to; return the id of the request."""
        number = self.subscriptions.remove(quotes, trades, alerts)
        self._send_due(now)
        return number

    def acknowledge(self, now: Now, alerts: Sequence[str]) -> None:
        """Acknowledge alerts; :class:`Settled` says when that is on disk."""
        self._dialogue.acknowledgements.add(alerts)
        self._send_due(now)

    def _send_due(self, now: Now) -> None:
        self._dialogue.now = now
        self._dialogue.send_due()

    # One connection.

    def _received(self, received: Received, now: Now) -> None:
        match received:
            case str() | bytes():
                intake = self.intake
                batch = (
                    intake.text(received, now) if isinstance(received, str) else intake.binary(received, now)
                )
                if batch.messages or len(batch.quotes) or len(batch.trades) or batch.symbols:
                    self._events.append(batch)
                if intake.broken is not None:
                    broken, intake.broken = intake.broken, None
                    raise broken
                self._heed()
            case Rejected():
                reason, final, retry_s = rejection_of(received, self._settings.secure)
                if final:
                    self._finish(CloseCode.ABNORMAL, RefusedError(received.status, reason))
                else:
                    self._lose(CloseCode.ABNORMAL, reason, retry_s)
            case Ended():
                self._ended(received)

    def _on_ready(self) -> None:
        self._give_up_s = _NEVER
        self._backoff.reset()
        self.intake.counters.connections += 1
        self.state = State("connected", 0, "", self._dialogue.now.s)

    def _heed(self) -> None:
        """Do what the dialogue has decided."""
        end = self._dialogue.end
        if end is not None and self._ws is not None:
            if end.error is not None:
                self._finish(end.code, end.error)
            else:
                self._drop(end.code, end.reason)

    def _ended(self, end: Ended) -> None:
        closing = self._dialogue.closing
        reason = printable(end.reason or CLOSE_TEXT.get(end.code, "closed"))  # type: ignore[call-overload]
        retry_s = None
        if closing is not None and closing.code == end.code:
            reason = printable(closing.msg)
            self._directed = None if closing.url is UNSET else closing.url
            retry_s = None if closing.retry_ms is UNSET else closing.retry_ms / 1000
        self._leave(None)
        if end.code >= FIRST_FINAL_CODE or (
            end.code == CloseCode.TOKEN_EXPIRED and not self._credentials.renewable
        ):
            self._finish(end.code, RefusedError(end.code, f"closed {end.code}: {reason}"))
        else:
            if end.code == CloseCode.TOKEN_EXPIRED:
                self._credentials.discard()
            self._lose(end.code, reason, retry_s)

    def _drop(self, code: int, reason: str) -> None:
        """Close the connection from this side, and reconnect."""
        self._leave(CloseCode.NORMAL if code == CloseCode.ABNORMAL else code)
        self._lose(code, reason)

    def _leave(self, code: int | None) -> None:
        """Give up the connection, with a close frame if there is a ``code``."""
        if self._ws is not None:
            if code is not None:
                self._ws.close(code)
            self._leaving, self._ws = self._ws.data_to_send(), None

    def _lose(self, code: int, reason: str, retry_s: float | None = None) -> None:
        """Go on to the next attempt, after ``retry_s`` or a growing delay, unless the caller has closed."""
        if self.closed:
            return
        was_ready, now = self._dialogue.ready, self._dialogue.now
        closing = self._dialogue.closing
        self._leave(None)
        self._dialogue.cut()
        self._give_up_s = _NEVER
        if not (self._dialogue.ever_ready or self._settings.wait):
            self._finish(code, ConnectError(reason))
            return
        delay_s = self._backoff.next_s() if retry_s is None else min(retry_s, MAX_ADVISED_S)
        self._retry_s = now.s + delay_s
        self.state = State("disconnected", int(code), reason, now.s, self._retry_s)
        self.intake.counters.disconnects += was_ready
        announced = closing is not None and closing.code == code
        told = Disconnected(int(code), reason, round(delay_s * 1000), announced)
        self._events.append(Batch([told], now.unix_ns))

    def _finish(self, code: int, error: MarketfeedError) -> None:
        """End the feed for good, unless the caller has closed it."""
        if self.closed:
            return
        self._leave(CloseCode.NORMAL)
        self._dialogue.cut()
        self.finished, self._retry_s = error, _NEVER
        self.state = State("disconnected", int(code), str(error), self._dialogue.now.s)

    def _taken(self) -> list[Event]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        events += self._dialogue.events
        self._dialogue.events = []
        return events
