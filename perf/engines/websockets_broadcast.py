"""websockets on uvloop: one ``broadcast()`` per quote to the symbol's subscribers."""

import asyncio
import json

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from perf.engines.feed import INTERVAL_S, Feed, arguments


async def main() -> None:
    port, rate, universe = arguments()
    subscribers: list[set[ServerConnection]] = [set() for _ in range(universe)]

    async def session(connection: ServerConnection) -> None:
        mine: list[int] = []
        try:
            async for request in connection:
                mine += [int(name[2:]) for name in json.loads(request)["quotes"]]
                for symbol in mine:
                    subscribers[symbol].add(connection)
        finally:
            for symbol in mine:
                subscribers[symbol].discard(connection)

    async with serve(session, "127.0.0.1", port, compression=None, ping_interval=None, backlog=1024):
        print("ready", flush=True)
        feed = Feed(rate, universe)
        while True:
            for symbol, message in feed.due():
                broadcast(subscribers[symbol], message)
            await asyncio.sleep(INTERVAL_S)


uvloop.run(main())
