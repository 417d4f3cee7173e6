"""How many quotes per second does marketfeed.js take in Chromium?

    frames, encoded before ──► WebSocket ──► marketfeed.js: parse, check numbers, book, one listener
                                └───────────── headless Chromium, one tab ─────────────┘

Says: quotes per second that the module takes in a page that does nothing else, per encoding. The sender
shares the machine. Does not say: anything about drawing, or about the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from playwright.async_api import async_playwright
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from marketfeed.core.binary import messages_frame, quotes_frame, symbols_frame
from marketfeed.core.records import QUOTE
from tests.support.chromium import ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULE: Final = Path(__file__).parents[1] / "js" / "marketfeed.js"
SYMBOLS: Final = [f"SY{number:04}" for number in range(1000)]
PER_FRAME: Final = 100
ENGINE: Final = {
    "version": "perf",
    "default_tier": "vip",
    "tiers": [{"tier": "vip", "interval_ms": 0, "delivery": "every"}],
}
RUN: Final = """async ([encoding, quotes]) => {
  const { connect } = await import("/marketfeed.js");
  const feed = connect("/", { encoding, share: false });
  let count = 0, spread = 0, began = 0;
  await new Promise((resolve) => {
    feed.subscribe({ quotes: ["*"] }, (m) => {
      if (m.T !== "q") return;
      if (!count++) began = performance.now();
      spread += m.ap - m.bp; // as a grid would, read the prices
      if (count === quotes) resolve();
    });
  });
  const ms = performance.now() - began;
  const { gaps, duplicates } = feed.statistics();
  feed.close();
  return { ms, count, gaps, duplicates, spread };
}"""


def frames_of(encoding: str, quotes: int) -> list[str | bytes]:
    """Return all frames: of every symbol in turn, numbered."""
    frames: list[str | bytes] = []
    now_ns = time.time_ns()
    for first in range(0, quotes, PER_FRAME):
        g = np.arange(first, min(first + PER_FRAME, quotes))
        records = np.zeros(len(g), QUOTE)
        records["ts_event"] = records["ts_recv"] = now_ns
        records["g"] = g + 1
        records["n"] = g // len(SYMBOLS) + 1
        records["symbol"] = g % len(SYMBOLS)
        records["bid_px"] = 100_000_000_000 + g % 977 * 10_000_000
        records["ask_px"] = records["bid_px"] + 10_000_000
        records["bid_sz"] = records["ask_sz"] = 100.0
        frames.append(quotes_frame(records, now_ns) if encoding == "binary" else _json(records))
    return frames


def _json(records: Any) -> str:
    rows = [
        {
            "T": "q", "S": SYMBOLS[row["symbol"]],
            "bp": float(row["bid_px"] / 1e9), "bs": float(row["bid_sz"]),
            "ap": float(row["ask_px"] / 1e9), "as": float(row["ask_sz"]), "t": int(row["ts_event"]) // 1000,
            "r": int(row["ts_recv"]) // 1000, "n": int(row["n"]), "g": int(row["g"]),
        }
        for row in records
    ]  # fmt: skip
    return orjson.dumps(rows).decode()


class Sender:
    """A server of the module, and of one session at a time."""

    def __init__(self) -> None:
        self.frames: Sequence[str | bytes] = ()

    async def respond(self, _: ServerConnection, request: Request) -> Response | None:
        """Answer what is not a WebSocket."""
        found = {
            "/": ("text/html", b"<!doctype html><title>perf</title>"),
            "/marketfeed.js": ("text/javascript", MODULE.read_bytes()),
            "/v1/engine": ("application/json", json.dumps(ENGINE).encode()),
        }
        path = request.path.partition("?")[0]
        if path == "/v1/stream":
            return None
        kind, body = found.get(path, ("text/plain", b""))
        head = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
        return Response(HTTPStatus.OK, "OK", head, body)

    async def session(self, ws: ServerConnection) -> None:
        """Answer the subscription, then send all frames as fast as they are taken."""
        first = {"T": "success", "msg": "connected", "protocol": 1, "epoch": "perf", "session": "perf"}
        await ws.send(json.dumps([first]))
        request = json.loads(await ws.recv())
        encoding = request.get("encoding", "json")
        names = {"quotes": ["*"], "trades": [], "alerts": []}
        answers = [
            {"T": "subscription", **names, "tier": "vip", "encoding": encoding, "id": request["id"]},
            {"T": "synced", "cursor": "perf:0", "id": request["id"]},
        ]
        if encoding == "binary":
            ids = {name: number for number, name in enumerate(SYMBOLS)}
            now_ns = time.time_ns()
            await ws.send(
                symbols_frame(ids, now_ns) + messages_frame([orjson.dumps(a) for a in answers], now_ns)
            )
        else:
            await ws.send(json.dumps(answers))
        for frame in self.frames:
            await ws.send(frame)
        await ws.wait_closed()


async def measure(encodings: Sequence[str], quotes: int, rounds: int) -> None:
    """Print the median rate of each encoding, over alternating rounds."""
    sender = Sender()
    rates: dict[str, list[float]] = {encoding: [] for encoding in encodings}
    async with (
        serve(sender.session, "127.0.0.1", 0, process_request=sender.respond, compression=None) as server,
        async_playwright() as playwright,
    ):
        port = server.sockets[0].getsockname()[1]
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
        for _ in range(rounds):
            for encoding in encodings:
                sender.frames = frames_of(encoding, quotes)
                page = await browser.new_page()
                await page.goto(f"http://127.0.0.1:{port}/")
                found = await page.evaluate(RUN, [encoding, quotes])
                await page.close()
                # A benchmark that lost quotes measured something else.
                assert (found["count"], found["gaps"], found["duplicates"]) == (quotes, 0, 0), found
                rates[encoding].append(quotes / found["ms"] * 1000)
        await browser.close()
    for encoding, found in rates.items():
        print(
            f"{encoding:8} {statistics.median(found):10,.0f} quotes/s"
            f"   ({min(found):,.0f} to {max(found):,.0f}, {rounds} rounds of {quotes:,})"
        )


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quotes", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encoding", choices=["json", "binary"], action="append")
    given = parser.parse_args()
    asyncio.run(measure(given.encoding or ["json", "binary"], given.quotes, given.rounds))


if __name__ == "__main__":
    main()
