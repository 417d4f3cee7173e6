"""Delivery over the SQLite log, as an engine runs it: under random loads and restarts, nothing is lost."""

from __future__ import annotations

import os
import random

import pytest

from marketfeed.alerts.delivery import Delivery, DeliveryLimits
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.core.units import S
from marketfeed.testing_alert_log import NOW_NS, example

RUNS = 300 if os.environ.get("MARKETFEED_PROVE") else 4
LIMITS = DeliveryLimits(max_tries=3, in_flight=5)


class Consuming:
    """One consumer and its sessions; what a consumer was answered outlives restarts."""

    delivery: Delivery

    def __init__(self, rng, name, patterns):
        self.rng, self.name, self.patterns = rng, name, patterns
        self.acknowledged = set()
        self.seen = set()

    async def start(self, log):
        consumer = await log.use_consumer(self.name, NOW_NS, "all", self.patterns)
        progress = await log.progress(self.name)
        self.delivery = Delivery(consumer, progress, LIMITS, self.rng.uniform)
        self.delivery.join("first")

    async def step(self, log, now_ns, patience=0.5):
        delivery = self.delivery
        delivery.offer(await log.read(delivery.position, delivery.room()), now_ns)
        due = delivery.take("first", now_ns, self.rng.randrange(1, 6))
        log.record_attempts(self.name, {one.entry.position: one.tries for one in due})
        ids = [one.entry.alert.id for one in due]
        assert not self.acknowledged & set(ids)
        self.seen |= set(ids)
        answered = [alert for alert in ids if self.rng.random() < patience]
        settled = await log.acknowledge(self.name, answered, NOW_NS)
        assert settled.ids == tuple(answered)
        delivery.acknowledged(settled.positions)
        self.acknowledged |= set(answered)
        if expired := delivery.expired(now_ns):
            delivery.parked(await log.park(self.name, expired, NOW_NS))
        log.advance(self.name, delivery.floor)
        if self.rng.random() < 0.1:
            dead = [letter.entry.alert.id for letter in await log.dead_letters(self.name)]
            delivery.requeued(await log.requeue(self.name, dead[:3], NOW_NS), now_ns)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
async def test_nothing_is_lost_and_nothing_acknowledged_comes_again(tmp_path, seed):
    rng = random.Random(seed)
    everyone = [Consuming(rng, "risk", ["wide", "sta*"]), Consuming(rng, "all", ["*"])]
    published: dict[str, str] = {}
    now_ns = 0
    for _ in range(4):
        async with open_log(tmp_path / "alerts.db") as log:
            for consuming in everyone:
                await consuming.start(log)
            for _ in range(25):
                alerts = [
                    example(len(published) + n, rng.choice(("wide", "stale", "crossed")), state="notice")
                    for n in range(rng.randrange(3))
                ]
                await log.append(alerts, NOW_NS)
                published |= {alert.id: alert.rule for alert in alerts}
                for consuming in everyone:
                    await consuming.step(log, now_ns)
                now_ns += rng.choice((0, S // 10, 3 * S, 100 * S))
    async with open_log(tmp_path / "alerts.db") as log:
        for consuming in everyone:
            await consuming.start(log)
            for _ in range(200):
                now_ns += 100 * S
                await consuming.step(log, now_ns, patience=1)
            dead = [letter.entry.alert.id for letter in await log.dead_letters(consuming.name)]
            await log.acknowledge(consuming.name, dead, NOW_NS)
            everything = consuming.name == "all"
            wanted = {alert for alert, rule in published.items() if everything or rule != "crossed"}
            assert consuming.seen == wanted
            assert consuming.acknowledged | set(dead) == wanted
            assert consuming.delivery.floor == len(published)
