"""Dispatch over a log on disk: consumers and their sessions, notices, restarts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from marketfeed.alerts import active
from marketfeed.alerts.active import POLLING
from marketfeed.alerts.alert import alert_id
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.log import CONSUMERS
from marketfeed.alerts.service import AlertRefusedError
from marketfeed.errors import AlertLogError
from marketfeed.testing_alert_log import NOW_NS, example
from tests.support.dispatching import Failing, dispatching, ids, notice


async def test_alerts_go_to_each_consumer_in_order_and_to_one_of_its_sessions(tmp_path):
    alerts = [example(number) for number in range(1, 5)]
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.join("s2", "risk", "all", ["*"])
        await dispatch.join("s3", "other", "all", ["stale"])
        await dispatch.append([*alerts, stale := example(9, "stale")], NOW_NS)
        first = await dispatch.take("s1", 10)
        second = await dispatch.take("s2", 10)
        assert ids(first) == [alert.id for alert in alerts[:2]]  # a half of in_flight
        assert ids(second) == [alert.id for alert in alerts[2:]]
        assert ids(await dispatch.take("s3", 10)) == [stale.id]
        assert dispatch.statistics()["risk"].state == "stalled"
        found = await dispatch.acknowledge("risk", [alerts[0].id, alerts[3].id, "?"])
        assert (found.ids, found.unknown) == ((alerts[0].id, alerts[3].id), ("?",))
        somebody_elses = await dispatch.acknowledge("other", [alerts[1].id])
        assert (somebody_elses.ids, somebody_elses.unknown) == ((), (alerts[1].id,))
        assert dispatch.statistics()["risk"].unacknowledged == 2


async def test_what_a_session_leaves_goes_to_another_at_once(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.append([example(1)], NOW_NS)
        assert [one.tries for one in await dispatch.take("s1", 10)] == [1]
        await dispatch.join("s2", "risk", "all", ["*"])
        async with trio.open_nursery() as nursery:
            taken = []

            async def take():
                taken.extend(await dispatch.take("s2", 10))

            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            assert taken == []
            dispatch.leave("s1")
        assert [(one.entry.alert.id, one.tries) for one in taken] == [(example(1).id, 2)]
        dispatch.leave("s1")  # idempotent


async def test_a_session_that_takes_of_no_consumer_is_told_so(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        with pytest.raises(AlertRefusedError, match="of no consumer"):
            await dispatch.take("s1", 1)
        await dispatch.join("s1", "risk", "all", ["*"])
        with pytest.raises(AlertRefusedError, match="of consumer risk already"):
            await dispatch.join("s1", "other", "all", ["*"])


@pytest.mark.parametrize(
    ("name", "patterns", "reason"),
    [
        ("x" * 300, ["*"], "1 to 64 printable ASCII"),
        ("", ["*"], "1 to 64 printable ASCII"),
        ("a b", ["*"], "1 to 64 printable ASCII"),
        ("risk", [], "1 to 500 patterns"),
        ("risk", ["*wide"], "a pattern is the name of a rule"),
    ],
)
async def test_an_invalid_consumer_is_refused_and_leaves_nothing(tmp_path, name, patterns, reason):
    async with dispatching(tmp_path) as dispatch:
        with pytest.raises(AlertRefusedError, match=reason):
            await dispatch.join("s1", name, "all", patterns)
        assert dispatch.statistics() == {}


async def test_the_number_of_consumers_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.dispatch.CONSUMERS", 2)
    assert CONSUMERS >= 2
    async with dispatching(tmp_path) as dispatch:
        for name in ("a", "b"):
            await dispatch.join(name, name, "all", ["*"])
        with pytest.raises(AlertRefusedError, match="an operator has to drop one"):
            await dispatch.join("c", "c", "all", ["*"])
        await dispatch.join("a2", "a", "all", ["*"])
        assert await dispatch.drop_consumer("b", "ann")
        await dispatch.join("c", "c", "all", ["*"])
        assert list(dispatch.statistics()) == ["a", "c"]


async def test_dropping_a_consumer_ends_the_wait_of_its_sessions(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        async with trio.open_nursery() as nursery:

            async def take():
                with pytest.raises(AlertRefusedError, match="was dropped"):
                    await dispatch.take("s1", 1)

            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            assert await dispatch.drop_consumer("risk", "ann")
        assert not await dispatch.drop_consumer("risk", "ann")
        await dispatch.join("s1", "risk", "now", ["*"])


async def test_other_patterns_apply_from_then_on(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s1", "risk", "all", ["wide"])
        await dispatch.append([example(1, "stale"), example(2, "wide")], NOW_NS)
        assert ids(await dispatch.take("s1", 9)) == [example(2, "wide").id]
        consumer = await dispatch.join("s1", "risk", "all", ["wide", "sta*"])
        assert consumer.patterns == ("wide", "sta*")
        await dispatch.append([example(3, "stale")], NOW_NS)
        assert ids(await dispatch.take("s1", 9)) == [example(3, "stale").id]


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_kept_before_other_patterns_stays_due(tmp_path, restarted):
    """Read, delivered, or neither: it comes until it is acknowledged, also after a restart."""
    limits = DeliveryLimits(max_tries=10, in_flight=3)
    before = [example(number) for number in range(1, 6)]
    async with dispatching(tmp_path, limits) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.append(before, NOW_NS)
        assert ids(await dispatch.take("s1", 1)) == [before[0].id]
        dispatch.leave("s1")
        await dispatch.join("s2", "risk", "all", ["stale"])
        await dispatch.append([example(6), example(7, "stale")], NOW_NS)
        if not restarted:
            assert await everything(dispatch, "s2") == [
                *(alert.id for alert in before),
                example(7, "stale").id,
            ]
    if restarted:
        async with dispatching(tmp_path, limits) as dispatch:
            await dispatch.join("s3", "risk", "all", ["none"])
            assert await everything(dispatch, "s3") == [
                *(alert.id for alert in before),
                example(7, "stale").id,
            ]


async def everything(dispatch, session):
    """Acknowledge what is due until nothing is; return its ids."""
    found = []
    while due := await taken_now(dispatch, session):
        found += ids(due)
        await dispatch.acknowledge("risk", ids(due))
    return found


async def taken_now(dispatch, session):
    with trio.move_on_after(0):
        return await dispatch.take(session, 100)
    return []


async def test_what_is_appended_while_other_patterns_are_kept_is_for_these(tmp_path):
    class Slow(Failing):
        """Tells of new patterns later than it has them."""

        async def use_consumer(self, name, now_ns, *args, **fields):
            consumer = await self.log.use_consumer(name, now_ns, *args, **fields)
            if fields.get("patterns") == ["stale"]:
                await appended.wait()
            return consumer

    appended = trio.Event()
    async with dispatching(tmp_path, failing=Slow()) as dispatch, trio.open_nursery() as nursery:
        await dispatch.join("s1", "risk", "all", ["wide"])
        nursery.start_soon(dispatch.join, "s1", "risk", "all", ["stale"])
        while [one.patterns for one in await dispatch._alerts.consumers()] != [("stale",)]:
            await trio.lowlevel.checkpoint()
        await dispatch.append([example(1), example(2, "stale")], NOW_NS)
        assert await taken_now(dispatch, "s1") == []
        appended.set()
        assert ids(await dispatch.take("s1", 9)) == [example(2, "stale").id]


async def test_a_restart_goes_on_where_the_last_engine_was(tmp_path):
    alerts = [example(number) for number in range(1, 4)]
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.append(alerts, NOW_NS)
        await dispatch.take("s1", 9)
        await dispatch.acknowledge("risk", [alerts[1].id])
    async with dispatching(tmp_path) as dispatch:
        assert dispatch.statistics()["risk"].state == "away"
        await dispatch.join("s1", "risk", "now", ["*"])
        assert [(one.entry.alert.id, one.tries) for one in await dispatch.take("s1", 9)] == [
            (alerts[0].id, 2),
            (alerts[2].id, 2),
        ]


async def test_the_age_of_what_an_absent_consumer_has_not_read_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.dispatch.LOOK_S", 0.001)
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        dispatch.leave("s1")
        await dispatch.append([example(1)], NOW_NS + 5)
        while not (found := dispatch.statistics()["risk"]).oldest_ns:
            await trio.lowlevel.checkpoint()
        assert (found.state, found.oldest_ns, found.unacknowledged) == ("away", NOW_NS + 5, 0)


async def test_a_notice_is_kept_once_per_publisher_and_key(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        first = await dispatch.publish(notice("order-1", to="risk"))
        own_id = alert_id("notice", "other", "notice", 0, 7)
        again = msgspec.structs.replace(notice("order-1", to="risk"), id=own_id)
        second = await dispatch.publish(again)
        assert (first.new, second.new, first.id) == (True, False, second.id)
        await dispatch.join("s1", "risk", "all", ["nothing"])
        await dispatch.join("s2", "other", "all", ["*"])
        assert ids(await dispatch.take("s1", 9)) == [first.id]  # whatever its patterns
        assert dispatch.statistics()["other"].delivered == 0
        ann = await dispatch.publish(notice("order-1", to="risk", publisher="ann"))
        assert ann.new
        assert not (await dispatch.publish(notice("order-1", to="risk", publisher="ann"))).new
        assert ids(await dispatch.take("s1", 9)) == [ann.id]


async def test_a_publisher_can_wait_for_the_acknowledgement(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        async with trio.open_nursery() as nursery:

            async def consume():
                await dispatch.acknowledge("risk", ids(await dispatch.take("s1", 1)))

            nursery.start_soon(consume)
            published = await dispatch.publish(notice("order-1", to="risk"), 30.0)
        assert (published.new, published.acknowledged) == (True, True)
        repeated = await dispatch.publish(notice("order-1", to="risk"), 0.0)
        assert (repeated.new, repeated.acknowledged) == (False, True)
        late = await dispatch.publish(notice("order-2", to="risk"), 0.0)
        assert (late.new, late.acknowledged) == (True, False)
        nobody = await dispatch.publish(notice("order-3", to="unknown"), 0.0)
        assert not nobody.acknowledged
        assert not (await dispatch.publish(notice("order-3", to="unknown"), 0.0)).acknowledged


@pytest.mark.parametrize(
    ("to", "wait_s", "reason"), [(None, 1.0, "needs `to`"), ("a b", None, "printable ASCII")]
)
async def test_an_invalid_notice_is_refused(tmp_path, to, wait_s, reason):
    async with dispatching(tmp_path) as dispatch:
        with pytest.raises(AlertRefusedError, match=reason):
            await dispatch.publish(notice("k", to=to), wait_s)
        assert await dispatch.head() == 0


async def test_what_is_not_acknowledged_becomes_a_dead_letter_and_can_be_requeued(tmp_path, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.delivery.FIRST_S", 0)  # every delay is over at once
    monkeypatch.setattr("marketfeed.alerts.dispatch.LOOK_S", 0.01)
    async with dispatching(tmp_path, DeliveryLimits(max_tries=2, in_flight=4)) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.append([example(1)], NOW_NS)
        assert [(await dispatch.take("s1", 1))[0].tries for _ in range(2)] == [1, 2]
        with trio.fail_after(10):
            while not await dispatch.dead_letters("risk"):
                await trio.sleep(0.01)
        assert await dispatch.dead_letter_counts() == {"risk": 1}
        await dispatch.append([example(2)], NOW_NS)
        assert ids(await dispatch.take("s1", 9)) == [example(2).id]
        assert await dispatch.requeue("unknown", [example(1).id], "ann") == []
        requeued = await dispatch.requeue("risk", [example(1).id], "ann")
        assert [entry.alert.id for entry in requeued] == [example(1).id]
        assert example(1).id in ids(await dispatch.take("s1", 9))


async def test_a_client_that_polls_no_more_is_gone_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(active, "POLL_GONE_S", -1)
    monkeypatch.setattr("marketfeed.alerts.dispatch.LOOK_S", 0.01)
    session = f"{POLLING}risk"
    async with dispatching(tmp_path) as dispatch:
        await dispatch.append([example(1)], NOW_NS)
        await dispatch.join(session, "risk", "all", ["*"])
        with trio.fail_after(10):
            while dispatch.statistics()["risk"].sessions:
                await trio.sleep(0.01)
        await dispatch.join(session, "risk", "all", ["*"])  # the next poll
        assert ids(await dispatch.take(session, 1)) == [example(1).id]


async def test_entries_come_from_memory_or_from_the_log(tmp_path):
    alerts = [example(number) for number in range(1, 6)]
    async with dispatching(tmp_path) as dispatch:
        await dispatch.append(alerts, NOW_NS)
        assert [entry.position for entry in await dispatch.entries(0, 3)] == [1, 2, 3]
        assert [entry.alert for entry in await dispatch.entries(3, 9)] == alerts[3:]
    async with dispatching(tmp_path) as dispatch:  # nothing is in memory
        assert [entry.alert for entry in await dispatch.entries(1, 2)] == alerts[1:3]
        await dispatch.append([example(7)], NOW_NS)
        assert [entry.position for entry in await dispatch.entries(5, 9)] == [6]


async def test_appends_that_overtake_each_other_are_read_from_the_log_once_it_can_be(tmp_path, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.recent.RETRY_S", 0.01)
    failing = Failing()
    async with dispatching(tmp_path, failing=failing) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        failing.broken = "read"
        await failing.log.append([example(1)], NOW_NS)  # by a task that has not gone on yet
        await dispatch.append([example(2)], NOW_NS)
        await trio.testing.wait_all_tasks_blocked()
        assert dispatch.newest == 0
        failing.broken = ""
        assert ids(await dispatch.take("s1", 1)) == [example(1).id]
        assert ids(await dispatch.take("s1", 1)) == [example(2).id]


async def test_what_is_appended_is_delivered_without_a_read_of_the_log(tmp_path):
    failing = Failing()
    async with dispatching(tmp_path, failing=failing) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        failing.broken = "read"
        await dispatch.append([example(1), example(2)], NOW_NS)
        await dispatch.append([example(2), example(3)], NOW_NS)  # the first of which is known
        await dispatch.append([example(3)], NOW_NS)
        await dispatch.append([example(4)], NOW_NS)
        found: list[str] = []
        with trio.fail_after(10):
            while len(found) < 4:
                found += ids(await dispatch.take("s1", 9))
        assert found == [example(number).id for number in range(1, 5)]


async def test_alerts_of_many_publishers_at_once_are_delivered_in_the_order_of_the_log(tmp_path):
    failing = Failing()
    async with dispatching(tmp_path, failing=failing) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(dispatch.append, [example(number), example(100 + number)], NOW_NS)
        found: list[str] = []
        with trio.fail_after(10):
            while len(found) < 200:
                found += ids(await dispatch.take("s1", 50))
                await dispatch.acknowledge("risk", found[-50:])
        assert found == [entry.alert.id for entry in await failing.log.read(0, 1000)]


async def test_what_is_not_on_disk_is_not_acknowledged(tmp_path):
    failing = Failing()
    async with dispatching(tmp_path, failing=failing) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.append([example(1)], NOW_NS)
        alerts = ids(await dispatch.take("s1", 1))
        failing.broken = "acknowledge"
        with pytest.raises(AlertLogError):
            await dispatch.acknowledge("risk", alerts)
        assert dispatch.statistics()["risk"].unacknowledged == 1
        failing.broken = ""
        assert (await dispatch.acknowledge("risk", alerts)).ids == tuple(alerts)
        assert (await dispatch.acknowledge("risk", alerts)).unknown == tuple(alerts)
        assert (await dispatch.acknowledge("nobody", alerts)).unknown == tuple(alerts)


async def test_a_person_takes_on_an_episode(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        told: list[Any] = []
        dispatch.on_resolved.append(told.append)
        await dispatch.append([alert := example(1)], NOW_NS)
        episode = await dispatch.resolve(alert.key, "ann", "on it")
        assert episode is not None
        assert (episode.resolved_by, episode.comment, told) == ("ann", "on it", [episode])
        assert await dispatch.resolve("unknown", "ann", "") is None
