"""marketfeed.js in Node.js: cuts, kills and restarts at random leave no hole untold, and nothing comes twice.

    engine ◄── kills, restarts ── test ── cut, another transport ──► feed.mjs ── messages ──► Witness

MARKETFEED_PROVE=1 disturbs 500 times; the suite 15 times.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.js import program
from tests.support.ports import free_port
from tests.support.process import Engine
from tests.support.witness import Witness

if TYPE_CHECKING:
    from tests.support.js import Program

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DISTURBANCES = 500 if os.environ.get("MARKETFEED_PROVE") else 15
CONFIG = """
[limits]
requests_per_s = 10000
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 30
rate = 1000
trades = 0.2
"""
KINDS = ("cut", "cut", "cut", "use", "use", "restart", "kill")
WAYS = ("auto", "auto", "websocket", "events", "poll", "quotes")


def quotes(feed: Program, after: int, more: int) -> None:
    """Wait until ``more`` quotes have come since message number ``after``."""
    feed.wait(lambda all_: sum(m["T"] == "q" for m in all_[after:]) > more)


@pytest.mark.parametrize("encoding", ["json", "binary"])
def test_random_cuts_kills_and_restarts_leave_no_silent_hole(tmp_path, encoding):
    chance = random.Random(encoding)
    port, done = free_port(), Counter[str]()
    (tmp_path / "config.toml").write_text(CONFIG)
    own = (
        "--config",
        str(tmp_path / "config.toml"),
        "--set",
        f"gateway.port={port}",
        "--set",
        "admin.port=0",
    )
    engine = Engine(*own, cwd=tmp_path)
    options = {
        "encoding": encoding,
        "retryMs": [50, 500],
        "subscribe": {"quotes": ["*"], "trades": ["SY000*"]},
    }
    try:
        with program(f"http://127.0.0.1:{port}", **options) as feed:
            feed.wait_for("synced")
            for _ in range(DISTURBANCES // 2 + 1):
                kind = chance.choice(KINDS)
                done[kind] += 1
                before = len(feed.messages)
                if kind == "cut":
                    feed.call("feed.cut()")
                elif kind == "use":
                    feed.call(f"feed.use({chance.choice(WAYS)!r})")
                else:
                    engine.stop(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
                    engine.close()
                    engine = Engine(*own, cwd=tmp_path)
                # An engine that is back before the next short poll was never missed.
                feed.wait_for("reset" if kind in ("restart", "kill") else "resumed", before)
                quotes(feed, before, chance.randrange(1, 300))
            figures = feed.ask("feed.statistics()")
    finally:
        engine.close()
    witness = Witness(ordered=False)
    for message in feed.messages:
        witness.see(message)
    restarts = done["kill"] + done["restart"]
    print(f"{encoding}: {dict(done)}, {dict(witness.seen)}, not announced {witness.silent}, {figures}")
    assert witness.seen["resumed"] >= sum(done.values()) - restarts
    assert witness.seen["reset"] >= restarts
    assert 0 < figures["ticks"] <= witness.seen["q"] + witness.seen["t"]
