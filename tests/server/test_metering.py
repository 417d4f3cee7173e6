"""Metering in the engine, and the sweeps of a process. Clocks are virtual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio

from marketfeed.access.quotas import Over
from marketfeed.access.usage import DAY_S, Interval, Report, User, UserReport
from marketfeed.access.usage_file import UsageWriter, read_days
from marketfeed.config.schema import AuthConfig, Config, Loaded, TenantConfig
from marketfeed.errors import AccessFileError, StartError
from marketfeed.server.metering import COMMIT_S, Metering
from marketfeed.server.sweeps import SWEEP_S, Sweeps
from tests.support.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ANN = User("acme", "ann")
DAY = 20_785
NOON = DAY * DAY_S + DAY_S / 2
QUOTES = ("vip", "quotes")


def loaded(folder: Path, mode: Any = "keys", **tenants: TenantConfig) -> Loaded:
    auth = AuthConfig(mode=mode, keys_file="keys.toml", path=str(folder / "access.db"), tenants=tenants)
    return Loaded(Config(auth=auth), "config.toml", folder)


def clocked(began_s: float) -> Callable[[], float]:
    """Return the Unix clock that is ``began_s`` now, over trio's."""
    offset = began_s - trio.current_time()
    return lambda: trio.current_time() + offset


def report(ticks: int, began_s: float = NOON, seconds: float = 20.0, symbols: tuple[int, ...] = ()) -> Report:
    row = UserReport(*ANN, {QUOTES: (ticks, 10 * ticks)}, [0])
    return Report(Interval(began_s, began_s + seconds), [np.array(symbols, "<u4").tobytes()], [row])


async def test_usage_is_written_in_time_and_survives_a_restart(tmp_path, autojump_clock, nursery):
    metering = Metering(loaded(tmp_path), lambda: ["A", "B"], clocked(NOON))
    async with metering.open():
        nursery.start_soon(metering.run)
        metering.count_sessions(ANN, 2)
        metering.take(report(5, symbols=(1,)))
        await trio.sleep(COMMIT_S + 2)
        async with metering._writing:  # the commit takes no virtual time
            assert len(metering.book) == 0
        (one,) = await trio.to_thread.run_sync(read_days, metering.path, DAY, DAY)
        assert (one.user, one.peak, one.counts, one.symbols) == (ANN, 2, {QUOTES: (5, 50)}, frozenset("B"))
        metering.take(report(1))
    nursery.cancel_scope.cancel()
    again = Metering(loaded(tmp_path, acme=TenantConfig(max_ticks_per_day=6)), list, clocked(NOON + 100))
    told: list[list[Over]] = []
    again.on_change = told.append
    async with again.open():  # the last commit was at the end
        assert again.book.today["acme"].ticks == 6
        assert told == [[Over("acme", "max_ticks_per_day of the tenant: 6", "slower")]]


async def test_quotas_are_told_when_exceeded_and_when_a_day_begins(
    tmp_path, autojump_clock, nursery, monkeypatch
):
    monkeypatch.setattr("marketfeed.server.metering.COMMIT_S", 1e6)  # virtual time passes during a commit
    tenants = {"acme": TenantConfig(max_bytes_per_day=100, over="stop")}
    metering = Metering(loaded(tmp_path, **tenants), list, clocked((DAY + 1) * DAY_S - 60))
    told: list[list[str]] = []
    metering.on_change = lambda over: told.append([one.action for one in over])
    async with metering.open():
        nursery.start_soon(metering.run)
        metering.take(report(9, (DAY + 1) * DAY_S - 80))
        await trio.sleep(5)
        assert told == []
        metering.take(report(1, (DAY + 1) * DAY_S - 60))
        await trio.sleep(5)
        assert told == [["stop"]]
        await trio.sleep(60)
        assert told == [["stop"], []]
        nursery.cancel_scope.cancel()


class FullDisk:
    """A writer that has no room until it is told."""

    def __init__(self, path: Path) -> None:
        self.writer, self.full = UsageWriter(path), True
        self.close = self.writer.close

    def write(self, batch: Any, names: Any) -> None:
        if self.full:
            raise AccessFileError("no room to write access.db: free space on its disk")
        self.writer.write(batch, names)


async def test_while_the_disk_is_full_usage_is_kept_in_memory_and_shown(tmp_path, autojump_clock):
    metering = Metering(loaded(tmp_path), lambda: ["A", "B"], clocked(NOON))
    async with metering.open():
        metering.take(report(1, symbols=(0,)))
        assert await metering.commit()
        assert metering._writer is not None
        metering._writer.close()
        disk: Any = FullDisk(metering.path)
        metering._writer = disk
        metering.take(report(2, symbols=(1,)))
        metering.count_sessions(User("beta", "cleo"), 3)
        assert not await metering.commit()
        metering.take(report(4))
        assert not await metering.commit()
        assert metering.failures == 2
        assert metering.problem == "no room to write access.db: free space on its disk"
        ann, cleo = await metering.days(DAY, DAY)
        assert (ann.counts, ann.symbols) == ({QUOTES: (7, 70)}, frozenset("AB"))
        assert (cleo.user.sub, cleo.peak) == ("cleo", 3)
        assert [one.user.sub for one in await metering.days(DAY, DAY, "acme")] == ["ann"]
        assert len(metering.book) == 2
        disk.full = False
        assert await metering.commit()
        assert metering.problem is None
        assert len(metering.book) == 0
        assert (await metering.days(DAY, DAY))[0].counts == {QUOTES: (7, 70)}


async def test_a_file_that_cannot_be_used_prevents_the_start(tmp_path):
    (tmp_path / "access.db").write_bytes(b"no database " * 100)
    with pytest.raises(StartError, match="is no file of access"):
        async with Metering(loaded(tmp_path), list).open():
            pass


async def test_without_access_control_nothing_is_kept(tmp_path):
    metering = Metering(loaded(tmp_path, mode="none"), list)
    async with metering.open():
        metering.take(report(1))
        metering.count_sessions(ANN, 1)
        await metering.run()
        assert await metering.commit()
    assert len(metering.book) == 0
    assert not metering.path.exists()


async def test_a_sweep_ends_at_midnight_and_the_last_one_with_the_task(autojump_clock):
    bench = Bench()
    told: list[Report] = []
    midnight_s = (DAY + 1) * DAY_S
    sweeps = Sweeps(bench.shard, told.append, clocked(midnight_s - 30))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.shard.run)
        nursery.start_soon(sweeps.run)
        member, _ = bench.enter()
        bench.shard.meter.attach(member, ANN)
        await bench.subscribe(member, quotes="A")
        for _ in range(3):
            bench.publish(("q", "A"))
            bench.shard.wake()
            await trio.sleep(SWEEP_S)
        bench.publish(("q", "A"))
        bench.shard.wake()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    rows = [(one.interval.day, *[row.counts.get(QUOTES, (0, 0))[0] for row in one.users]) for one in told]
    assert sum(sum(ticks) for _, *ticks in rows) == 4
    assert [day for day, *_ in rows] == [DAY] * 2 + [DAY + 1] * (len(rows) - 2)
    assert told[1].interval.ended_s == pytest.approx(midnight_s)
    for day in (DAY, DAY + 1):  # symbols count once a day
        noted = [bool(row.sets) for one in told if one.interval.day == day for row in one.users]
        assert noted == [True] + [False] * (len(noted) - 1)


async def test_usage_of_all_lives_is_kept_by_names(tmp_path, autojump_clock):
    metering = Metering(loaded(tmp_path), now_s=clocked(NOON))
    async with metering.open():
        first, second = metering.taker(lambda: ["A", "B"]), metering.taker(lambda: ["C", "A"])
        first(report(1, symbols=(1,)))
        second(report(2, symbols=(0, 1)))
        first(report(3, symbols=(0,)))  # of a life that retires
        (one,) = await metering.days(DAY, DAY)
        assert (one.symbols, one.counts) == (frozenset("ABC"), {QUOTES: (6, 60)})
