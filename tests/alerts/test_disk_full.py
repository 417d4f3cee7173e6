"""A full disk: callers are told, nothing is answered falsely, and the log goes on when there is room."""

from __future__ import annotations

import pytest
import trio

from marketfeed.alerts import sqlite_writer
from marketfeed.alerts.log import Progress
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.errors import AlertLogError
from marketfeed.testing_alert_log import NOW_NS, example
from tests.support.disks import FullDisk


async def fill(log):
    """Append until it fails; return the numbers that were answered, and the error."""
    answered: list[int] = []
    try:
        while len(answered) < 10_000:
            alerts = [example(len(answered) + n) for n in range(10)]
            await log.append(alerts, NOW_NS)
            answered += range(len(answered), len(answered) + 10)
    except AlertLogError as error:
        return answered, error
    raise AssertionError("the disk is not full")


async def test_a_full_disk_refuses_and_the_log_goes_on_when_there_is_room(tmp_path):
    disk, path = FullDisk(), tmp_path / "alerts.db"
    async with open_log(path, disk.name) as log:
        await log.use_consumer("a", NOW_NS)
        disk.room_bytes = 200_000
        answered, error = await fill(log)
        assert str(error) == f"no room to write {path}: free space on its disk"
        statistics = log.statistics()
        assert (statistics.problem, statistics.failures) == (str(error), 1)
        assert len(await log.read(0, 10_000)) == len(answered) > 0

        disk.room_bytes = 0
        with pytest.raises(AlertLogError, match="no room"):
            await log.acknowledge("a", [example(0).id], NOW_NS)
        assert await log.progress("a") is not None
        log.record_attempts("a", {2: 5})
        log.advance("a", 1)

        disk.room_bytes = None
        (settled,) = (await log.acknowledge("a", [example(2).id], NOW_NS)).positions
        assert log.statistics().problem is None
        progress = await log.progress("a")
        assert progress == Progress(1, frozenset({settled}), (), {2: 5})
        appended = await log.append([example(len(answered))], NOW_NS)
        assert (appended[0].position, appended[0].new) == (len(answered) + 1, True)
    async with open_log(path) as log:
        assert await log.head() == len(answered) + 1


async def test_all_callers_that_wait_are_told(tmp_path):
    disk, refused = FullDisk(), []

    async def publish(log, number):
        with pytest.raises(AlertLogError):
            await log.append([example(number, data={"x": "y" * 100_000})], NOW_NS)
        refused.append(number)

    async with open_log(tmp_path / "alerts.db", disk.name) as log:
        disk.room_bytes = 100_000
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(publish, log, number)
        assert len(refused) == 50
        assert await log.head() == 0


async def test_the_problem_ends_without_another_call(tmp_path, monkeypatch):
    """So that an engine without alerts gets ready again."""
    monkeypatch.setattr(sqlite_writer, "LAG_S", 0.001)
    disk = FullDisk()
    async with open_log(tmp_path / "alerts.db", disk.name) as log:
        disk.room_bytes = 0
        await fill(log)
        with trio.fail_after(60):
            while log.statistics().failures < 3:
                await trio.lowlevel.checkpoint()
            disk.room_bytes = None
            while log.statistics().problem is not None:
                await trio.lowlevel.checkpoint()


async def test_a_log_can_be_closed_on_a_full_disk(tmp_path):
    disk = FullDisk()
    async with open_log(tmp_path / "alerts.db", disk.name) as log:
        await log.append([example(1)], NOW_NS)
        log.record_attempts("a", {1: 1})
        disk.room_bytes = 0
    async with open_log(tmp_path / "alerts.db") as log:
        assert await log.head() == 1


async def test_a_log_that_cannot_be_created_for_lack_of_room_is_refused(tmp_path):
    disk = FullDisk()
    disk.room_bytes = 0
    with pytest.raises(AlertLogError, match=f"^no room to write {tmp_path / 'alerts.db'}: free space"):
        async with open_log(tmp_path / "alerts.db", disk.name):
            pass
