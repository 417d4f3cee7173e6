"""``marketfeed`` whose WebSocket sessions send back each message, for test suites of WebSockets.

Listener, HTTP, handshake, limits, outbox, reader, pings and closes are those of ``marketfeed serve``; only
the requests of :class:`WebSocketSession` are replaced. Run as ``python -m tests.support.echo_engine serve``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.cli import main
from marketfeed.fanout.ws_frames import BINARY, TEXT, frame
from marketfeed.gateway import routes
from marketfeed.gateway.websocket import WebSocketSession
from marketfeed.gateway.ws_reader import WebSocketClosedError

if TYPE_CHECKING:
    from marketfeed.errors import CloseCode
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.gateway.outbox import Outbox


class EchoSession(WebSocketSession):
    """Sends back each message, as the shard sends frames."""

    def _connected(self) -> bytes:
        return b""

    async def _read(self, outbox: Outbox, member: Subscriber) -> CloseCode | None:
        assert self._reader is not None
        while True:
            try:
                message = await self._reader.message()
            except WebSocketClosedError as closed:
                self._farewell = closed.farewell
                return closed.code
            if isinstance(message, str):
                outbox.offer(frame(TEXT, message.encode()))
            else:
                outbox.offer(frame(BINARY, message))
            await outbox.wait_send_all_might_not_block()


if __name__ == "__main__":
    routes.WebSocketSession = EchoSession  # type: ignore[attr-defined]
    main()
