"""marketfeed.js in Node.js with two engines, of which the first sends its clients to the second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.js import program
from tests.support.running_engine import running_engine

if TYPE_CHECKING:
    from pathlib import Path

    from marketfeed.engine import Engine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CONFIG = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 20\nrate = 200\n'


def url_of(engine: Engine) -> str:
    return f"http://127.0.0.1:{engine.port}"


async def with_two(folder: Path, way: str, *, nodes: bool, expected: str) -> None:
    """Drain the first of two engines while a feed is connected to it; the feed goes on with ``expected``."""

    def use(first: Engine, second: Engine) -> None:
        # With a tier, events do not begin again once the engine's tiers are known.
        options = {"transport": way, "nodes": nodes, "tier": "vip", "subscribe": {"quotes": ["*"]}}
        with program(url_of(first), **options) as feed:
            feed.wait_for("synced")
            trio.from_thread.run_sync(first.lives.elsewhere, [url_of(second)])
            trio.from_thread.run_sync(first.source_state, "s0", "stale")
            feed.wait_for("source", state="stale")
            before = len(feed.messages)
            trio.from_thread.run(first.lives.drain, 10.0)
            assert feed.wait_for("closing", before)["url"] == url_of(second)
            if expected == "second":
                feed.wait_for("connected", before, epoch=second.lives.now.epoch)
                feed.wait_for("source", before, state="live")
                feed.wait_for("q", len(feed.messages))
                assert feed.ask("feed.source.state") == "live"
                assert feed.ask("feed.request('/v1/engine')")["epoch"] == second.lives.now.epoch
            else:
                feed.wait_for("state", before, state="connecting")
                assert not any(m.get("epoch") == second.lives.now.epoch for m in feed.messages)

    folders = [folder / name for name in ("first", "second")]
    for one in folders:
        one.mkdir()
    with trio.fail_after(120):
        async with running_engine(CONFIG, folders[0]) as first, running_engine(CONFIG, folders[1]) as second:
            await trio.to_thread.run_sync(use, first, second)


@pytest.mark.parametrize("way", ["websocket", "events"])
async def test_a_feed_goes_where_the_engine_sends_it(tmp_path, way):
    await with_two(tmp_path, way, nodes=True, expected="second")


async def test_without_the_option_it_stays_at_its_url(tmp_path):
    await with_two(tmp_path, "websocket", nodes=False, expected="first")
