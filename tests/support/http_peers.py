"""An HTTP server on an in-memory stream, and its client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from trio.testing import memory_stream_pair

from marketfeed.gateway.http import HttpServer, Request, Response, Rules, json_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def echo(request: Request) -> Response:
    return json_response(
        [request.method, request.path, request.query, request.body.decode(), request.address]
    )


async def late(request: Request) -> Response:
    """Answer after 10 s, unless the client disconnects."""
    with trio.move_on_after(10) as waiting:
        await request.wait_gone()
    return json_response("in time" if waiting.cancelled_caught else "gone")


async def broken(request: Request) -> Response:
    raise RuntimeError("broken on purpose")


ROUTES = {
    "/echo": {"GET": echo, "POST": echo},
    "/late": {"GET": late},
    "/broken": {"GET": broken},
}


class Peer:
    """Client end of a served connection."""

    def __init__(self, stream: trio.StapledStream, server: HttpServer) -> None:
        self.stream = stream
        self.server = server
        self.got = b""

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return the next answer: status, headers by lower-case name, body."""
        while b"\r\n\r\n" not in self.got:
            await self._more()
        head, _, self.got = self.got.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(self.got) < size:
            await self._more()
        body, self.got = self.got[:size], self.got[size:]
        return int(first.split()[1]), headers, body

    async def _more(self) -> None:
        more = await self.stream.receive_some()
        assert more, f"ended after {self.got!r}"
        self.got += more

    async def ended(self) -> bool:
        return self.got == b"" and await self.stream.receive_some() == b""


@asynccontextmanager
async def served(
    rules: Rules | None = None, peer: str = "192.0.2.1", server: HttpServer | None = None
) -> AsyncIterator[Peer]:
    """Yield a client of ``server``, by default one of ROUTES with ``rules``."""
    server = server or HttpServer(ROUTES, rules or Rules(head_s=5.0, body_bytes=100))
    client, ours = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await server.serve(ours, peer)
            await ours.aclose()

        nursery.start_soon(serve)
        with trio.fail_after(200):
            yield Peer(client, server)
        nursery.cancel_scope.cancel()


async def asked(data: bytes, rules: Rules | None = None) -> tuple[int, dict[str, str], bytes]:
    async with served(rules) as peer:
        await peer.stream.send_all(data)
        return await peer.answer()
