"""Three engines and three NATS servers, killed and stopped in turn under load: no client has a hole untold.

MARKETFEED_PROVE=1 does so 200 times (MARKETFEED_STORM_ROUNDS: another number); the suite ten times.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from contextlib import ExitStack
from itertools import cycle, islice, product
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

from tests.support.nats import three_servers
from tests.support.storm import LEASE_S, Storm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.nats import NatsServer

pytestmark = pytest.mark.slow

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
ROUNDS = int(os.environ.get("MARKETFEED_STORM_ROUNDS", "200"))
SEED = os.environ.get("MARKETFEED_STORM_SEED", "storm")


class Fault(NamedTuple):
    """What is done, to an engine or a server; 0 is the engine that is the origin at that time."""

    kind: str  # kill; end: by SIGTERM; pause: stopped for less than the lease; freeze: for longer
    what: str
    number: int


SHORT = [
    Fault("kill", "engine", 0),
    Fault("kill", "server", 0),
    Fault("pause", "engine", 0),
    Fault("freeze", "server", 1),
    Fault("end", "engine", 0),
    Fault("pause", "server", 2),
    Fault("kill", "engine", 1),
    Fault("freeze", "engine", 0),
    Fault("kill", "server", 1),
    Fault("pause", "engine", 2),
]
ALL = [
    *(
        Fault(kind, "engine", number)
        for kind, number in product(("kill", "freeze", "pause", "end"), range(3))
    ),
    *(Fault(kind, "server", number) for kind, number in product(("kill", "freeze", "pause"), range(3))),
]


def faults(storm: Storm) -> Iterator[Fault]:
    """Return the faults of all rounds: each one in turn, in an order of the seed."""
    if not PROVE:
        return iter(SHORT)
    storm.chance.shuffle(ALL)
    return islice(cycle(ALL), ROUNDS)


def for_s(storm: Storm, fault: Fault) -> float:
    """Return how long a process is stopped, or gone."""
    if fault.kind == "freeze":
        return LEASE_S + storm.chance.uniform(0.2, 1.5)
    return storm.chance.uniform(0.2, 1.5)


async def suffer(storm: Storm, fault: Fault) -> None:
    """Do what ``fault`` says, wait, and undo it."""
    away_s = for_s(storm, fault)
    if fault.what == "server":
        server = storm.servers[fault.number]
        await stop_server(server, fault.kind, away_s)
        return
    node = (await storm.origin_first())[fault.number]
    if fault.kind in ("kill", "end"):
        how = signal.SIGKILL if fault.kind == "kill" else signal.SIGTERM
        await trio.to_thread.run_sync(node.end, how)
        await trio.sleep(away_s)
        await trio.to_thread.run_sync(node.start)
        return
    node.signal(signal.SIGSTOP)
    # For half of them like a machine that is gone: clients cannot stay.
    node.proxy.refusing = storm.chance.random() < 0.5
    if node.proxy.refusing:
        await trio.to_thread.run_sync(node.proxy.cut)
    await trio.sleep(away_s)
    node.signal(signal.SIGCONT)
    node.proxy.refusing = False


async def stop_server(server: NatsServer, kind: str, away_s: float) -> None:
    """Kill or stop a NATS server for so long."""
    if kind == "kill":
        server.kill()
        await trio.sleep(away_s)
        server.start()
        await trio.to_thread.run_sync(server.wait_until_ready)
        return
    server.pause()
    await trio.sleep(away_s)
    server.go_on()


async def move(storm: Storm) -> int:
    """Cut the clients of each node once while all is well: none is reset; return how many resumed."""
    before = [(mover.resets.total(), mover.witness.seen["resumed"]) for mover in storm.movers]
    for node in storm.nodes:
        await storm.cut(node)
    await storm.settle()
    after = [(mover.resets.total(), mover.witness.seen["resumed"]) for mover in storm.movers]
    assert [resets for resets, _ in after] == [resets for resets, _ in before], storm.movers
    resumed = sum(new - old for (_, new), (_, old) in zip(after, before, strict=True))
    assert resumed >= len(storm.movers)
    return resumed


async def test_a_storm_of_faults_leaves_no_silent_hole(tmp_path: Path, nursery: trio.Nursery) -> None:
    with three_servers(tmp_path) as servers, ExitStack() as stack:
        storm = Storm(tmp_path, servers, stack, SEED)
        number, fault = 0, None
        done: list[dict[str, Any]] = []
        silences_s: list[float] = []
        resumed = 0
        try:
            await storm.start()
            for task in (*(mover.run for mover in storm.movers), storm.cut_on):
                nursery.start_soon(task)
            origin = await storm.settle()
            for number, fault in enumerate(faults(storm), 1):
                heard = [len(mover.silences_s) for mover in storm.movers]
                began_s, epoch = time.monotonic(), origin["epoch"]
                # Frozen clients of a frozen engine cannot hear of it; the others are measured.
                storm.calm = fault.what == "engine" and fault.kind == "freeze"
                await suffer(storm, fault)
                storm.calm = True
                origin = await storm.settle()
                stale_s = [
                    round(silence_s, 2)
                    for mover, count in zip(storm.movers, heard, strict=True)
                    for silence_s in mover.silences_s[count:]
                ]
                silences_s += stale_s
                done.append({"took_s": time.monotonic() - began_s, "new": origin["epoch"] != epoch})
                print(
                    f"round {number}: {' '.join(map(str, fault))}, {done[-1]['took_s']:.1f} s, "
                    f"{origin['node']} {origin['epoch']}, stale after {stale_s}",
                    flush=True,
                )
                if number % 10 == 5:
                    resumed += await move(storm)
            await storm.quiet()
            storm.check()
        except BaseException as error:
            error.add_note(f"seed {SEED!r}, round {number}, {fault}\n{storm.logs()}")
            raise
        nursery.cancel_scope.cancel()
    seen = sum((mover.witness.seen for mover in storm.movers), start=type(storm.movers[0].witness.seen)())
    print(
        f"{number} rounds, {sum(one['new'] for one in done)} new epochs, {storm.cuts} cuts, {resumed} moved"
    )
    print(f"{dict(seen)}, {storm.book.compared} ticks compared, resets {[m.resets for m in storm.movers]}")
    if silences_s:
        print(f"stale after {statistics.median(silences_s):.2f} s, at most {max(silences_s):.2f} s")
    assert seen["resumed"] > 0
    assert seen["reset"] > 0
