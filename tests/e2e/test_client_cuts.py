"""marketfeed.client: cuts, kills and restarts at random leave no hole untold, and nothing comes twice.

    engine ◄── proxy ◄── feed.py, on each front ── messages ──► Witness
       ▲ kills, restarts  ▲ cuts

MARKETFEED_PROVE=1 disturbs 500 times in all; the suite 16 times. tests/js/test_cuts.py: with marketfeed.js.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.blocking_proxy import blocking_proxy
from tests.support.crowd import workers as worker_pids
from tests.support.lines import WAIT_S, Lines
from tests.support.peers import ROOT
from tests.support.ports import free_port
from tests.support.process import engine
from tests.support.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

CASES = [
    ("trio", "json", "vip", 0),
    ("asyncio", "binary", "vip", 2),
    ("blocking", "json", "premium", 2),
    ("trio", "binary", "vip", 0),
]
DISTURBANCES = (500 if os.environ.get("MARKETFEED_PROVE") else 16) // len(CASES)
KINDS = ("cut", "cut", "cut", "cut", "restart", "kill")
CONFIG = """
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 30
rate = 2000
trades = 0.2
"""


class Feed:
    """A process with a feed, and the messages that it has printed."""

    def __init__(self, front: str, url: str, options: dict[str, Any]) -> None:
        argv = [sys.executable, "-m", "tests.support.feed", front, url, json.dumps(options)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        self._lines: Lines[dict[str, Any]] = Lines(self.process, json.loads)
        self.messages, self.wait = self._lines.all, self._lines.wait

    def close(self) -> None:
        """End the process by the end of its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(WAIT_S)
        self._lines.close()


def comes(kind: str, after: int, more: int = 1) -> Callable[[list[dict[str, Any]]], bool]:
    """Return whether ``more`` messages of a kind have come since message number ``after``."""
    return lambda messages: sum(message["T"] == kind for message in messages[after:]) >= more


@pytest.mark.parametrize(("front", "encoding", "tier", "workers"), CASES)
def test_random_cuts_kills_and_restarts_leave_no_silent_hole(tmp_path, front, encoding, tier, workers):
    chance, done = random.Random(f"{front}{encoding}{tier}"), Counter[str]()
    port = free_port()
    own = ("--set", f"gateway.port={port}", "--set", f"engine.workers={workers}")
    options = {
        "quotes": ["*"],
        "trades": ["SY000*"],
        "tier": tier,
        "encoding": encoding,
        "retry_s": [0.05, 0.3],
    }
    with blocking_proxy(port) as proxy:
        running = engine(CONFIG, tmp_path, *own)
        life = running.__enter__()
        feed = Feed(front, f"http://127.0.0.1:{proxy.port}", options)
        try:
            feed.wait(comes("synced", 0))
            for _ in range(DISTURBANCES):
                kind = chance.choice(KINDS)
                done[kind] += 1
                before = len(feed.messages)
                if kind == "cut":
                    proxy.cut()
                else:
                    life.stop(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
                    running.__exit__(None, None, None)
                    running = engine(CONFIG, tmp_path, *own)
                    life = running.__enter__()
                feed.wait(comes("disconnected", before))
                feed.wait(comes("synced", before))
                feed.wait(comes("q", len(feed.messages), chance.randrange(1, 300)))
        finally:
            feed.close()
            running.__exit__(None, None, None)
    assert feed.process.returncode == 0
    witness = Witness()
    for message in feed.messages:
        witness.see(message)
    print(f"{front} {encoding} {tier}: {dict(done)}, {dict(witness.seen)}, not announced {witness.silent}")
    assert witness.seen["disconnected"] >= sum(done.values())
    assert witness.seen["reset"] >= done["kill"] + done["restart"]
    assert witness.seen["resumed"] >= min(done["cut"], 1)
    assert witness.silent == 0  # nothing between engine and client loses ticks


def test_a_worker_that_is_killed_cuts_its_feeds_alone_and_they_resume(tmp_path):
    options = {"quotes": ["*"], "tier": "vip", "retry_s": [0.05, 0.3]}
    with engine(CONFIG, tmp_path, "--set", "engine.workers=2") as running:
        url = f"http://127.0.0.1:{running.port}"
        feeds = [Feed(front, url, options) for front in ("trio", "asyncio")]  # one for each worker
        try:
            for feed in feeds:
                feed.wait(comes("q", 0, 100))
            before = [len(feed.messages) for feed in feeds]
            os.kill(worker_pids(running)[0], signal.SIGKILL)
            for feed, after in zip(feeds, before, strict=True):
                feed.wait(comes("q", after, 3000))
        finally:
            for feed in feeds:
                feed.close()
    seen = []
    for feed in feeds:
        witness = Witness()
        for message in feed.messages:
            witness.see(message)
        assert witness.silent == witness.seen["reset"] == 0
        seen.append((witness.seen["disconnected"], witness.seen["resumed"]))
    assert sorted(seen) == [(0, 0), (1, 1)]
