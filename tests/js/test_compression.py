"""marketfeed.js with compressed frames: those of core/compressed.py, in Node.js, and of a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import time
import zlib
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from marketfeed.client import connect
from marketfeed.core.binary import HEADER
from marketfeed.core.compressed import MAX_INFLATED_BYTES, compressed_frame
from marketfeed.fanout.compression import COMPRESS_MEMBERS
from tests.support.compression import CONFIG
from tests.support.js import PACKAGE, Program, program, with_parts
from tests.support.peers import need
from tests.support.process import engine
from tests.support.witness import Witness

if TYPE_CHECKING:
    from tests.support.process import Engine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WAIT_S = 60
ALL = {"quotes": ["*"], "trades": ["*"]}


def framed(payload: bytes, version: int = 1, kind: int = 6, more: int = 0) -> bytes:
    return HEADER.pack(version, kind, 0, len(payload) + more, 0) + payload


def deflated(text: bytes, level: int = 9) -> bytes:
    return zlib.compress(text, level, -zlib.MAX_WBITS)


def texts() -> list[str]:
    """Return texts of all sizes, whose characters and slices overlap in all ways."""
    noise = os.urandom(20_000).hex()
    every = "".join(map(chr, range(0x20, 0x3000))) + "\U0001f600" * 3000
    full = "[" + " " * (MAX_INFLATED_BYTES - 2) + "]"
    return ["[]", json.dumps([noise]), json.dumps([every], ensure_ascii=False), full]


def ticks(first: int, last: int) -> bytes:
    rows = [{"T": "q", "S": "A", "n": n, "g": n, "r": 1, "pad": "ä" * n} for n in range(first, last + 1)]
    return json.dumps(rows, ensure_ascii=False).encode()


def broken() -> dict[str, bytes]:
    """Return frames of kind 6 that no engine sends."""
    payload = deflated(json.dumps(list(range(1000))).encode())
    return {
        "of another version": framed(payload, version=2),
        "cut off": framed(payload)[:-1],
        "without its header": framed(payload)[:10],
        "longer than it says": framed(payload) + b"\0",
        "deflate that is cut off": framed(payload[:-5]),
        "deflate that is damaged": framed(b"\xff" * 100),
        "no payload": framed(b""),
        "not UTF-8": framed(deflated(b'["\xff"]')),
        "UTF-8 that is cut off": framed(deflated('["ä'.encode()[:-1])),
    }


def test_frames_of_the_engine_are_read_in_node(tmp_path):
    def text(frame: bytes) -> str:
        return b64encode(frame).decode()

    frames = {
        "whole": [[one, text(compressed_frame(one.encode(), 1))] for one in texts()],
        "broken": [[what, text(frame)] for what, frame in broken().items()],
        "bombs": [text(framed(deflated(b" " * size))) for size in (MAX_INFLATED_BYTES + 1, 64 << 20)],
        # Between two of them come two plain messages.
        "ticks": [
            [first, first + 97, text(compressed_frame(ticks(first, first + 97), 1))]
            for first in range(2, 500, 100)
        ],
    }
    (tmp_path / "frames.json").write_text(json.dumps(frames), "utf-8")
    paths = {
        "PARTS": str(with_parts(tmp_path)),
        "INFLATE": str(PACKAGE / "inflate.js"),
        "FRAMES": str(tmp_path / "frames.json"),
    }
    done = subprocess.run(
        [need("node"), "--test", Path(__file__).with_name("compression.test.mjs")],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "# fail 0" in done.stdout
    assert "# pass 14" in done.stdout


def until_compressed(feed: Program) -> dict[str, int]:
    """Wait until 20 more compressed frames have come; return how many bytes and characters there were."""
    before = feed.ask("inflated")
    end = time.monotonic() + WAIT_S
    while True:
        assert time.monotonic() < end
        time.sleep(0.1)
        after: dict[str, int] = feed.ask("inflated")
        if after["frames"] >= before["frames"] + 20:
            return {key: after[key] - before[key] for key in after}


def watched(running: Engine) -> None:
    """Run a feed in Node.js with compression through tiers and cuts; check what it got."""
    with program(f"http://127.0.0.1:{running.port}", inflate=True, subscribe=ALL) as feed:
        got = until_compressed(feed)
        assert got["bytes"] * 2 < got["characters"]
        for _ in range(2):
            before = len(feed.messages)
            feed.call("feed.setTier('vip')")
            feed.wait_for("tier", before, tier="vip")
            feed.call("feed.setTier(null)")
            feed.wait_for("tier", before, tier="premium")
            until_compressed(feed)
            before = len(feed.messages)
            feed.call("feed.cut()")
            assert feed.wait_for("resumed", before)["cursor"]
            until_compressed(feed)
        # The session of a consumer of alerts has no ticks, and so no compressed frames.
        feed.call("feed.alerts({ consumer: 'desk' }, () => {})")
        feed.wait_for("state", before, state="connected")
        figures = feed.ask("feed.statistics()")
    witness = Witness(ordered=False)
    for message in feed.messages:
        witness.see(message)
    assert (witness.silent, witness.seen["gap"], witness.seen["reset"], witness.seen["error"]) == (0,) * 4
    assert (figures["reconnects"], figures["lost"], figures["duplicates"]) == (2, 0, 0)


async def test_a_crowd_on_an_engine_gets_compressed_frames(tmp_path):
    options: dict[str, Any] = {**ALL, "compress": True}
    with engine(CONFIG, tmp_path) as running:
        async with trio.open_nursery() as nursery:

            async def member() -> None:
                async with connect(running.url, **options) as feed:
                    async for _ in feed.batches():
                        pass

            for _ in range(COMPRESS_MEMBERS + 1):
                nursery.start_soon(member)
            await trio.to_thread.run_sync(watched, running)
            nursery.cancel_scope.cancel()
