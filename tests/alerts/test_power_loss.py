"""Nothing that the log has answered for is lost with the power; with synchronous = NORMAL some of it is.

MARKETFEED_PROVE=1 (`make prove`) does 1,000 runs.
"""

from __future__ import annotations

import os
import random

import pytest
import trio

from marketfeed.alerts import sqlite_file
from marketfeed.alerts.log import Silence
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.testing_alert_log import NOW_NS, example
from tests.support.disks import PowerLossDisk

RUNS = 1000 if os.environ.get("MARKETFEED_PROVE") else 40
MOST_CHANGES = 250  # a power loss comes within this many; most runs cause more


class Promises:
    """What the log has answered, in the order of the answers."""

    def __init__(self):
        self.alerts = {}  # by position
        self.standings = {}  # of the consumer, by position
        self.resolved = set()
        self.silences = set()
        self.uncertain = set()  # positions whose standing is being changed
        self.has_consumer = False

    def copy(self):
        made = Promises()
        for name, value in vars(self).items():
            setattr(made, name, value if isinstance(value, bool) else value.copy())
        return made


class Run:
    """Random changes on a disk until its power fails."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.promised = Promises()
        self.at_loss = None
        self.disk = PowerLossDisk(self.rng, self.rng.randrange(1, MOST_CHANGES), self.lose)
        self.published = 0

    def lose(self):
        self.at_loss = self.promised.copy()

    async def go(self, folder):
        async with open_log(folder / "alerts.db", self.disk.name) as log:
            log._writer._connection.pragma("wal_autocheckpoint", self.rng.choice((5, 20, 1000)))
            await log.use_consumer("risk", NOW_NS)
            self.promised.has_consumer = True
            while self.at_loss is None and self.published < 500:
                steps = self.rng.choices(
                    (self.append, self.acknowledge, self.park, self.requeue, self.note), k=3
                )
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.append, log)
                    for step in steps[:1]:
                        nursery.start_soon(step, log)

    async def append(self, log):
        alerts = [example(self.published + n) for n in range(self.rng.choice((1, 1, 1, 5, 30)))]
        self.published += len(alerts)
        for appended, alert in zip(await log.append(alerts, NOW_NS), alerts, strict=True):
            self.promised.alerts[appended.position] = alert

    async def change(self, among, standing, run):
        """Change the standing of some positions that have one ``among`` these."""
        standings = self.promised.standings
        possible = [p for p in self.promised.alerts if standings.get(p, "unsettled") in among]
        chosen = self.rng.sample(possible, min(len(possible), self.rng.randrange(1, 9)))
        self.promised.uncertain |= set(chosen)
        await run(chosen)
        standings.update(dict.fromkeys(chosen, standing))
        self.promised.uncertain -= set(chosen)

    def ids(self, positions):
        return [self.promised.alerts[position].id for position in positions]

    async def acknowledge(self, log):
        async def run(positions):
            assert (await log.acknowledge("risk", self.ids(positions), NOW_NS)).unknown == ()

        await self.change(("unsettled", "dead"), "settled", run)

    async def park(self, log):
        await self.change(
            ("unsettled",), "dead", lambda positions: log.park("risk", dict.fromkeys(positions, 3), NOW_NS)
        )

    async def requeue(self, log):
        await self.change(
            ("dead",), "unsettled", lambda positions: log.requeue("risk", self.ids(positions), NOW_NS)
        )

    async def note(self, log):
        """Resolve an episode, silence something, and raise the floor."""
        floor = 0
        while self.promised.standings.get(floor + 1) == "settled":
            floor += 1
        log.advance("risk", floor)
        position = self.rng.choice([0, *self.promised.alerts])
        if position:
            key = self.promised.alerts[position].key
            assert await log.resolve(key, "ann", "", NOW_NS)
            self.promised.resolved.add(key)
        silence = Silence(id=str(self.published), starts_ns=0, ends_ns=1, created_by="ann", comment="")
        await log.add_silence(silence, NOW_NS)
        self.promised.silences.add(silence.id)

    async def lost(self, folder):
        """Open what the power loss left; return what was promised and is not there."""
        self.disk.restore(folder)
        promised = self.at_loss
        assert promised is not None
        async with open_log(folder / "alerts.db") as log:
            alerts = {entry.position: entry.alert for entry in await log.read(0, 10_000)}
            progress = await log.progress("risk")
            dead = {letter.entry.position for letter in await log.dead_letters()}
            resolved = {episode.key for episode in await log.episodes() if episode.resolved_by == "ann"}
            silences = {silence.id for silence in await log.silences()}
        if progress is None:
            return ["consumer"] if promised.has_consumer else []
        found = {
            p: "dead" if p in dead else "settled"
            for p in {*progress.settled, *range(progress.floor + 1), *dead}
        }
        return [
            *(p for p, alert in promised.alerts.items() if alerts.get(p) != alert),
            *(
                (p, standing)
                for p, standing in promised.standings.items()
                if p not in promised.uncertain and found.get(p, "unsettled") != standing
            ),
            *(promised.resolved - resolved),
            *(promised.silences - silences),
        ]


async def lost_in(tmp_path, seed):
    run = Run(seed)
    (tmp_path / f"{seed}").mkdir()
    await run.go(tmp_path / f"{seed}")
    assert run.at_loss is not None
    return await run.lost(tmp_path / f"{seed}-after")


@pytest.mark.slow
async def test_nothing_that_was_answered_is_lost_with_the_power(tmp_path):
    for seed in range(RUNS):
        assert await lost_in(tmp_path, seed) == [], f"seed {seed}"


@pytest.mark.slow
async def test_without_a_sync_per_commit_something_is_lost(tmp_path, monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(sqlite_file, "SYNCHRONOUS", "NORMAL")
    losses = [await lost_in(tmp_path, seed) for seed in range(40)]
    assert sum(bool(lost) for lost in losses) >= 10
