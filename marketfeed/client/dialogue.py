"""What a client says to the engine on a connection, and what follows from its messages. No I/O, no clock.

    `connected` ──► `auth` ──► ready: subscriptions, acknowledgements, pings

The state of subscriptions and acknowledgements outlives the connection.

It has a method per message of the engine, so the file is longer than 300 lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from marketfeed.client import messages
from marketfeed.client.acknowledgements import Acknowledgements
from marketfeed.client.intake import Intake, Now
from marketfeed.core.printable import printable
from marketfeed.errors import (
    TEMPORARY_ERRORS,
    CloseCode,
    ErrorCode,
    MarketfeedError,
    RefusedError,
    RequestRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.client.credentials import Credentials
    from marketfeed.client.subscriptions import Subscriptions
    from marketfeed.client.websocket import WebSocket

NO_TOKEN: Final = "this engine asks for a key or token"
_NEVER: Final = float("inf")


class Answered(NamedTuple):
    """The request ``id`` was executed, or refused."""

    id: int
    error: RequestRefusedError | None = None


class Settled(NamedTuple):
    """These alerts are acknowledged, on disk; or that was refused."""

    alerts: tuple[str, ...]
    error: RequestRefusedError | None = None


class End(NamedTuple):
    """The dialogue ends the connection, and with ``error`` the feed."""

    code: int
    reason: str
    error: MarketfeedError | None = None


class Dialogue:
    """The dialogue on one connection after another.

    ``ready``: subscriptions are sent. ``end`` is set when the connection is to be closed. ``events`` are for
    the caller of the core.
    """

    def __init__(
        self,
        credentials: Credentials,
        subscriptions: Subscriptions,
        ping_s: float,
        mute_s: float,
        on_ready: Callable[[], None],
    ) -> None:
        self.credentials, self.subscriptions = credentials, subscriptions
        self.acknowledgements = Acknowledgements()
        self.intake = Intake(self.control, subscriptions.advance)
        self.now = Now(0.0, 0)
        self.ready = False
        self.ever_ready = False
        self.closing: messages.Closing | None = None  # the engine's announcement of the end
        self.end: End | None = None
        self.source: messages.Source | None = None  # as the engine of this connection has told it
        self.events: list[Answered | Settled] = []
        self.epoch = self.session = ""
        self._ws: WebSocket | None = None
        self._on_ready = on_ready
        self._interval_s, self._patience_s = ping_s, mute_s
        self._ping_s = self._mute_s = _NEVER  # when to send a ping; when silence is too long
        self._reading = True
        self._pings: dict[int, float] = {}  # times of sending
        self._auth: int | None = None  # id of the `auth` under way
        self.greeted = False  # `connected` has come
        self._protocol = 0
        self._handlers: dict[type, Callable[[Any, list[Any]], None]] = {
            messages.Success: self._success,
            messages.Subscription: self._subscription,
            messages.Synced: self._synced,
            messages.Gap: self.intake.gap,
            messages.Lag: self._lag,
            messages.Alert: self._alert,
            messages.Acked: self._acked,
            messages.Pong: self._pong,
            messages.Heartbeat: self._heartbeat,
            messages.Closing: self._announced,
            messages.Source: self._source,
            messages.Error: self._error,
        }

    # Connections.

    def begin(self, ws: WebSocket) -> None:
        """Begin on a new connection."""
        self._ws, self.ready, self.closing, self.end = ws, False, None, None
        self._ping_s = self._mute_s = _NEVER
        self._pings.clear()
        self._auth, self.greeted, self.source = None, False, None

    def cut(self) -> None:
        """The connection is lost."""
        self._ws, self.ready, self.greeted = None, False, False
        self.closing = None
        self.intake.cut()
        self.acknowledgements.cut()
        left = self.subscriptions.cut()
        if left:
            self.intake.left(*self.subscriptions.names_before(max(left)))
        self.events += map(Answered, left)

    def heard(self) -> None:
        """Note that bytes have come."""
        self._mute_s = _NEVER

    def reading(self, reads: bool) -> None:
        """Note whether the front reads: it does not while the caller is slow."""
        self._reading = reads
        self._mute_s = _NEVER
        self._ping_s = self.now.s + self._interval_s if self.ready else _NEVER

    @property
    def deadline_s(self) -> float:
        """When to call :meth:`tick`."""
        if not self.ready:
            return self.credentials.renew_s
        times = (self._ping_s, self._mute_s, self.credentials.renew_s, self.acknowledgements.next_s())
        return min(*times, self.subscriptions.next_s())

    def tick(self) -> None:
        """Do what is due."""
        self.credentials.tick(self.now.s)
        if self.credentials.due and not self.credentials.renewable:
            self.credentials.due = False
            self.authenticate()  # again: the engine could not verify the token
        if self.now.s >= self._mute_s:
            silent_s = self._interval_s + self._patience_s
            self.end = End(CloseCode.ABNORMAL, f"mute: nothing received for {silent_s:g} s")
        elif self.ready and self.now.s >= self._ping_s:
            self._ping()
        self.send_due()

    def send_due(self) -> None:
        """Send the requests that are due."""
        if not self.ready or self._ws is None or not self._ws.open:
            return
        for text in self.subscriptions.to_send(self.epoch, self.now.s):
            self._ws.send_text(text)
        ack = self.acknowledgements.to_send(self.subscriptions.new_id(), self.now.s)
        if ack is not None:
            self._ws.send_text(ack)

    def authenticate(self) -> None:
        """Present the token, at the beginning or to renew it."""
        self._auth = self._send(action="auth", token=self.credentials.token)

    def _ping(self) -> None:
        self._ping_s = self.now.s + self._interval_s
        if self._reading and self._ws is not None and self._ws.open:
            self._pings[self._send(action="ping")] = self.now.s
            self._mute_s = self.now.s + self._patience_s

    def _send(self, **request: Any) -> int:
        assert self._ws is not None
        number = self.subscriptions.new_id()
        if self._ws.open:
            self._ws.send_text(msgspec.json.encode({**request, "id": number}).decode())
        return number

    def _ready(self, into: list[Any]) -> None:
        if not self.ready:
            self.ready = self.ever_ready = True
            self._ping_s = self.now.s + self._interval_s
            into.append(messages.Connected(self.epoch, self.session, self._protocol, self.intake.tiers))
            self._on_ready()
            self.send_due()

    # Messages of the engine, in order.

    def control(self, message: Any, into: list[Any]) -> None:
        """Take a message that is not a tick; append it, and what follows from it, to ``into``."""
        handle = self._handlers.get(type(message))
        if handle is None:
            into.append(message)
        else:
            handle(message, into)

    def _success(self, message: messages.Success, into: list[Any]) -> None:
        if message.msg == "authenticated":
            if message.id is None or message.id == self._auth:
                self._auth = None
                self.credentials.accepted(message.ttl_s, self.now.s)
                self._ready(into)
        elif message.msg == "connected":
            if self.epoch not in ("", message.epoch):
                self.intake.epoch()
            self.epoch, self.session, self._protocol = message.epoch, message.session, message.protocol
            self.intake.tiers = message.tiers
            self.greeted = True
            if self.credentials.token is None:
                self._ready(into)
            else:
                self.authenticate()

    def _subscription(self, message: messages.Subscription, into: list[Any]) -> None:
        complete = self.subscriptions.complete(message)
        told = self.subscriptions.answered(message, self.epoch)
        self.intake.subscribed(message, complete=complete)
        self.intake.live = self.subscriptions.synced
        into.append(message)
        for one in told:
            into.append(one)
            if isinstance(one, messages.Reset):
                self.intake.excuse(one.symbols)
        if isinstance(message.id, int):
            self.events.append(Answered(message.id))
        self.send_due()

    def _synced(self, message: messages.Synced, into: list[Any]) -> None:
        self.subscriptions.synced_at(message.id, message.cursor, self.epoch)
        self.intake.live = self.subscriptions.synced
        into.append(message)

    def _lag(self, message: messages.Lag, into: list[Any]) -> None:
        self.intake.lag(message)
        into.append(message)

    def _alert(self, message: messages.Alert, into: list[Any]) -> None:
        if message.id not in self.acknowledgements:  # else it came again before that was settled
            self.intake.counters.alerts += 1
            into.append(message)

    def _acked(self, message: messages.Acked, into: list[Any]) -> None:
        self.events.append(Settled(self.acknowledgements.settled(message.id)))
        self.send_due()

    def _pong(self, message: messages.Pong, into: list[Any]) -> None:
        sent_s = self._pings.pop(message.id, None)  # type: ignore[arg-type]
        if sent_s is not None:
            self.intake.counters.answered(self.now.s - sent_s)

    def _heartbeat(self, message: messages.Heartbeat, into: list[Any]) -> None:
        """Ignore it: that bytes have come is noted already."""

    def _source(self, message: messages.Source, into: list[Any]) -> None:
        if self.source is None or message.state != self.source.state:  # else it was told at the begin
            into.append(message)
        self.source = message

    def _announced(self, message: messages.Closing, into: list[Any]) -> None:
        self.closing = message
        into.append(message)

    def _error(self, message: messages.Error, into: list[Any]) -> None:
        if message.id is msgspec.UNSET:
            into.append(message)
            if message.code == ErrorCode.NOT_ENTITLED and self.subscriptions.lost_consumer(message.msg):
                self.events.append(Settled((), _refusal(message)))
        elif message.id == self._auth:
            self._auth_refused(message, into)
        elif self.subscriptions.refused(message, self.now.s) or (
            message.code in TEMPORARY_ERRORS and self.acknowledgements.later(message.id, self.now.s)
        ):
            if message.code in TEMPORARY_ERRORS:
                into.append(message)  # it is repeated, and the caller can see why nothing comes
        elif alerts := self.acknowledgements.settled(message.id):
            self.events.append(Settled(alerts, _refusal(message)))
        elif self._pings.pop(message.id, None) is None:  # type: ignore[arg-type]
            self._refused(message, into)

    def _refused(self, message: messages.Error, into: list[Any]) -> None:
        """Take that a request is refused: for its caller, or if it was in force before, for the feed."""
        if not isinstance(message.id, int):
            into.append(message)  # not an answer to a request of this client
            return
        request = self.subscriptions.drop(message.id)
        if message.code == ErrorCode.NOT_AUTHENTICATED or (
            request is not None and (request.known or request.vital)
        ):
            reason = f"error {message.code}: {printable(message.msg)}"
            if message.code == ErrorCode.NOT_AUTHENTICATED:
                reason = NO_TOKEN
            self.end = End(CloseCode.NORMAL, reason, RefusedError(message.code, reason))
            return
        self.events.append(Answered(message.id, _refusal(message)))

    def _auth_refused(self, message: messages.Error, into: list[Any]) -> None:
        self._auth = None
        reason = f"error {message.code}: {printable(message.msg)}"
        credentials = self.credentials
        if message.code in TEMPORARY_ERRORS:  # with the same token
            credentials.failed(self.now.s)
            into.append(message)
        elif not credentials.renewable:
            self.end = End(CloseCode.NORMAL, reason, RefusedError(message.code, reason))
        elif message.code == ErrorCode.ALREADY_AUTHENTICATED:
            self.end = End(CloseCode.NORMAL, "the new token is another holder's")
        else:
            credentials.discard()
            credentials.failed(self.now.s)


def _refusal(message: messages.Error) -> RequestRefusedError:
    return RequestRefusedError(message.code, printable(message.msg))
