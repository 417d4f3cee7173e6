"""How long is a session interrupted while the workers are replaced one by one?

    SIGHUP ──► engine ──► new worker ready ──► old one: `closing`, retry_ms ──► 500 clients come back
                                                  newcomers connect meanwhile ──► none may be refused

An interruption is the time between the last tick before the disconnect and the first one after it, as the
client sees it, including silence of the feed. Holes are detected in `n` across the disconnect.

Reports: the interruption of a client that honours `retry_ms` and resumes by its cursor; fails if it misses a
tick. The clients are picows on uvloop, in one process: a client in pure Python would be the bottleneck at
10,000 ticks/s and 250 reconnects per second. Not covered: clients that wait longer.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import uvloop
from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from perf import bench

KNOCK_S: Final = 0.01


@dataclass(slots=True)
class Tally:
    """Counts over all clients."""

    interruptions_s: list[float] = field(default_factory=list)
    returns: int = 0
    refused: int = 0
    holes: int = 0
    resets: int = 0
    visits: int = 0


class Roamer(WSListener):
    """A subscriber that checks ``n`` across reconnects."""

    def __init__(self, names: list[str], tally: Tally) -> None:
        self._tally = tally
        self._names = names
        self._last = dict.fromkeys(names, 0)
        self._epoch = self._g = ""
        self._heard_s = 0.0
        self._away = False
        self.retry_ms: int | None = None
        self.synced = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Subscribe, from the cursor if there is one."""
        request: dict[str, object] = {"action": "subscribe", "quotes": self._names}
        if self._epoch:
            request["after"] = f"{self._epoch}:{self._g}"
        self.retry_ms = None
        transport.send(WSMsgType.TEXT, orjson.dumps(request))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle the messages of a frame, or the closing frame."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            for message in orjson.loads(frame.get_payload_as_memoryview()):
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["T"]
        if kind == "q":
            now_s = time.monotonic()
            if self._away:
                self._away = False
                self._tally.interruptions_s.append(now_s - self._heard_s)
            self._heard_s = now_s
            name, n = message["S"], message["n"]
            if "snap" not in message:
                self._tally.holes += bool(self._last[name]) and n != self._last[name] + 1
                self._g = message["g"]
            self._last[name] = n
        elif kind == "synced":
            self._epoch, _, self._g = message["cursor"].partition(":")
            self.synced.set()
        elif kind == "subscription":
            self._tally.resets += len(message.get("reset", ()))
        elif kind == "closing":
            self.retry_ms = message["retry_ms"]

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Count how the connection ended; one without a closing handshake counts as refused."""
        self._away = True
        self._tally.returns += 1
        self._tally.refused += self.retry_ms is None


async def roam(url: str, roamer: Roamer, tally: Tally) -> None:
    """Subscribe, and resume by cursor after every `closing`."""
    while True:
        try:
            transport, _ = await ws_connect(lambda: roamer, url)
        except (OSError, WSError):
            tally.refused += 1
            continue
        await transport.wait_disconnected()
        await asyncio.sleep((roamer.retry_ms or 0) / 1000)


class Visitor(WSListener):
    """A client that disconnects after its first frame."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Count the visit and disconnect."""
        if frame.msg_type == WSMsgType.TEXT:
            self._tally.visits += 1
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()


async def knock(url: str, tally: Tally) -> None:
    """Connect repeatedly."""
    while True:
        visits = tally.visits
        try:
            transport, _ = await ws_connect(lambda: Visitor(tally), url)
            await transport.wait_disconnected()
        except (OSError, WSError):
            pass
        tally.refused += visits == tally.visits
        await asyncio.sleep(KNOCK_S)


async def measure(server: bench.Server, work: bench.Work) -> Tally:
    """Run the clients through one rolling restart."""
    tally = Tally()
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    tasks: list[asyncio.Task[None]] = []
    for i in range(work.sessions):
        names = [f"SY{(i * 7 + j * 131) % work.universe:04d}" for j in range(work.symbols)]
        roamer = Roamer(names, tally)
        tasks.append(asyncio.create_task(roam(url, roamer, tally)))
        await roamer.synced.wait()
    tasks.append(asyncio.create_task(knock(url, tally)))
    before = set(server.pids()[1:])
    await asyncio.sleep(work.warm_s)
    server.process.send_signal(signal.SIGHUP)
    while before & set(server.pids()[1:]):
        await asyncio.sleep(0.05)
        for task in tasks:
            if task.done():
                task.result()
    await asyncio.sleep(work.seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return tally


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.restart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1000, help="quotes/s offered")
    options = parser.parse_args()
    work = bench.work_of(options)
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    start = functools.partial(bench.marketfeed, universe=work.universe, engine=f"workers = {options.workers}")
    for number in range(1, options.rounds + 1):
        with start(options.rate) as server:
            tally = uvloop.run(measure(server, work))
        if tally.holes or tally.refused or tally.resets:
            raise AssertionError(f"clients were refused or missed ticks: {tally}")
        waits = sorted(tally.interruptions_s)
        say(
            f"{number}. {work.sessions} sessions resumed {tally.returns} times, {tally.visits} newcomers; "
            f"interruption p50 {1000 * waits[len(waits) // 2]:.0f}, "
            f"p99 {1000 * waits[len(waits) * 99 // 100]:.0f}, at most {1000 * waits[-1]:.0f} ms; "
            "0 refused, 0 holes",
            highlight=False,
        )


if __name__ == "__main__":
    main()
