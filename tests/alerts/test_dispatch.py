"""Dispatch over a log on disk: consumers and their sessions, notices, silences, restarts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from marketfeed.alerts import active, silencing
from marketfeed.alerts.active import POLLING
from marketfeed.alerts.alert import alert_id
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import Dispatch
from marketfeed.alerts.log import CONSUMERS, Silence
from marketfeed.alerts.service import AlertRefusedError
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.core.units import S
from marketfeed.errors import AlertLogError
from marketfeed.testing_alert_log import NOW_NS, example

LIMITS = DeliveryLimits(max_tries=10, in_flight=4)


class Wall:
    """A Unix clock that the test sets."""

    def __init__(self):
        self.now_ns = NOW_NS

    def __call__(self):
        return self.now_ns


class Failing:
    """The log, whose method ``broken`` fails."""

    log: Any

    def __init__(self):
        self.broken = ""

    def __getattr__(self, name):
        if name == self.broken:
            return self._fail
        return getattr(self.log, name)

    async def _fail(self, *_):
        await trio.lowlevel.checkpoint()
        raise AlertLogError("no room to write it: free space on its disk")


@asynccontextmanager
async def dispatching(folder, limits=LIMITS, wall=None, failing=None):
    async with open_log(folder / "alerts.db") as log, trio.open_nursery() as nursery:
        alerts: Any = failing or log
        if failing is not None:
            failing.log = log
        dispatch = await Dispatch.started(alerts, limits, wall or Wall())
        nursery.start_soon(dispatch.run)
        yield dispatch
        nursery.cancel_scope.cancel()


def ids(due):
    return [one.entry.alert.id for one in due]


def notice(key, to=None):
    own_id = alert_id("notice", key, "notice", 0, NOW_NS)
    return msgspec.structs.replace(
        example(1, "notice", "notice"), id=own_id, key=key, symbol="", message="filled", to=to
    )


def silence(**fields: Any):
    known: dict[str, Any] = {
        "starts_ns": NOW_NS,
        "ends_ns": NOW_NS + 60 * S,
        "created_by": "ann",
        "comment": "test",
    }
    return Silence(id="one", **(known | fields))


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


async def test_the_age_of_what_an_absent_consumer_has_not_read_is_known(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        dispatch.leave("s1")
        await dispatch.append([example(1)], NOW_NS + 5)
        with trio.fail_after(10):
            while not (found := dispatch.statistics()["risk"]).oldest_ns:
                await trio.sleep(0.05)
        assert (found.state, found.oldest_ns, found.unacknowledged) == ("away", NOW_NS + 5, 0)


async def test_a_notice_is_kept_once_per_key(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        first = await dispatch.publish(notice("order-1", to="risk"))
        again = msgspec.structs.replace(notice("order-1"), id=alert_id("notice", "other", "notice", 0, 7))
        second = await dispatch.publish(again)
        assert (first.new, second.new, first.id) == (True, False, second.id)
        await dispatch.join("s1", "risk", "all", ["nothing"])
        await dispatch.join("s2", "other", "all", ["*"])
        assert ids(await dispatch.take("s1", 9)) == [first.id]  # whatever its patterns
        assert dispatch.statistics()["other"].delivered == 0


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


async def test_a_log_that_cannot_be_read_delays_what_is_delivered(tmp_path, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.recent.RETRY_S", 0.01)
    failing = Failing()
    async with dispatching(tmp_path, failing=failing) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        failing.broken = "read"
        await dispatch.append([example(1)], NOW_NS)
        await trio.testing.wait_all_tasks_blocked()
        assert dispatch.newest == 0
        failing.broken = ""
        assert ids(await dispatch.take("s1", 1)) == [example(1).id]


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


async def test_a_silence_mutes_alerts_and_not_notices(tmp_path):
    wall = Wall()
    async with dispatching(tmp_path, wall=wall) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.append([before := example(1, "wide")], wall.now_ns)
        await dispatch.add_silence(silence(rules=("wi*",)))
        cleared = example(1, "wide", "cleared")
        muted = example(2, "wide")
        await dispatch.append([cleared, muted, other := example(3, "stale")], wall.now_ns)
        await dispatch.publish(told := notice("k"))
        with trio.fail_after(10):
            found: list[str] = []
            while len(found) < 4:
                due = ids(await dispatch.take("s1", 9))
                await dispatch.acknowledge("risk", due)
                found += due
        # What was shown as raised is shown as cleared.
        assert found == [before.id, cleared.id, other.id, told.id]
        assert dispatch.muted == {"inhibited": 0, "silenced": 2}
        assert [one.id for one in await dispatch.silences()] == ["one"]


@pytest.mark.parametrize("ended", ["by hand", "by time", "under another"])
async def test_a_silence_that_ends_over_something_raised_says_so(tmp_path, ended):
    wall = Wall()
    async with dispatching(tmp_path, wall=wall) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.add_silence(silence())
        await dispatch.append([raised := example(1), example(2), example(2, "wide", "cleared")], NOW_NS)
        if ended == "under another":
            await dispatch.add_silence(silence(ends_ns=NOW_NS + 90 * S))  # replaces it
            await dispatch.add_silence(msgspec.structs.replace(silence(), id="two"))
        wall.now_ns += 30 * S if ended == "by hand" else 61 * S
        assert await dispatch.expire_silence("one" if ended != "by time" else "unknown", "bob") == (
            ended != "by time"
        )
        (due,) = await dispatch.take("s1", 9)
        alert = due.entry.alert
        assert (alert.key, alert.state, alert.symbol) == (raised.key, "raised", raised.symbol)
        assert alert.id != raised.id
        assert alert.message.endswith("still raised after a silence by ann ended")
        await dispatch.append([cleared := example(1, "wide", "cleared")], wall.now_ns)
        assert ids(await dispatch.take("s1", 9)) == [cleared.id]


async def test_a_silence_that_ends_over_many_symbols_says_so_of_each(tmp_path, monkeypatch):
    monkeypatch.setattr(silencing, "APPENDED", 2)
    wall = Wall()
    async with dispatching(tmp_path, DeliveryLimits(max_tries=10, in_flight=10), wall=wall) as dispatch:
        await dispatch.join("s1", "risk", "all", ["*"])
        await dispatch.add_silence(silence())
        await dispatch.append(raised := [example(number) for number in range(1, 6)], NOW_NS)
        assert dispatch.muted["silenced"] == 5
        wall.now_ns += 30 * S
        await dispatch.expire_silence("one", "bob")
        found: list[Any] = []
        while len(found) < 5:
            found += await dispatch.take("s1", 9)
        assert sorted(one.entry.alert.key for one in found) == sorted(alert.key for alert in raised)
        assert len(set(ids(found))) == 5


async def test_silences_outlive_a_restart(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        await dispatch.add_silence(silence(symbols=("AA*",)))
    async with dispatching(tmp_path) as dispatch:
        await dispatch.append([example(1)], NOW_NS)
        assert dispatch.muted["silenced"] == 1
        assert not await dispatch.expire_silence("unknown", "")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ends_ns": NOW_NS}, "later than now"),
        ({"starts_ns": NOW_NS + 90 * S}, "later than now and than starts"),
        ({"rules": ()}, "rules: 1 to 100 patterns"),
        ({"symbols": ("*",) * 101}, "symbols: 1 to 100 patterns"),
        ({"rules": ("a b",)}, "rules: a pattern is"),
        ({"comment": ""}, "who silences, and why"),
    ],
)
async def test_an_invalid_silence_is_refused(tmp_path, fields, reason):
    async with dispatching(tmp_path) as dispatch:
        with pytest.raises(AlertRefusedError, match=reason):
            await dispatch.add_silence(silence(**fields))
        assert await dispatch.silences() == []


async def test_a_person_takes_on_an_episode(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        told: list[Any] = []
        dispatch.on_resolved.append(told.append)
        await dispatch.append([alert := example(1)], NOW_NS)
        episode = await dispatch.resolve(alert.key, "ann", "on it")
        assert episode is not None
        assert (episode.resolved_by, episode.comment, told) == ("ann", "on it", [episode])
        assert await dispatch.resolve("unknown", "ann", "") is None
