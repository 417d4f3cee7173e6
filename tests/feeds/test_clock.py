"""Replay feeds that share a clock: common start and pace, ticks in order of recorded time."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import ConfigError
from marketfeed.ingest.clock import MAX_PLAYED_BATCHES
from marketfeed.ingest.pump import Pump
from marketfeed.ingest.roster import Roster
from marketfeed.ingest.supervise import FeedState

BASE_MS = 1_709_900_000_000


class Engine:
    """Feeds run by a roster, over rings that hold all ticks; records the time of each batch."""

    def __init__(self, folder):
        self.rings = Rings.private(8, 4096, epoch="e1")
        self.symbols = SymbolTable(8)
        self.published_at_s = []
        self.pump = Pump(RingWriter(self.rings), self.symbols, self._note, lambda: 1)
        self.sessions = []
        self.enough = trio.Event()
        self.roster = Roster(self.pump, folder, self._wait_sessions)

    def _note(self):
        more = self.rings.head() - len(self.published_at_s)
        self.published_at_s += [trio.current_time()] * more

    def grant(self, room):
        """Grant feeds ``room`` ticks at a time; count their requests."""
        self.asked = 0

        async def wait_room():
            await trio.lowlevel.checkpoint()
            self.asked += 1
            return room

        self.pump.wait_room = wait_room

    async def _wait_sessions(self, count):
        self.sessions.append(count)
        await self.enough.wait()

    @asynccontextmanager
    async def running(self, *tables):
        async with trio.open_nursery() as nursery:
            self.roster.plan(list(tables))
            await self.roster.apply(nursery)
            yield nursery
            nursery.cancel_scope.cancel()

    async def to_the_end(self, *tables):
        async with trio.open_nursery() as nursery:
            self.roster.plan(list(tables))
            await self.roster.apply(nursery)

    def ticks(self):
        """Return (symbol, ms after BASE_MS) of all ticks in order of g."""
        found = []
        for channel in (QUOTES, TRADES):
            for symbol, name in enumerate(self.symbols.names()):
                upto = self.rings.published_of(channel, np.array([symbol]))
                read = self.rings.read(channel, np.array([symbol]), upto * 0, upto, self.rings.head())
                found += [(int(r["g"]), name, int(r["ts_event"]) // 10**6 - BASE_MS) for r in read.records]
        return [(name, ms) for _, name, ms in sorted(found)]


def quotes(folder, *at_ms, name="q"):
    (folder / f"{name}.csv").write_text("".join(f"{BASE_MS + at},1,2\n" for at in at_ms))
    return table(name, bid=1, ask=2)


def trades(folder, *at_ms, name="t"):
    (folder / f"{name}.csv").write_text("".join(f"{BASE_MS + at},1,2\n" for at in at_ms))
    return table(name, price=1, size=2)


def table(name, **columns):
    return {
        "name": name, "type": "replay", "format": "csv", "path": f"{name}.csv", "symbol": name,
        "columns": {"time": 0, **columns}, "time": "ms", "clock": "day",
    }  # fmt: skip


async def test_feeds_of_one_clock_begin_at_the_earliest_first_row_of_all(autojump_clock, tmp_path):
    engine = Engine(tmp_path)
    await engine.to_the_end(quotes(tmp_path, 7000, 7500, 9000), trades(tmp_path, 0, 7200, 9000))
    assert engine.ticks() == [("t", 0), ("q", 7000), ("t", 7200), ("q", 7500), ("q", 9000), ("t", 9000)]
    assert engine.published_at_s == pytest.approx([0, 7, 7.2, 7.5, 9, 9])


async def test_feeds_without_a_clock_begin_at_their_own_first_rows(autojump_clock, tmp_path):
    engine = Engine(tmp_path)
    tables = [quotes(tmp_path, 7000, 7500), trades(tmp_path, 0, 7200)]
    await engine.to_the_end(*[{**table, "clock": ""} for table in tables])
    assert engine.published_at_s == pytest.approx([0, 0, 0.5, 7.2])


times = st.lists(st.integers(0, 400), max_size=40).map(sorted)


@pytest.mark.slow
@given(
    files=st.lists(times, min_size=1, max_size=4),
    speed=st.sampled_from([0, 0, 1, 1000]),
    room=st.sampled_from([1, 3, 4096]),
)
def test_ticks_of_all_feeds_come_in_order_of_recorded_time_at_any_speed(files, speed, room, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clock")
    files = [at_ms for at_ms in files if at_ms]
    tables = [
        {**(quotes if number % 2 else trades)(folder, *at_ms, name=f"f{number}"), "speed": speed}
        for number, at_ms in enumerate(files)
    ]
    expected = sorted(
        (at, number, position) for number, at_ms in enumerate(files) for position, at in enumerate(at_ms)
    )
    engine = Engine(folder)
    engine.grant(room)
    trio.run(engine.to_the_end, *tables, clock=trio.testing.MockClock(autojump_threshold=0))
    assert engine.ticks() == [(f"f{number}", at) for at, number, _ in expected]


async def test_long_recordings_are_interleaved_exactly_at_speed_0(autojump_clock, tmp_path):
    rng = random.Random(1)
    a, b = (sorted(rng.sample(range(100_000), 3000)) for _ in "ab")
    engine = Engine(tmp_path)
    await engine.to_the_end(quotes(tmp_path, *a) | {"speed": 0}, trades(tmp_path, *b) | {"speed": 0})
    ticks = engine.ticks()
    assert len(ticks) == 6000
    assert [ms for _, ms in ticks] == sorted(a + b)
    assert trio.current_time() == 0


async def test_at_speed_0_feeds_that_alternate_take_many_turns_at_once(autojump_clock, tmp_path):
    """A task switch and a flush per batch would make two feeds 24 times as slow as one."""
    engine = Engine(tmp_path)
    engine.grant(256)
    tables = quotes(tmp_path, *range(0, 6000, 2)), trades(tmp_path, *range(1, 6000, 2))
    await engine.to_the_end(*[table | {"speed": 0} for table in tables])
    assert [ms for _, ms in engine.ticks()] == list(range(6000))
    assert engine.asked <= 2 * 6000 / MAX_PLAYED_BATCHES


async def test_a_loop_begins_anew_for_all_when_the_last_has_ended(autojump_clock, tmp_path):
    engine = Engine(tmp_path)
    tables = [quotes(tmp_path, 0, 1000), trades(tmp_path, 500, 3000)]
    async with engine.running(*[{**table, "loop": True} for table in tables]):
        await trio.sleep(6.75)
    assert engine.ticks() == [("q", 0), ("t", 500), ("q", 1000), ("t", 3000)] * 2 + [("q", 0), ("t", 500)]
    assert engine.published_at_s == pytest.approx([0, 0.5, 1, 3, 3, 3.5, 4, 6, 6, 6.5])


async def test_all_feeds_of_a_clock_wait_for_the_sessions_of_any(autojump_clock, tmp_path):
    engine = Engine(tmp_path)
    tables = [quotes(tmp_path, 0, 1000), trades(tmp_path, 500) | {"start_sessions": 3}]
    async with engine.running(*tables):
        await trio.sleep(100)
        assert engine.sessions == [3, 3]
        assert {one.state() for one in engine.roster.supervisors} == {FeedState.STARTING}
        engine.enough.set()
        await trio.sleep(2)
    assert engine.published_at_s == pytest.approx([100, 100.5, 101])


async def test_a_recording_that_cannot_be_read_to_its_end_holds_no_other_up(autojump_clock, tmp_path):
    engine = Engine(tmp_path)
    broken, good = quotes(tmp_path, 0, 1000), trades(tmp_path, 500, 3000)
    engine.roster.plan([broken, good])
    (tmp_path / "q.csv").unlink()  # between the start and the first read
    async with trio.open_nursery() as nursery:
        await engine.roster.apply(nursery)
        await trio.sleep(20)
        (tmp_path / "q.csv").write_text(f"{BASE_MS},1,2\n")
    assert ("t", 3000) in engine.ticks()


async def test_a_feed_that_is_added_joins_at_the_present(autojump_clock, tmp_path):
    engine = Engine(tmp_path)
    first = quotes(tmp_path, *range(0, 10_000, 1000))
    async with engine.running(first) as nursery:
        await trio.sleep(4.5)
        engine.roster.plan([first, trades(tmp_path, 500, 3500, 5500, 8500)])
        await engine.roster.apply(nursery)
        await trio.sleep(20)
    ticks = engine.ticks()
    assert [ms for name, ms in ticks if name == "t"] == [5500, 8500]
    assert [ms for _, ms in ticks] == sorted(ms for _, ms in ticks)
    assert engine.pump.feeds[1].events == {"before_clock": 2}
    assert engine.published_at_s[-1] == pytest.approx(9)


async def test_a_feed_that_is_removed_lets_the_others_go_on(autojump_clock, tmp_path):
    engine = Engine(tmp_path)
    kept, gone = quotes(tmp_path, 0, 1000, 9000), trades(tmp_path, 500, 5000)
    async with engine.running(kept, gone) as nursery:
        await trio.sleep(2)
        engine.roster.plan([kept])
        await engine.roster.apply(nursery)
        await trio.sleep(20)
    assert engine.ticks() == [("q", 0), ("t", 500), ("q", 1000), ("q", 9000)]
    assert engine.published_at_s[-1] == pytest.approx(9)


async def test_a_recording_without_ticks_holds_no_other_up(autojump_clock, tmp_path):
    engine = Engine(tmp_path)
    (tmp_path / "x.txt").write_text(
        '1723161254000000000 {"stream":"a@bookTicker","data":{"s":"A","b":"1","B":"1","a":"2","A":"1"}}\n'
    )
    empty = {"name": "x", "type": "replay", "path": "x.txt", "clock": "day"}
    engine.roster.plan([empty, quotes(tmp_path, 0, 1000)])
    (tmp_path / "x.txt").write_text('1 {"stream":"a@depth","data":{}}\n')
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            await engine.roster.apply(nursery)
    assert engine.ticks() == [("q", 0), ("q", 1000)]


@pytest.mark.parametrize("other", [{"speed": 2.0}, {"loop": True}])
def test_feeds_of_one_clock_with_different_pace_are_refused(tmp_path, other):
    engine = Engine(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"^feeds\.1\.clock: feeds of clock 'day' must have the same speed and loop; q has speed 1 ",
    ):
        engine.roster.plan([quotes(tmp_path, 0), trades(tmp_path, 0) | other])
    assert engine.roster.planned == []
    # A changed pace of all feeds is accepted.
    engine.roster.plan([quotes(tmp_path, 0) | other, trades(tmp_path, 0) | other])
