"""The newest entries in memory: nothing is skipped, whatever is added or removed meanwhile."""

from __future__ import annotations

import trio
from structlog.testing import capture_logs

from marketfeed.alerts.alert import Alert
from marketfeed.alerts.log import Entry
from marketfeed.alerts.recent import WINDOW, RecentEntries


class Log:
    """A log with the entries ``positions``."""

    def __init__(self, positions):
        self.positions = list(positions)

    async def read(self, after, limit):
        await trio.lowlevel.checkpoint()
        return entries(p for p in self.positions if p > after)[:limit]


def entries(positions):
    return [Entry(p, Alert(id=str(p), key=str(p), rule="wide", symbol="A"), 0) for p in positions]


def recent(log, newest=0):
    return RecentEntries(log, newest, lambda: None)


def positions_of(found):
    return [entry.position for entry in found]


async def test_what_is_trimmed_during_a_look_up_is_read_from_the_log(monkeypatch):
    window = recent(Log(range(1, 3 * WINDOW)))
    window.offer(entries(range(1, 2 * WINDOW + 1)))
    checkpoint = trio.lowlevel.checkpoint

    async def trimming():
        monkeypatch.setattr(trio.lowlevel, "checkpoint", checkpoint)
        await checkpoint()
        window.offer(entries([2 * WINDOW + 1]))  # the window begins at WINDOW + 2 from here on

    monkeypatch.setattr(trio.lowlevel, "checkpoint", trimming)
    assert positions_of(await window.after(0, 3)) == [1, 2, 3]
    assert positions_of(await window.after(WINDOW + 1, 2)) == [WINDOW + 2, WINDOW + 3]


async def test_a_reader_sees_every_entry_while_others_are_added():
    last = 10 * WINDOW
    window = recent(Log(range(1, last + 1)))
    seen: list[int] = []

    async def add():
        for position in range(1, last + 1, 100):
            window.offer(entries(range(position, min(position + 100, last + 1))))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add)
        while len(seen) < last:
            await window.wait(len(seen))
            seen += positions_of(await window.after(len(seen), 7 if len(seen) < WINDOW else 500))
    assert seen == list(range(1, last + 1))


async def test_holes_that_retention_has_left_are_no_skips():
    """Other processes append too, and what they appended may be removed before it is read."""
    log = Log([1, 2, 3, 7, 8, 9, 10])
    window = recent(log, newest=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(window.run)
        with capture_logs() as logged:
            window.offer(entries([10]))
            await window.wait(9)
            assert positions_of(await window.after(1, 9)) == [2, 3, 7, 8, 9, 10]
            assert positions_of(await window.after(3, 2)) == [7, 8]
            assert positions_of(await window.after(7, 9)) == [8, 9, 10]
        nursery.cancel_scope.cancel()
    assert logged == []


async def test_a_window_with_a_hole_is_not_believed():
    window = recent(Log(range(1, 10)))
    window.offer(entries(range(1, 10)))
    del window._entries[4]
    with capture_logs() as logged:
        assert positions_of(await window.after(2, 9)) == list(range(3, 10))
    assert [entry["log_level"] for entry in logged] == ["error"]
