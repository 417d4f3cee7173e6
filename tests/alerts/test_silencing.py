"""Silences in force over a log on disk: what they mute, and what is said when they end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from marketfeed.alerts import silencing
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.service import AlertRefusedError
from marketfeed.core.units import S
from marketfeed.testing_alert_log import NOW_NS, example
from tests.support.dispatching import Wall, dispatching, ids, notice, silence


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
        assert dispatch.muted == {"inhibited": 0, "silenced": 1}
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
