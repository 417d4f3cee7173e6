"""SIGHUP: what may change does so under the eyes of live sessions; what may not changes nothing."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.crowd import Roamer, Session, join, metrics, workers
from tests.support.process import Engine, engine, open_session

if TYPE_CHECKING:
    from pathlib import Path

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
BEFORE = """
[tiers.vip]
[tiers.premium]
interval_ms = 100
[tiers.basic]
interval_ms = 500
[[feeds]]
name = "stays"
type = "synthetic"
symbols = ["A", "B"]
rate = 500
[[feeds]]
name = "goes"
type = "synthetic"
symbols = ["C"]
rate = 100
"""
AFTER = (
    BEFORE.replace("interval_ms = 100", "interval_ms = 50").replace('"goes"', '"comes"').replace('"C"', '"D"')
)
ALL = {"action": "subscribe", "quotes": ["*"], "trades": ["*"]}


def reload(running: Engine, folder: Path, config: str, event: str) -> dict[str, object]:
    """Have the engine read ``config``; return the log entry that says what came of it."""
    seen = sum(entry["event"] == event for entry in list(running.log))
    (folder / "config.toml").write_text(config)
    running.process.send_signal(signal.SIGHUP)
    while True:
        told = [entry for entry in list(running.log) if entry["event"] == event]
        if len(told) > seen:
            return told[-1]
        assert running.process.poll() is None
        running._reader.join(0.01)


async def test_in_one_process_only_sessions_of_changed_tiers_come_back(tmp_path):
    with trio.fail_after(60), engine(BEFORE, tmp_path) as running:
        async with trio.open_nursery() as nursery:
            (vip,) = await join(nursery, running, 1, ALL)
            premium = Session(running.port, {**ALL, "tier": "premium"})
            premium.follower.every = False
            nursery.start_soon(premium.run)
            await premium.synced.wait()
            told = reload(running, tmp_path, AFTER, "reloaded")
            assert told["changed"] == ["tiers", "feeds"]
            await premium.ended.wait()
            assert premium.closing is not None
            assert premium.closing["code"] == 1001
            assert premium.closing["retry_ms"] < 1000
            await vip.go_on(200)
            while ("q", "D") not in vip.follower.last:  # the new feed's symbol joins by its pattern
                await vip.go_on(1)
            found = metrics(running)
            assert found["marketfeed_feed_state", "comes", "live"] == 1
            assert ("marketfeed_feed_state", "goes", "live") not in found
            assert not vip.ended.is_set()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("count", [0, 2])
def test_new_limits_hold_for_whoever_comes_afterwards(tmp_path, count):
    with engine(BEFORE, tmp_path, "--set", f"engine.workers={count}") as running:
        reload(running, tmp_path, BEFORE + "[limits]\nsymbols_per_session = 1\n", "reloaded")
        with open_session(running.url) as ws:
            ws.send(json.dumps({"action": "subscribe", "quotes": ["A", "B"], "id": 1}))
            (answer,) = json.loads(ws.recv())
            assert (answer["T"], answer["code"]) == ("error", 405)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (AFTER + "[gateway]\nhost = '127.0.0.2'\n[engine]\ndrain_s = 1.0\n", "engine.drain_s, gateway.host"),
        (AFTER + "[engine]\nring_depth = 2048\n", "engine.ring_depth"),
        (AFTER + "[limits\n", "not TOML"),
        (AFTER + "[limits]\nsession = 1\n", "limits.session: unknown key"),
        (AFTER + "[[feeds]]\ntype = 'synthetic'\nrate = -1\n", "feeds.2.rate"),
        (AFTER + "[[feeds]]\ntype = 'nope'\n", "feeds.2.type"),
    ],
)
@pytest.mark.parametrize("count", [0, 2])
async def test_what_cannot_change_live_changes_nothing(tmp_path, config, reason, count):
    if count and "limits" in config:  # what both make of it is the same
        return
    with trio.fail_after(60), engine(BEFORE, tmp_path, "--set", f"engine.workers={count}") as running:
        async with trio.open_nursery() as nursery:
            (session,) = await join(nursery, running, 1, ALL)
            pids = workers(running)
            told = reload(running, tmp_path, config, "reload refused, nothing changed")
            assert reason in str(told["reason"])
            await session.go_on(200)
            assert ("q", "D") not in session.follower.last
            assert workers(running) == pids
            assert metrics(running)["marketfeed_feed_state", "goes", "live"] == 1
            nursery.cancel_scope.cancel()
        assert running.stop() == 0


async def settled(running: Engine, roamers: list[Roamer]) -> None:
    """Wait until each is served again and has had ticks."""
    for roamer in roamers:
        wanted = roamer.follower.count + 20
        while roamer.follower.count < wanted:
            await trio.sleep(0.01)


@pytest.mark.parametrize(("count", "signals"), [(3, 1), (2, 3)])
async def test_a_rolling_restart_closes_every_session_once(tmp_path, count, signals):
    """Worker 0 has most sessions: those that go last would take what it sends away."""
    config = BEFORE.replace("rate = 500", "rate = 50")
    with trio.fail_after(240), engine(config, tmp_path, "--set", f"engine.workers={count}") as running:
        leaving = trio.Event()

        async def visit(session: Session) -> None:
            async with trio.open_nursery() as stay:
                stay.start_soon(session.run)
                await leaving.wait()
                stay.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            roamers: list[Roamer] = []
            for number in range(8 * count):  # connections go to the workers in turn
                if number % count == 0:
                    roamers.append(Roamer(running.port, {"quotes": ["*"], "trades": ["*"]}))
                    nursery.start_soon(roamers[-1].run)
                    await roamers[-1].synced.wait()
                else:
                    visitor = Session(running.port, ALL)
                    nursery.start_soon(visit, visitor)
                    await visitor.synced.wait()
            roamers.append(Roamer(running.port, {"quotes": ["A"]}))  # one for a worker that goes later
            leaving.set()
            while metrics(running)["marketfeed_sessions", "vip", "websocket"] > 8:
                await trio.sleep(0.05)
            nursery.start_soon(roamers[-1].run)
            await roamers[-1].synced.wait()
            pids = set(workers(running))
            for _ in range(signals):
                running.process.send_signal(signal.SIGHUP)
                while not pids - set(workers(running)) and set(workers(running)) == pids:
                    await trio.sleep(0.02)
            events = [entry["event"] for entry in running.log]
            while events.count("reloaded") < min(signals, 2) or "reloading" not in events:
                await trio.sleep(0.05)
                events = [entry["event"] for entry in list(running.log)]
            await settled(running, roamers)
            assert [roamer.returns for roamer in roamers] == [1] * len(roamers)
            assert events.count("reloading") == 1
            assert len(workers(running)) == count
            assert not pids & set(workers(running))
            assert metrics(running)["marketfeed_lost_total", "vip"] == 0
            nursery.cancel_scope.cancel()
        assert running.stop() == 0


@pytest.mark.alone
async def test_a_rolling_restart_refuses_nobody_and_nobody_misses_a_tick(tmp_path):
    # Few ticks, as all clients are one process: one that cannot keep up hears no farewell.
    count, rates = (500, ("rate = 5", "rate = 5")) if PROVE else (40, ("rate = 50", "rate = 100"))
    before, after = (
        config.replace("rate = 500", rates[0]).replace("rate = 100", rates[1]) for config in (BEFORE, AFTER)
    )
    with trio.fail_after(120), engine(before, tmp_path, "--set", "engine.workers=2") as running:
        async with trio.open_nursery() as nursery:
            roamers = [Roamer(running.port, {"quotes": ["*"], "trades": ["*"]}) for _ in range(count)]
            for roamer in roamers:
                nursery.start_soon(roamer.run)
            for roamer in roamers:
                await roamer.synced.wait()
            pids = set(workers(running))

            async def keep_coming() -> None:
                while True:
                    session = Session(running.port, ALL)
                    async with trio.open_nursery() as visit:
                        visit.start_soon(session.run)
                        await session.begun()
                        visit.cancel_scope.cancel()
                    assert session.synced.is_set() or session.closing is not None, "refused"

            nursery.start_soon(keep_coming)
            await trio.to_thread.run_sync(reload, running, tmp_path, after, "reloaded")
            assert len(workers(running)) == 2
            assert not pids & set(workers(running))
            for roamer in roamers:
                while not roamer.returns:
                    await trio.sleep(0.01)
            wanted = [roamer.follower.count + 50 for roamer in roamers]
            for roamer, count in zip(roamers, wanted, strict=True):
                while roamer.follower.count < count:
                    await trio.sleep(0.01)
                assert roamer.resets == 0
            found = metrics(running)
            assert found["marketfeed_worker_restarts_total",] == 0
            assert found["marketfeed_lost_total", "vip"] == 0
            nursery.cancel_scope.cancel()
        assert running.stop() == 0
