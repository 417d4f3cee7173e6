"""picows (Cython) on uvloop: one ``send`` per quote and subscriber."""

import asyncio
import json

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from perf.engines.feed import INTERVAL_S, Feed, arguments

PORT, RATE, UNIVERSE = arguments()
SUBSCRIBERS: list[set[WSTransport]] = [set() for _ in range(UNIVERSE)]


class Session(WSListener):
    """Registers its transport in the set of each subscribed symbol."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.mine: list[int] = []

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.mine += [int(name[2:]) for name in json.loads(frame.get_payload_as_bytes())["quotes"]]
            for symbol in self.mine:
                SUBSCRIBERS[symbol].add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for symbol in self.mine:
            SUBSCRIBERS[symbol].discard(transport)


async def main() -> None:
    await ws_create_server(lambda request: Session(), "127.0.0.1", PORT, backlog=1024)
    print("ready", flush=True)
    feed, text = Feed(RATE, UNIVERSE), WSMsgType.TEXT
    while True:
        for symbol, message in feed.due():
            payload = message.encode()
            for transport in SUBSCRIBERS[symbol]:
                transport.send(text, payload)
        await asyncio.sleep(INTERVAL_S)


uvloop.run(main())
