"""``marketfeed alerts tail``: alerts of one WebSocket session, which reconnects, one line each.

    subscribe ──► alert ──► printed and flushed ──► pending ──► ack ──► acked: settled

Only one ``ack`` is under way at a time. What was printed and is not settled when a connection is lost, is
acknowledged over the next one, and is not printed again.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson
import trio

from marketfeed.alerts.alert import Alert
from marketfeed.api import messages
from marketfeed.cli.alerts_output import Lines, alert_fields, console_on, json_line
from marketfeed.cli.piped import PipeClosedError, discard_stdout, print_flushed, wait_reader_gone
from marketfeed.client.connection import BROKEN, Endpoint
from marketfeed.client.session import FIRST_FINAL_CODE, FinalError, KeptSession, messages_of, refusal
from marketfeed.core.printable import printable
from marketfeed.core.units import US
from marketfeed.errors import ConnectError, ErrorCode

if TYPE_CHECKING:
    import trio_websocket

RETRY_S: Final = 1.0  # before an acknowledgement is repeated that the engine could not take
MOST_ACKED: Final = 500  # alerts in one request
_FIELDS: Final = {field.encode_name for field in msgspec.structs.fields(messages.Alert)}
_TEMPORARY: Final = (ErrorCode.TOO_MANY_REQUESTS, ErrorCode.INTERNAL)


@dataclass(frozen=True)
class Subscription:
    """What to follow. Without ``consumer`` it is a live view, which acknowledges nothing."""

    patterns: tuple[str, ...]
    consumer: str | None = None
    acknowledge: bool = False
    from_start: bool = False  # a new consumer begins with the oldest alert in the log
    token: str | None = field(default=None, repr=False)  # key or token, if the engine asks for one

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests that a session begins with."""
        token = self.token
        first = [] if token is None else [{"action": "auth", "token": token, "id": "auth"}]
        return [*first, self._subscribe()]

    def _subscribe(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"action": "subscribe", "alerts": self.patterns, "encoding": "json"}
        if self.consumer is not None:
            asked |= {"consumer": self.consumer, "start": "all" if self.from_start else "now"}
        return {**asked, "id": "tail"}


class Follower:
    """One run of the command."""

    def __init__(self, engine: Endpoint, wanted: Subscription, *, as_json: bool = False) -> None:
        self._engine, self._wanted, self._as_json = engine, wanted, as_json
        self._console, self._lines = console_on(sys.stdout), Lines()
        self._session = KeptSession(engine, self._use, self._lost)
        self._announced: int | None = None  # the close code in the engine's `closing` message
        self._subscribed = False  # on the open connection
        self._pending: dict[str, None] = {}  # ids that were printed and are not settled
        self._asked: list[str] = []  # ids in the `ack` that is under way

    async def run(self) -> int:
        """Print alerts until interrupted, or until the reader of stdout has gone; return the exit status."""
        ended: BaseException | None = None
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as beside:
                beside.start_soon(self._wait_interrupt, signals)
                beside.start_soon(self._wait_reader_gone)
                try:
                    ended = await self._session.run()
                except* PipeClosedError:
                    discard_stdout()
                beside.cancel_scope.cancel()
        if ended is None:
            return 0
        known = isinstance(ended, FinalError)
        reason = "" if known else f"cannot connect to {self._engine.url}: {self._engine.unreachable(ended)}"
        _tell(reason or str(ended))
        return 1

    async def _wait_interrupt(self, signals: AsyncIterator[int]) -> None:
        await anext(signals)
        self._session.stop()

    async def _wait_reader_gone(self) -> None:
        await wait_reader_gone(sys.stdout)
        self._session.stop()

    async def _use(self, ws: trio_websocket.WebSocketConnection) -> None:
        self._announced, self._subscribed, self._asked = None, False, []
        for request in self._wanted.requests():
            await ws.send_message(orjson.dumps(request).decode())
        while True:
            frame = await ws.get_message()
            again = False
            try:
                for message in _messages_of(frame):
                    again = self._take(message) or again
            except (*BROKEN, msgspec.DecodeError):
                raise FinalError(f"{self._engine.url} does not speak marketfeed's protocol") from None
            if again:
                await trio.sleep(RETRY_S)
            if self._wanted.acknowledge and self._subscribed and self._pending and not self._asked:
                self._asked = list(self._pending)[:MOST_ACKED]
                request = {"action": "ack", "alerts": self._asked, "id": "ack"}
                await ws.send_message(orjson.dumps(request).decode())

    def _lost(self, why: str, code: int | None) -> None:
        """Tell that the connection ended, unless a `closing` message has announced it."""
        if code is None or code != self._announced:
            _tell(f"{why}, reconnecting")

    def _take(self, message: dict[str, Any]) -> bool:
        """Handle one message; return whether an acknowledgement has to be repeated."""
        match message:
            case {"T": "a"}:
                self._show(message)
            case {"T": "subscription"}:
                self._session.backoff.reset()
                self._subscribed = True
            case {"T": "acked", "id": "ack"}:
                for settled in self._asked:
                    self._pending.pop(settled, None)
                self._asked = []
            case {"T": "error", "code": code, "msg": text}:
                if code not in _TEMPORARY:
                    raise refusal(message)
                if message.get("id") != "ack":
                    raise ConnectError(f"error {code}: {text}")
                self._asked = []
                return True
            case {"T": "closing", "code": code, "msg": text}:
                self._announced = code
                if "retry_ms" in message:
                    self._session.backoff.advise(message["retry_ms"] / 1000)
                if code < FIRST_FINAL_CODE:
                    _tell(f"closing {code}: {text}, reconnecting")
            case {"T": _}:
                pass  # such as a heartbeat
            case _:
                raise ValueError("no message")
        return False

    def _show(self, message: dict[str, Any]) -> None:
        """Print an alert, and flush."""
        known = {name: value for name, value in message.items() if name in _FIELDS or name == "T"}
        got = msgspec.convert(known, messages.Alert)
        if got.id in self._pending:
            return  # it came again before its acknowledgement was settled
        alert = alert_of(got)
        if self._as_json:
            again = {"try": got.try_ if got.ack else None}
            print_flushed(json_line(alert_fields(alert, again)))
        else:
            alert = msgspec.structs.replace(
                alert, id=printable(got.id), rule=printable(got.rule), symbol=printable(got.S)
            )
            line = self._lines.line(alert.r_ns, alert, f"try {got.try_}" if got.try_ > 1 else "")
            if self._console.is_terminal:
                self._console.print(line)
            else:
                print_flushed(line.plain)
        if self._wanted.acknowledge:
            self._pending[got.id] = None


def alert_of(got: messages.Alert) -> Alert:
    """Return the alert in a message; its times are in whole microseconds."""
    return Alert(
        id=got.id,
        key=got.key,
        rule=got.rule,
        symbol=got.S,
        severity=got.sev,
        state=got.state,
        value=got.v,
        threshold=got.th,
        t_ns=got.t * US,
        r_ns=got.r * US,
        message=got.msg,
        suppressed=got.suppressed,
        to=got.to or None,
        data=None if got.data is msgspec.UNSET else got.data,
    )


def _messages_of(frame: str | bytes) -> list[dict[str, Any]]:
    """Return the messages of ``frame``, with integers of any size; raises one of BROKEN or DecodeError."""
    if isinstance(frame, str):
        return msgspec.json.decode(frame, type=list[dict[str, Any]])
    return messages_of(frame)


def _tell(text: str) -> None:
    print(f"marketfeed alerts tail: {printable(text)}", file=sys.stderr)
