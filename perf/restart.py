"""For how long does a session get nothing while the workers are replaced one by one?

    SIGHUP ──► engine ──► new worker ready ──► old one: `closing`, retry_ms ──► 500 clients come back
                                                  newcomers knock all the while ──► none may be refused

An interruption is the time between the last tick before the cut and the first one behind it, as the client
sees it, the feed's own silence included. Holes are looked for in `n`, over the cut.

Says: what a client that honours `retry_ms` and resumes by its cursor loses in time, and that it loses
nothing else.
Does not say: anything about clients that wait longer.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import signal
import time
from dataclasses import dataclass, field

import websockets

from perf import bench


@dataclass(slots=True)
class Tally:
    """What all clients together saw."""

    interruptions_s: list[float] = field(default_factory=list)
    returns: int = 0
    refused: int = 0
    holes: int = 0
    resets: int = 0
    visits: int = 0


async def roam(url: str, names: list[str], tally: Tally, synced: asyncio.Event) -> None:
    """Subscribe, follow ``n``, and come back by cursor whenever told to."""
    cursor, heard_s, last = "", 0.0, dict.fromkeys(names, 0)
    away = False
    while True:
        try:
            async with websockets.connect(url, compression=None, max_size=None) as ws:
                request = {"action": "subscribe", "quotes": names} | ({"after": cursor} if cursor else {})
                await ws.send(json.dumps(request))
                retry_ms = None
                async for text in ws:
                    for message in json.loads(text):
                        kind = message["T"]
                        if kind == "q":
                            now_s = time.monotonic()
                            if away:
                                away = False
                                tally.interruptions_s.append(now_s - heard_s)
                            heard_s = now_s
                            name, n = message["S"], message["n"]
                            if "snap" not in message:
                                tally.holes += bool(last[name]) and n != last[name] + 1
                                if cursor:
                                    cursor = f"{cursor.partition(':')[0]}:{message['g']}"
                            last[name] = n
                        elif kind == "synced":
                            cursor = message["cursor"]
                            synced.set()
                        elif kind == "subscription":
                            tally.resets += len(message.get("reset", ()))
                        elif kind == "closing":
                            retry_ms = message["retry_ms"]
        except (OSError, websockets.InvalidHandshake):
            tally.refused += 1
            continue
        tally.refused += retry_ms is None  # cut without a word
        tally.returns += 1
        away = True
        await asyncio.sleep((retry_ms or 0) / 1000)


async def knock(url: str, tally: Tally) -> None:
    """Connect, again and again."""
    while True:
        try:
            async with websockets.connect(url, compression=None) as ws:
                await ws.recv()
                tally.visits += 1
        except (OSError, websockets.WebSocketException):
            tally.refused += 1
        await asyncio.sleep(0.01)


async def measure(server: bench.Server, work: bench.Work) -> Tally:
    """Let clients live through one rolling restart."""
    tally = Tally()
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    tasks: list[asyncio.Task[None]] = []
    for i in range(work.sessions):
        names = [f"SY{(i * 7 + j * 131) % work.universe:04d}" for j in range(work.symbols)]
        synced = asyncio.Event()
        tasks.append(asyncio.create_task(roam(url, names, tally, synced)))
        await synced.wait()
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
            tally = asyncio.run(measure(server, work))
        if tally.holes or tally.refused or tally.resets:
            raise AssertionError(f"a rolling restart that was noticed: {tally}")
        waits = sorted(tally.interruptions_s)
        say(
            f"{number}. {work.sessions} sessions came back {tally.returns} times, {tally.visits} newcomers; "
            f"nothing for p50 {1000 * waits[len(waits) // 2]:.0f}, "
            f"p99 {1000 * waits[len(waits) * 99 // 100]:.0f}, at most {1000 * waits[-1]:.0f} ms; "
            "0 refused, 0 holes",
            highlight=False,
        )


if __name__ == "__main__":
    main()
