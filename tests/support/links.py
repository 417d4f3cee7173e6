"""Links to real NATS servers, and what tests wait for on them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import nats
import trio

from marketfeed.cluster.link import open_link
from marketfeed.cluster.link_settings import LinkSettings
from marketfeed.cluster.link_state import LinkState
from marketfeed.errors import ClusterError

WAIT_S = 60
BUCKET = "mf_test"


def settings_of(*servers, name="test.a", bucket=None, replicas=1, queue_bytes=16 << 20, **further):
    urls = tuple(server.url for server in servers)
    return LinkSettings(urls, name, queue_bytes, bucket=bucket, replicas=replicas, **further)


async def until(condition):
    """Wait until ``condition`` holds."""
    with trio.fail_after(WAIT_S):
        while not condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def connected(settings, *subjects):
    """Open a link, and wait until it is connected and has subscribed."""
    async with open_link(settings) as link:
        for subject in subjects:
            link.subscribe(subject)
        await until(lambda: link.state is LinkState.CONNECTED)
        await link.flush()
        yield link


async def received(link, count):
    """Return the payloads of the next ``count`` messages."""
    found: list[bytes] = []
    with trio.fail_after(WAIT_S):
        while len(found) < count:
            found += [message.payload for message in await link.receive()]
    return found


async def eventually(work):
    """Return the result of ``work``, a function, once it raises no ClusterError."""
    with trio.fail_after(WAIT_S):
        while True:
            try:
                return await work()
            except ClusterError:
                await trio.sleep(0.05)


def raw(server, work):
    """Run ``work``, a coroutine function, with a plain client of nats-py, in a thread."""

    async def run():
        async with await nats.connect(server.url) as client:
            return await work(client)

    return trio.to_thread.run_sync(asyncio.run, run())
