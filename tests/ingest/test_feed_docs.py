"""The feed of a WebSocket venue in docs/feeds.md publishes what the venue sends, and tells its end."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio_websocket

from marketfeed.errors import FeedProtocolError

PAGE = Path(__file__).parents[2] / "docs/feeds.md"


def shown() -> dict[str, Any]:
    """Return the names that the page's feed defines."""
    names: dict[str, Any] = {}
    block = PAGE.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    exec(compile(block, str(PAGE), "exec"), names)
    return names


# trio-websocket leaves a socket to the garbage collector when the server closes first.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_feed_of_the_page_publishes_prices_and_tells_a_closed_venue():
    async def venue(request):
        ws = await request.accept()
        await ws.send_message('{"bid": 101250000000, "ask": 101270000000}')
        await ws.aclose(1001, "maintenance")

    page = shown()
    got = []
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(trio_websocket.serve_websocket, venue, "127.0.0.1", 0, None))
        config = page["CoinConfig"](url=f"ws://127.0.0.1:{server.port}/")
        feed = page["CoinFeed"](config, SimpleNamespace(symbol={"BTC-USD": 7}.get))
        with pytest.raises(FeedProtocolError, match=r"the venue closed: .*maintenance"):
            await feed.run(got.append)
        nursery.cancel_scope.cancel()
    gc.collect()
    (batch,) = got
    (quote,) = batch.quotes
    assert [int(quote[field]) for field in ("symbol", "bid_px", "ask_px", "bid_sz", "ask_sz")] == [
        7,
        101_250_000_000,
        101_270_000_000,
        1,
        1,
    ]
