"""A running engine changes its epoch: no client misses the change, and nothing of the old life stays."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio

from marketfeed.builder import Beginning
from marketfeed.client import Closing, Connected, Quote, Reset, Source, Synced, connect, publisher
from marketfeed.core.records import QUOTE, TRADE, Batch, Records
from marketfeed.core.writer import RingWriter
from marketfeed.errors import EngineGoneError, StartError
from marketfeed.gateway.cluster_view import STALE
from marketfeed.shm.tap import tap
from tests.support.crowd import Roamer, Session
from tests.support.running_engine import asked, ring_files, running_engine, samples_of

if TYPE_CHECKING:
    from marketfeed.engine import Engine
    from marketfeed.server.life import Life

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
BOTH = pytest.mark.parametrize("workers", [0, 2])
NAMES = {"quotes": ["A", "B"]}
FEED = """
[[feeds]]
name = "demo"
type = "synthetic"
symbols = ["A", "B"]
rate = 500
"""
PUSH = """
[[feeds]]
name = "push"
type = "push"
listen = "./push.sock"
"""


def config(workers: int, feeds: str = FEED, more: str = "") -> str:
    return f"""
[engine]
workers = {workers}
tap = "./tap.sock"
max_symbols = 64
ring_depth = 1024
{more}
{feeds}
"""


def newest(life: Life) -> None:
    """Write a quote of C, as the newest tick of another node."""
    assert life.writer is not None
    life.writer.write(Batch(quote_of(life.symbols.intern("C")), np.zeros(0, TRADE)))


def quote_of(symbol: int) -> Records:
    records = np.zeros(1, QUOTE)
    records["symbol"], records["bid_px"], records["bid_sz"] = symbol, 10**9, 1
    records["ts_recv"] = time.time_ns()
    return records


@BOTH
async def test_sessions_come_back_to_the_new_epoch(tmp_path, workers):
    with trio.fail_after(120):
        async with running_engine(config(workers), tmp_path) as engine, trio.open_nursery() as nursery:
            roamer = Roamer(engine.port, NAMES)
            nursery.start_soon(roamer.run)
            await roamer.synced.wait()
            first = engine.lives.now.epoch
            roamer.synced = trio.Event()
            life = await engine.succession.exchange(Beginning("second", ["B", "A", "C"], fill=newest))
            assert life.epoch == engine.lives.rings.epoch == "second" != first
            assert life.symbols.names() == ["B", "A", "C"]
            await roamer.synced.wait()
            count = roamer.follower.count
            while roamer.follower.count < count + 100:
                await trio.sleep(0.01)
            assert roamer._cursor is not None
            assert roamer._cursor.startswith("second:")
            assert (roamer.returns, roamer.resets) == (1, 2)
            found = await samples_of(engine)
            assert found["marketfeed_accepted_total",] == 2
            assert found["marketfeed_closes_total", "1001"] == 1
            assert found["marketfeed_epoch_info", "second"] == 1
            assert found["marketfeed_epochs_total",] == 1
            assert found["marketfeed_delivered_total", "vip"] >= count + 100
            assert found["marketfeed_feed_state", "demo", "live"] == 1
            assert (await asked(engine, "/v1/engine"))[1]["epoch"] == "second"
            assert [row["S"] for row in (await asked(engine, "/v1/quotes?symbols=C"))[1]] == ["C"]
            nursery.cancel_scope.cancel()


@BOTH
@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_feed_of_the_python_client_is_told_each_step(tmp_path, workers, encoding):
    with trio.fail_after(120):
        async with (
            running_engine(config(workers), tmp_path) as engine,
            connect(f"http://127.0.0.1:{engine.port}", quotes=["A"], encoding=encoding) as feed,
        ):
            kinds: list[type] = []
            async for message in feed:
                kinds.append(type(message))
                if isinstance(message, Synced) and message.cursor.startswith("second:"):
                    break
                if isinstance(message, Synced):
                    await engine.succession.exchange(Beginning("second"))
            after = kinds[kinds.index(Closing) :]
            assert [kind for kind in after if kind in (Closing, Connected, Reset, Synced)] == [
                Closing, Connected, Reset, Synced,
            ]  # fmt: skip
            async for message in feed:
                if isinstance(message, Quote) and message.n > 3:
                    break
            assert feed.epoch == "second"
            assert feed.statistics().silently_lost == 0


@BOTH
async def test_event_streams_and_polls_go_on_from_their_cursors(tmp_path, workers):
    with trio.fail_after(120):
        async with running_engine(config(workers), tmp_path) as engine:
            _, answer, _ = await asked(engine, "/v1/poll?quotes=A&timeout_s=30")
            await engine.succession.exchange(Beginning("second"))
            _, told, _ = await asked(engine, f"/v1/poll?quotes=A&after={answer['cursor']}&timeout_s=30")
            assert told["resumed"] is False
            assert told["reset"] == ["A"]
            assert told["cursor"].startswith("second:")
            stream = await trio.open_tcp_stream("127.0.0.1", engine.port)
            line = f"GET /v1/events?quotes=A HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {answer['cursor']}\r\n\r\n"
            await stream.send_all(line.replace("Host: x", f"Host: 127.0.0.1:{engine.port}").encode())
            text = b""
            while b'"synced"' not in text:
                text += await stream.receive_some()
            assert b'"reset":["A"]' in text
            await engine.succession.exchange(Beginning("third"))
            while more := await stream.receive_some():
                text += more
            assert b'"T":"closing","code":1001' in text
            await stream.aclose()


async def test_taps_of_the_old_epoch_end_and_new_ones_have_the_new_rings(tmp_path):
    with trio.fail_after(60):
        async with running_engine(config(0), tmp_path) as engine:
            path = tmp_path / "tap.sock"
            with await trio.to_thread.run_sync(tap, path) as old:
                first = engine.lives.now.epoch
                while len(old.latest()) < 2:
                    await trio.sleep(0.01)
                await engine.succession.exchange(Beginning("second"))

                def read_on() -> None:
                    for _ in old.follow(timeout_s=5.0):
                        """Until the end."""

                with pytest.raises(EngineGoneError):
                    await trio.to_thread.run_sync(read_on)
                assert old.epoch == first
                assert len(old.latest()) == 2  # its rings stay readable
            with await trio.to_thread.run_sync(tap, path) as new:
                assert new.epoch == "second"
                assert await trio.to_thread.run_sync(new.wait, 10.0)
            while len(engine.taps):
                await trio.sleep(0.01)


async def test_publishers_go_on(tmp_path):
    with trio.fail_after(60):
        async with (
            running_engine(config(0, PUSH), tmp_path) as engine,
            publisher(str(tmp_path / "push.sock")) as out,
        ):
            await out.wait_connected()
            for number, epoch in enumerate(["", "second", "third"]):
                if epoch:
                    await engine.succession.exchange(Beginning(epoch))
                while engine.lives.rings.head() < 3:
                    out.quote("X", bid=number + 1, bid_size=1, ask=9, ask_size=1)
                    await trio.sleep(0.02)
                assert engine.lives.symbols.names() == ["X"]
            assert (await samples_of(engine))["marketfeed_ticks_total", "quotes", "push"] >= 9


async def test_alerts_stay_and_rules_go_on(tmp_path):
    rule = '[[alerts.rules]]\nname = "any"\ntype = "spread"\nabsolute = 1e-9\n'
    with trio.fail_after(60):
        async with running_engine(config(0, FEED, rule), tmp_path) as engine:
            seen: list[tuple[str, str]] = []
            async with connect(f"http://127.0.0.1:{engine.port}") as feed:
                exchanged = False
                async for alert in feed.alerts("any", consumer="c"):
                    seen.append((alert.S, alert.state))
                    if not exchanged and {("A", "raised"), ("B", "raised")} <= set(seen):
                        exchanged = True
                        await engine.succession.exchange(Beginning("second"))
                    if seen.count(("A", "raised")) >= 2 and seen.count(("B", "raised")) >= 2:
                        break
            assert seen.count(("A", "cleared")) >= 1
            watcher = engine.alerting.watcher
            assert watcher is not None
            assert watcher.raised["any", "raised"] >= 4  # over both lives


@BOTH
async def test_feeds_run_in_the_life_of_an_origin_alone(tmp_path, workers):
    with trio.fail_after(120):
        async with running_engine(config(workers), tmp_path, origin=False) as engine:
            assert engine.lives.roster.supervisors == []
            mirror = await engine.succession.exchange(Beginning("mirror", ["A", "B"], origin=False))
            assert mirror.writer is None
            assert (mirror.rings.head(), engine.lives.roster.supervisors) == (0, [])
            assert mirror.symbols.names() == ["A", "B"]
            engine.reloads.ask()  # a reload checks the feeds, and runs none
            origin = await engine.succession.exchange(Beginning("origin", mirror.symbols.names()))
            while origin.rings.head() < 10:
                await trio.sleep(0.01)
            mirror = await engine.succession.exchange(Beginning("again", origin=False))
            head = origin.rings.head()
            assert engine.lives.roster.supervisors == []
            await trio.sleep(0.05)
            assert (origin.rings.head(), mirror.rings.head()) == (head, 0)


@BOTH
async def test_the_life_of_a_mirror_is_written_from_outside(tmp_path, workers):
    writers: list[RingWriter] = []
    with trio.fail_after(120):
        async with running_engine(config(workers), tmp_path, origin=False) as engine:
            fill = lambda life: writers.append(RingWriter(life.rings, time.time_ns))  # noqa: E731
            await engine.succession.exchange(Beginning("mirror", ["A"], origin=False, fill=fill))
            async with connect(f"http://127.0.0.1:{engine.port}", quotes=["A", "B"]) as feed:
                found: list[tuple[str, int]] = []
                async for message in feed:
                    if isinstance(message, Synced):
                        engine.lives.symbols.intern("B")
                        for symbol in (0, 1):
                            writers[0].write(Batch(quote_of(symbol), np.zeros(0, TRADE)))
                        engine.wake()
                    elif isinstance(message, Quote):
                        found.append((message.S, message.n))
                        if len(found) == 2:
                            break
            assert found == [("A", 1), ("B", 1)]


async def test_an_exchange_that_fails_changes_nothing(tmp_path, monkeypatch):
    with trio.fail_after(60):
        async with running_engine(config(0), tmp_path) as engine, trio.open_nursery() as nursery:
            session = Session(engine.port, {"action": "subscribe", **NAMES})
            nursery.start_soon(session.run)
            await session.synced.wait()
            before, files = engine.lives.now, ring_files()
            with pytest.raises(ValueError, match="an epoch must be"):
                await engine.succession.exchange(Beginning("not valid"))

            def refuse(_: object) -> None:
                raise StartError("no")

            with pytest.raises(StartError):
                await engine.succession.exchange(Beginning("second", fill=refuse))
            assert engine.lives.now is before
            await session.go_on(100)  # the feeds run again
            while ring_files() != files:
                engine.lives.collector.collect_all()
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def exchange_with_a_session(engine: Engine, epoch: str) -> None:
    async with trio.open_nursery() as nursery:
        session = Session(engine.port, {"action": "subscribe", **NAMES})
        nursery.start_soon(session.run)
        await session.synced.wait()
        await engine.succession.exchange(Beginning(epoch))


@BOTH
async def test_nothing_of_twenty_lives_stays(tmp_path, workers):
    with trio.fail_after(300):
        async with running_engine(config(workers), tmp_path) as engine:
            before = ring_files()
            for number in range(20 if PROVE or not workers else 3):
                await exchange_with_a_session(engine, f"e{number}")
            while len(engine.lives) or ring_files() != before:
                await trio.sleep(0.05)
            assert (await engine.lives.statistics()).accepted == number + 1


@BOTH
async def test_the_state_of_the_source_reaches_sessions_of_all_lives(tmp_path, workers):
    with trio.fail_after(120):
        async with (
            running_engine(config(workers), tmp_path) as engine,
            connect(f"http://127.0.0.1:{engine.port}", quotes=["A"]) as feed,
        ):
            told: list[tuple[str, str]] = []
            async for message in feed:
                match message:
                    case Synced() if not told:
                        engine.source_state("s0", "stale")
                    case Source():
                        told.append((feed.epoch, message.state))
                        if len(told) == 1:
                            assert (await asked(engine, "/v1/quotes?symbols=A"))[2]["x-source"] == STALE[0][1]
                            assert (await asked(engine, "/v1/nodes"))[1][0]["state"] == "stale"
                            assert (await samples_of(engine))["marketfeed_source_stale", "s0"] == 1
                            await engine.succession.exchange(Beginning("second"))
                        elif len(told) == 2:
                            engine.source_state("s0", "live")
                        else:
                            break
            assert [state for _, state in told] == ["stale", "stale", "live"]
            assert told[1][0] == told[2][0] == "second"
            assert feed.source == "live"
