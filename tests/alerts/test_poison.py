"""Alerts that a consumer never acknowledges: dispatch over a log on disk, on a virtual clock."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import LOOK_S, Dispatch
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.testing_alert_log import NOW_NS, example

DELAYS_S = (1, 2, 4, 8, 16, 32, 60, 60)  # after each of the eight deliveries
LIMITS = DeliveryLimits(max_tries=len(DELAYS_S), in_flight=4)
SHORT_S = 0.001


@pytest.fixture(autouse=True)
def _exact_delays(monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.delivery.SPREAD", (1.0, 1.0))


class Consumer:
    """Consumer ``risk``: acknowledges at once what is not in ``poison``, and notes what it received when."""

    def __init__(self, dispatch, poison):
        self._dispatch, self._poison = dispatch, poison
        self.received: dict[str, list[tuple[int, float]]] = {}  # try and time of each delivery, by id
        self.acknowledged: set[str] = set()
        self._changed = trio.Event()

    async def run(self):
        await self._dispatch.join("s", "risk", "all", ["*"])
        while True:
            due = await self._dispatch.take("s", 100)
            for one in due:
                delivery = (one.tries, trio.current_time())
                self.received.setdefault(one.entry.alert.id, []).append(delivery)
            good = {one.entry.alert.id for one in due} - self._poison
            if good:
                await self._dispatch.acknowledge("risk", sorted(good))
            self.acknowledged |= good
            self._changed.set()
            self._changed = trio.Event()

    async def until(self, holds):
        """Wait until ``holds()``, while the clock stands still."""
        while not holds():
            await self._changed.wait()


@asynccontextmanager
async def consuming(folder, poison):
    async with open_log(folder / "alerts.db") as log, trio.open_nursery() as nursery:
        dispatch = await Dispatch.started(log, LIMITS, lambda: NOW_NS)
        consumer = Consumer(dispatch, {alert.id for alert in poison})
        nursery.start_soon(dispatch.run)
        nursery.start_soon(consumer.run)
        await dispatch.append(poison, NOW_NS)
        yield dispatch, consumer
        nursery.cancel_scope.cancel()


async def until_parked(dispatch, clock):
    """Let the dispatch look for what to park until it has; it looks every LOOK_S of the clock."""
    while not (letters := await dispatch.dead_letters("risk")):
        await wait_all_tasks_blocked()
        clock.jump(LOOK_S)
    return [(letter.entry.alert.id, letter.tries) for letter in letters]


async def test_a_poison_alert_comes_again_until_it_is_parked_and_the_others_flow_on(tmp_path, mock_clock):
    others = iter([example(number, "stale") for number in range(100)])
    poison = example(1)
    async with consuming(tmp_path, [poison]) as (dispatch, consumer):

        async def send_another():
            other = next(others)
            await dispatch.append([other], NOW_NS)
            await consumer.until(lambda: other.id in consumer.acknowledged)

        for tries, delay_s in enumerate(DELAYS_S, 1):
            await consumer.until(lambda tries=tries: len(consumer.received.get(poison.id, ())) == tries)
            for _ in range(LIMITS.in_flight):  # more than fit beside it at one time, over all of its tries
                await send_another()
            mock_clock.jump(delay_s - SHORT_S)
            await wait_all_tasks_blocked()
            await send_another()
            assert len(consumer.received[poison.id]) == tries  # not before its delay is over
            assert await dispatch.dead_letters() == []
            mock_clock.jump(2 * SHORT_S)

        assert await until_parked(dispatch, mock_clock) == [(poison.id, LIMITS.max_tries)]
        deliveries = consumer.received.pop(poison.id)
        assert [tries for tries, _ in deliveries] == list(range(1, LIMITS.max_tries + 1))
        times_s = [at_s for _, at_s in deliveries]
        gaps_s = [later_s - at_s for at_s, later_s in itertools.pairwise(times_s)]
        assert gaps_s == pytest.approx(DELAYS_S[:-1], abs=2 * SHORT_S)
        assert {tuple(tries for tries, _ in one) for one in consumer.received.values()} == {(1,)}

        await send_another()
        found = dispatch.statistics()["risk"]
        assert (found.state, found.unacknowledged, found.parked) == ("live", 0, 1)
        assert found.floor == await dispatch.head()


async def test_a_consumer_that_holds_only_poison_is_stalled_until_it_is_parked(tmp_path, mock_clock):
    poison = [example(number) for number in range(LIMITS.in_flight)]
    async with consuming(tmp_path, poison) as (dispatch, consumer):
        await consumer.until(lambda: len(consumer.received) == len(poison))
        await dispatch.append([other := example(9, "stale")], NOW_NS)
        for tries in range(2, LIMITS.max_tries + 1):
            assert dispatch.statistics()["risk"].state == "stalled"
            mock_clock.jump(DELAYS_S[tries - 2])
            await consumer.until(
                lambda tries=tries: {len(one) for one in consumer.received.values()} == {tries}
            )
            assert other.id not in consumer.received
        mock_clock.jump(DELAYS_S[-1])
        parked = await until_parked(dispatch, mock_clock)
        assert parked == [(alert.id, LIMITS.max_tries) for alert in poison]
        await consumer.until(lambda: other.id in consumer.acknowledged)
        assert dispatch.statistics()["risk"].state == "live"
