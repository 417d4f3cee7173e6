"""A feed of marketfeed.client that prints each message as a line of JSON, until its standard input ends.

python -m tests.support.feed trio|asyncio|blocking URL OPTIONS     (OPTIONS: arguments of connect, as JSON)
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Any

import msgspec
import trio

from marketfeed.client import connect, stream


def tell(message: Any) -> None:
    """Print a message."""
    print(msgspec.json.encode(message).decode(), flush=True)


def run_blocking(url: str, options: dict[str, Any]) -> None:
    """Run until the input ends."""
    feed = stream(url, **options)

    def follow() -> None:
        for message in feed:
            tell(message)

    following = threading.Thread(target=follow)
    following.start()
    sys.stdin.read()
    feed.close()
    following.join()


async def run_trio(url: str, options: dict[str, Any]) -> None:
    """Run until the input ends."""
    async with connect(url, **options) as feed, trio.open_nursery() as nursery:

        async def end() -> None:
            await trio.to_thread.run_sync(sys.stdin.read)
            feed.close()

        nursery.start_soon(end)
        async for message in feed:
            tell(message)


async def run_asyncio(url: str, options: dict[str, Any]) -> None:
    """Run until the input ends."""
    async with connect(url, **options) as feed:

        async def end() -> None:
            await asyncio.to_thread(sys.stdin.read)
            feed.close()

        ending = asyncio.create_task(end())
        async for message in feed:
            tell(message)
        await ending


def main() -> None:
    """Run the program."""
    front, url, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if front == "trio":
        trio.run(run_trio, url, options)
    elif front == "asyncio":
        asyncio.run(run_asyncio(url, options))
    else:
        run_blocking(url, options)


if __name__ == "__main__":
    main()
