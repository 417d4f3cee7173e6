"""Consumers and dead letters on the admin port, over a log on disk."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from marketfeed.admin.alert_metrics import alert_metrics
from marketfeed.admin.alert_operations import AlertOperations
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import Dispatch
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.errors import RequestError
from marketfeed.gateway.http import Request
from marketfeed.testing_alert_log import NOW_NS, example


@asynccontextmanager
async def operating(folder):
    """Yield the log, the dispatch and a function that makes a request."""
    async with open_log(folder / "alerts.db") as log:
        for name in ("risk", "other"):
            await log.use_consumer(name, NOW_NS)
        await log.append([example(1), example(2)], NOW_NS)
        await log.park("risk", {1: 10}, NOW_NS + 5000)
        dispatch = await Dispatch.started(log, DeliveryLimits(10, 1), time.time_ns)
        alerting: Any = SimpleNamespace(dispatch=dispatch, log=log, watcher=None, escalator=None)
        routes = AlertOperations(alerting).routes
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.run)

            async def ask(method, path, query=None, body=None):
                request = Request(path, query or {}, method, body=json.dumps(body).encode())
                answer: Any = await routes[path][method](request)
                return answer.status, json.loads(answer.body) if answer.body else None

            yield alerting, ask
            nursery.cancel_scope.cancel()


async def test_consumers_are_listed_with_their_state(tmp_path):
    async with operating(tmp_path) as (alerting, ask):
        await alerting.dispatch.join("s1", "risk", "all", ["*"])
        await alerting.dispatch.take("s1", 9)
        status, answer = await ask("GET", "/v1/alerts/consumers")
        other, risk = answer["consumers"]
        assert (status, other["consumer"], other["state"]) == (200, "other", "away")
        expected = {"consumer": "risk", "state": "stalled", "alerts": ["*"], "start": "all", "sessions": 1}
        expected |= {"unacknowledged": 1, "oldest": NOW_NS // 1000, "waiting": 0, "dead": 1}
        expected |= {"symbols": ["*"], "more_symbols": 0}
        assert risk == expected | {"position": 2, "floor": 1}


async def test_a_consumer_s_first_symbols_are_listed_and_the_others_counted(tmp_path):
    symbols = [f"S{number:04}" for number in range(1000)]
    async with operating(tmp_path) as (alerting, ask):
        await alerting.dispatch.join("s1", "risk", "all", ["*"], symbols)
        _, answer = await ask("GET", "/v1/alerts/consumers")
        _, risk = answer["consumers"]
        assert (risk["symbols"], risk["more_symbols"]) == (symbols[:20], 980)


async def test_dead_letters_are_listed_and_delivered_again(tmp_path):
    async with operating(tmp_path) as (_, ask):
        status, answer = await ask("GET", "/v1/alerts/dead", {"consumer": ["risk"]})
        (letter,) = answer["dead"]
        assert (status, letter["consumer"], letter["tries"]) == (200, "risk", 10)
        assert (letter["parked"], letter["alert"]["id"]) == (NOW_NS // 1000 + 5, example(1).id)
        assert (await ask("GET", "/v1/alerts/dead", {"consumer": ["other"]}))[1] == {"dead": []}
        body: dict[str, Any] = {"consumer": "risk", "by": "ann"}
        assert await ask("POST", "/v1/alerts/requeue", body=body) == (200, {"alerts": [example(1).id]})
        body["alerts"] = [example(1).id, "unknown"]
        assert await ask("POST", "/v1/alerts/requeue", body=body) == (200, {"alerts": []})


async def test_dead_letters_are_listed_up_to_a_limit(tmp_path):
    async with operating(tmp_path) as (alerting, ask):
        await alerting.log.park("other", {1: 2, 2: 2}, NOW_NS)
        _, answer = await ask("GET", "/v1/alerts/dead", {"limit": ["2"]})
        assert [letter["consumer"] for letter in answer["dead"]] == ["other", "other"]
        with pytest.raises(RequestError, match="limit: 1 to 1000"):
            await ask("GET", "/v1/alerts/dead", {"limit": ["0"]})


async def test_who_acts_has_a_name_of_one_line(tmp_path):
    async with operating(tmp_path) as (_, ask):
        with pytest.raises(RequestError, match="by: control characters"):
            await ask("POST", "/v1/alerts/requeue", body={"consumer": "risk", "by": "\x1b"})
        with pytest.raises(RequestError, match="by: control characters"):
            await ask("DELETE", "/v1/alerts/consumers", {"consumer": ["risk"], "by": ["\u202e"]})


async def test_text_that_is_not_utf8_is_refused(tmp_path):
    async with operating(tmp_path) as (alerting, _):
        request = Request("/v1/alerts/requeue", method="POST", body=b'{"consumer":"\xff"}')
        with pytest.raises(RequestError, match="the body is not JSON"):
            await AlertOperations(alerting).routes["/v1/alerts/requeue"]["POST"](request)


async def test_a_consumer_that_is_not_there_is_404(tmp_path):
    async with operating(tmp_path) as (_, ask):
        for asked in (
            ("DELETE", "/v1/alerts/consumers", {"consumer": ["rsik"]}),
            ("GET", "/v1/alerts/dead", {"consumer": ["rsik"]}),
            ("POST", "/v1/alerts/requeue", None, {"consumer": "rsik", "alerts": ["x"]}),
        ):
            status, answer = await ask(*asked)
            assert (status, answer["error"]["msg"]) == (404, "no consumer 'rsik'")


async def test_a_consumer_is_dropped_once(tmp_path):
    async with operating(tmp_path) as (alerting, ask):
        query = {"consumer": ["risk"], "by": ["ann"]}
        assert await ask("DELETE", "/v1/alerts/consumers", query) == (204, None)
        status, answer = await ask("DELETE", "/v1/alerts/consumers", query)
        assert (status, answer["error"]["msg"]) == (404, "no consumer 'risk'")
        assert [record.action for record in await alerting.log.audit(0, 9)] == ["parked", "dropped"]


async def test_with_alerts_off_operators_are_told_so():
    off: Any = SimpleNamespace(dispatch=None)
    for path, methods in AlertOperations(off).routes.items():
        for method, route in methods.items():
            answer: Any = await route(Request(path, method=method))
            assert answer.status == 503
            assert b"alerts are off" in answer.body


async def test_metrics_of_consumers(tmp_path):
    async with operating(tmp_path) as (alerting, _):
        await alerting.dispatch.join("s1", "risk", "all", ["*"])
        await alerting.dispatch.take("s1", 9)
        dead = await alerting.dispatch.dead_letter_counts()
        families = list(alert_metrics(alerting, 5, dead))
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }
        assert samples["marketfeed_alerts_delivered_total", "risk"] == 1
        assert samples["marketfeed_alerts_unacknowledged", "risk"] == 1
        assert samples["marketfeed_alert_consumer_state", "risk", "stalled"] == 1
        assert samples["marketfeed_alert_consumer_state", "other", "away"] == 1
        assert samples["marketfeed_alert_dead_letters", "risk"] == 1
        assert samples["marketfeed_alerts_oldest_seconds", "risk"] > 0
        assert samples["marketfeed_alert_log_writable",] == 1
        off: Any = SimpleNamespace(dispatch=None, log=None, watcher=None)
        assert list(alert_metrics(off, 5, {})) == []
