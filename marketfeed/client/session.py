"""A WebSocket session that reconnects after every end, except those that are final."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
import trio
import trio_websocket

from marketfeed.client.connection import RECEIVE_BYTES, THEIR_ENDS, Endpoint, Stream
from marketfeed.client.unreachable import leaf, plainly
from marketfeed.core.backoff import Backoff
from marketfeed.core.binary import FrameParser, Kind
from marketfeed.core.printable import printable
from marketfeed.errors import CloseCode, ConnectError, ErrorCode, MarketfeedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FIRST_FINAL_CODE: Final = 4500  # close codes from here on: the same request would be refused again
FIRST_RETRY_S: Final = 0.5
MAX_RETRY_S: Final = 10.0
NO_TOKEN: Final = "this engine asks for a key or token: MARKETFEED_TOKEN or --token"
CLOSE_S: Final = 2.0  # for the engine's close frame


class FinalError(MarketfeedError):
    """The engine refused the request, and would refuse it again."""


class KeptSession:
    """A session over successive connections to ``engine``.

    ``use(ws)`` is called with each open connection, and runs until it returns or the connection ends. It
    raises FinalError for errors that a new connection would not fix. ``lost(why, code)`` is called after
    each end that is not final, with the close code if there was one, before the delay of ``backoff``.
    """

    def __init__(
        self,
        engine: Endpoint,
        use: Callable[[trio_websocket.WebSocketConnection], Awaitable[None]],
        lost: Callable[[str, int | None], None],
        backoff: Backoff | None = None,
        receive_bytes: int = RECEIVE_BYTES,
    ) -> None:
        self.backoff = backoff or Backoff(FIRST_RETRY_S, MAX_RETRY_S)
        self.connected = False  # whether a connection has been open
        self._engine, self._use, self._lost = engine, use, lost
        self._receive_bytes = receive_bytes
        self._stopped = False
        self._waiting: trio.CancelScope | None = None

    def stop(self) -> None:
        """Close the open connection, if any, and do not reconnect."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def run(self) -> BaseException | None:
        """Run until the session ends for good; return None if stopped, else the error.

        The error is a FinalError, or what kept the first connection from opening.
        """
        while True:
            ended = await self._once()
            if self._stopped:
                return None
            code = None
            if isinstance(ended, trio_websocket.ConnectionClosed):
                code, said = _reason(ended)
                if code >= FIRST_FINAL_CODE:
                    return FinalError(f"closed {code}: {said}")
                why = f"closed {code} ({said})"
            elif isinstance(ended, FinalError) or not self.connected:
                return ended
            else:
                why = "ended" if ended is None else plainly(ended)
            self._lost(why, code)
            with trio.CancelScope() as self._waiting:
                if not self._stopped:
                    await trio.sleep(self.backoff.next_s())
            self._waiting = None

    async def _once(self) -> BaseException | None:
        """Run one connection until it ends; return the error that ended it, if any."""
        stream: Stream | None = None
        ended: BaseException | None = None
        try:
            with trio.CancelScope() as self._waiting:
                stream = await self._engine.connect()
            if stream is None:  # stop() was called while connecting
                return None
            # Not open_websocket_url: it leaves its socket open when the server closes first.
            async with stream, trio.open_nursery() as nursery:
                ws = None
                with trio.CancelScope() as self._waiting:
                    ws = await self._engine.websocket(nursery, stream, self._receive_bytes)
                    self.connected = True
                try:
                    with trio.CancelScope() as self._waiting:
                        if ws is not None and not self._stopped:
                            await self._use(ws)
                finally:
                    self._waiting = None
                    with trio.move_on_after(CLOSE_S, shield=True):  # also if cancelled
                        if ws is not None:
                            await ws.aclose()
                    nursery.cancel_scope.cancel()  # the library's reader task may wait forever
        except* (FinalError, *THEIR_ENDS) as group:
            ended = leaf(group)
        return ended


def refusal(message: dict[str, Any]) -> MarketfeedError:
    """Return the error for an `error` message: a ConnectError if a later connection may fare better."""
    if message["code"] == ErrorCode.NOT_AUTHENTICATED:
        return FinalError(NO_TOKEN)
    text = printable(f"error {message['code']}: {message['msg']}")
    return ConnectError(text) if message["code"] == ErrorCode.INTERNAL else FinalError(text)


def _reason(closed: trio_websocket.ConnectionClosed) -> tuple[int, str]:
    """Return the close code and its text."""
    if closed.reason is None:
        return CloseCode.ABNORMAL, "connection lost"
    return closed.reason.code, closed.reason.reason or closed.reason.name.lower().replace("_", " ")


def messages_of(frame: str | bytes) -> list[dict[str, Any]]:
    """Return the messages of ``frame``, without ticks of binary frames; raises one of BROKEN.

    A session gets binary frames until the answer to a request for JSON, if that is the engine's default.
    """
    if isinstance(frame, str):
        messages: list[dict[str, Any]] = orjson.loads(frame)
        return messages
    parser = FrameParser()
    parser.feed(frame)
    return [message for part in parser if part.kind is Kind.MESSAGES for message in part.messages()]
