"""Compression from a running engine to marketfeed.client: a crowd that shares frames, and one that is cut."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio

from marketfeed.client import RequestRefusedError, Resumed, connect
from marketfeed.fanout.compression import COMPRESS_MEMBERS
from tests.support.blocking_proxy import blocking_proxy
from tests.support.compression import CONFIG
from tests.support.process import engine
from tests.support.witness import Witness

WAIT_S = 60


class Watcher:
    """A feed with compression; sizes of its messages as they came and as they were read."""

    def __init__(self, feed) -> None:
        self.feed = feed
        self.witness = Witness(every=True)
        self.texts = 0  # bytes
        self.resumed = 0

    async def run(self) -> None:
        async for batch in self.feed.batches():
            assert isinstance(batch.data, str) or not batch.data  # decompressed, or made by the client
            self.texts += len(batch.data)
            for message in batch.in_order():
                self.resumed += isinstance(message, Resumed)
                self.witness.see(json.loads(msgspec.json.encode(message)))

    async def until_compressed(self) -> None:
        """Wait until at most half of the bytes that come are the text's."""
        while True:
            texts, received = self.texts, self.feed.statistics().received_bytes
            await trio.sleep(0.5)
            more = self.texts - texts
            if more > 20_000 and (self.feed.statistics().received_bytes - received) * 2 < more:
                return


@pytest.mark.slow
async def test_a_crowd_gets_compressed_frames_and_a_cut_session_resumes_among_them(tmp_path):
    with engine(CONFIG, tmp_path) as running, blocking_proxy(running.port) as proxy:
        options: dict[str, Any] = {"quotes": ["*"], "trades": ["*"], "compress": True}
        async with trio.open_nursery() as nursery:

            async def member() -> None:
                async with connect(running.url, **options) as feed:
                    async for _ in feed.batches():
                        pass

            for _ in range(COMPRESS_MEMBERS):
                nursery.start_soon(member)
            retry_s = (0.05, 0.3)
            async with connect(f"http://127.0.0.1:{proxy.port}", retry_s=retry_s, **options) as feed:
                watcher = Watcher(feed)
                nursery.start_soon(watcher.run)
                with trio.fail_after(WAIT_S):
                    await watcher.until_compressed()
                    for number in range(3):
                        proxy.cut()
                        while watcher.resumed <= number:
                            await trio.sleep(0.01)
                        await watcher.until_compressed()
                    # The feed counts a batch when it arrives, the watcher when it has read it.
                    while watcher.witness.seen["q"] != (statistics := feed.statistics()).quotes:
                        await trio.sleep(0.001)
                assert watcher.witness.silent == statistics.silently_lost == statistics.duplicates == 0
                assert statistics.quotes > 1000
                with pytest.raises(RequestRefusedError, match="tier vip has no interval"):
                    await feed.set_tier("vip")
                nursery.cancel_scope.cancel()
