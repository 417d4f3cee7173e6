"""Live views read the log in pages, and other tasks run between what is encoded."""

from __future__ import annotations

import time

import trio

from marketfeed.gateway import live_alerts
from marketfeed.testing_alert_log import example
from tests.gateway.test_alert_sessions import alert, subscribed
from tests.support.live import connected, serving_alerts


async def test_views_get_all_pages_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(live_alerts, "READ", 3)
    raised = [example(number, "wide" if number % 2 else "stale") for number in range(1, 11)]
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as one, connected(live) as two:
        await subscribed(one, alerts=["wide"])
        await subscribed(two, alerts=["*"], encoding="binary")
        await dispatch.append(raised, time.time_ns())
        with trio.fail_after(10):
            assert [(await alert(one))["id"] for _ in range(5)] == [each.id for each in raised[::2]]
            assert [(await two.next("a"))["id"] for _ in range(10)] == [each.id for each in raised]
