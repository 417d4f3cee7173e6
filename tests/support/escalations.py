"""Alerts to escalate, and an HTTP peer on loopback that answers as a test wants."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import trio

from marketfeed.alerts.alert import Alert, Severity, alert_id
from marketfeed.core.units import S

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

# A feed and a rule that raises one critical episode, which lasts.
EPISODE = """
[[feeds]]
type = "synthetic"
symbols = ["A"]
rate = 200
[[alerts.rules]]
name = "tight"
type = "spread"
severity = "critical"
absolute = 1e-9
"""
NOW_NS = 1_795_802_400 * S  # 2026-11-27T18:00:00Z


def raised(symbol: str = "AAPL", severity: Severity = "critical", at_ns: int = NOW_NS) -> Alert:
    key = alert_id("wide", symbol, "raised", at_ns, at_ns)
    return Alert(
        id=key, key=key, rule="wide", symbol=symbol, severity=severity, value=60.5, threshold=50.0,
        t_ns=at_ns, r_ns=at_ns + 1000, message=f"{symbol}: spread of 60.5 bps",
    )  # fmt: skip


def answer(status: int = 200, body: bytes = b"ok", **headers: str) -> bytes:
    """The bytes of a whole answer; headers with _ for -. ``content_length`` may lie."""
    given = {"content_length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([f"HTTP/1.1 {status} Told", *lines, "", ""]).encode() + body


class Peer:
    """Accepts POSTs on loopback and answers each with the next of ``answers``; the last one repeats.

    An answer is bytes, after which the connection is closed, or None: never answer.
    """

    def __init__(self, *answers: bytes | None, hold: bool = False) -> None:
        self.answers = list(answers)
        self.hold = hold  # leave the connection open after the answer
        self.requests: list[tuple[h11.Request, bytes]] = []
        self.port = 0

    def headers(self, index: int = -1) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.requests[index][0].headers}

    async def serve(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        body = b""
        request: Any = None
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    break
            if request is None:
                return  # closed before a request
            self.requests.append((request, body))
            told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if told is not None:
                await stream.send_all(told)
            if told is None or self.hold:
                await stream.receive_some()  # until the client leaves
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass
        finally:
            await trio.aclose_forcefully(stream) if self.hold else await stream.aclose()


@asynccontextmanager
async def listening(
    peer: Peer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """Serve ``peer`` on a port of ``host`` that the kernel chooses."""
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            await peer.serve(
                trio.SSLStream(stream, tls, server_side=True, https_compatible=True) if tls else stream
            )

        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host=host))
        peer.port = listeners[0].socket.getsockname()[1]
        yield peer
        nursery.cancel_scope.cancel()
