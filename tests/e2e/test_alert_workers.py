"""Alerts with ``engine.workers``: the log is the engine's, and sessions of all workers take from it."""

from __future__ import annotations

import http.client
import json
import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.conformance import check_messages, connect
from tests.support.crowd import lives, metrics, workers
from tests.support.process import engine

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.e2e

CONFIG = """
[engine]
workers = 2
[alerts]
enabled = true
in_flight = 10  # so that two sessions have 5 each
[[feeds]]
name = "demo"
type = "synthetic"
symbols = ["A"]
rate = 1
"""
OFF = CONFIG.replace("enabled = true", "enabled = false")
JOIN = {"action": "subscribe", "alerts": ["*"], "consumer": "risk", "start": "all"}


def received(ws: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """Return the messages of ``kind`` in the next frame that has any."""
    while True:
        messages = json.loads(ws.recv(timeout=20))
        check_messages(messages)
        if found := [message for message in messages if message["T"] == kind]:
            return found


def request(
    connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[int, Any]:
    """Make a request on a connection that stays open; return status and body."""
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    response = connection.getresponse()
    answer = response.read()
    return response.status, json.loads(answer) if answer else None


def test_sessions_on_two_workers_share_and_one_gets_what_the_other_had_when_its_worker_was_killed(tmp_path):
    with engine(CONFIG, tmp_path) as running, connect(running.url) as one, connect(running.url) as other:
        served = {received(ws, "success")[0]["session"]: ws for ws in (one, other)}
        for ws in served.values():
            ws.send(json.dumps(JOIN))
            assert received(ws, "subscription")[0]["consumer"] == "risk"
        posts = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=20) for _ in range(2)]
        with closing(posts[0]), closing(posts[1]):
            ids = set()
            for number in range(10):
                notice = {"key": f"order-{number}", "msg": "filled", "to": "risk"}
                status, answer = request(posts[number % 2], "POST", "/v1/alerts", notice)
                assert (status, answer["key"]) == (201, f"order-{number}")
                assert request(posts[1 - number % 2], "POST", "/v1/alerts", notice) == (200, answer)
                ids.add(answer["id"])
            assert [metrics(running)["marketfeed_worker_connections", str(i)] for i in range(2)] == [2, 2]

            # Each has some; over HTTP either worker acknowledges what any session had.
            first = {session: received(ws, "a") for session, ws in served.items()}
            acknowledged = {messages[0]["id"] for messages in first.values()}
            for post, alert in zip(posts, acknowledged, strict=False):
                body = {"consumer": "risk", "alerts": [alert]}
                assert request(post, "POST", "/v1/alerts/ack", body) == (
                    200,
                    {"alerts": [alert], "unknown": []},
                )

            status, listing = request_admin(running.admin_port, "/v1/sessions")
            assert status == 200
            worker_of = {row["session"]: row["worker"] for row in listing["shown"]}
            assert sorted(worker_of.values()) == [0, 1]
            pid = workers(running)[0]
            os.kill(pid, signal.SIGKILL)
            killed = running.logged("worker ended")["worker"]
            assert not lives(pid)
            (left,) = (ws for session, ws in served.items() if worker_of[session] != killed)
            while acknowledged < ids:
                got = {message["id"]: message["try"] for message in received(left, "a")}
                left.send(json.dumps({"action": "ack", "alerts": sorted(got)}))
                acknowledged |= got.keys()
            (answer,) = received(left, "acked")
            assert set(answer["alerts"]) <= ids
        assert running.stop() == 0


def request_admin(port: int, path: str) -> tuple[int, Any]:
    """Make one request to the admin listener."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        return request(connection, "GET", path)


def test_a_poll_continues_on_another_worker_and_a_notice_waits_for_an_acknowledgement_there(tmp_path):
    with engine(CONFIG, tmp_path) as running:
        one, other = (http.client.HTTPConnection("127.0.0.1", running.port, timeout=20) for _ in range(2))
        poll = "/v1/alerts?consumer=risk&alerts=*&timeout_s="
        with closing(one), closing(other):
            assert request(one, "GET", f"{poll}0") == (204, None)
            one.request("POST", "/v1/alerts?wait=ack&timeout_s=20", json.dumps(
                {"key": "k", "msg": "m", "to": "risk", "data": {"shares": 10**30}}
            ))  # fmt: skip
            status, answer = request(other, "GET", f"{poll}20")
            assert status == 200
            (alert,) = answer["alerts"]
            assert (alert["key"], alert["data"]) == ("k", {"shares": 10**30})
            body = {"consumer": "risk", "alerts": [alert["id"]]}
            assert request(other, "POST", "/v1/alerts/ack", body)[0] == 200
            response = one.getresponse()
            assert (response.status, json.loads(response.read())["id"]) == (200, alert["id"])

            assert request(one, "POST", "/v1/alerts", {"key": "l", "msg": "m", "to": "risk"})[0] == 201
            while (answer := request(one, "GET", f"{poll}0"))[0] == 204:  # gets it without any wait
                pass
            assert [alert["key"] for alert in answer[1]["alerts"]] == ["l"]


def test_what_clients_get_wrong_is_answered_by_every_worker_as_by_the_engine(tmp_path):
    with engine(CONFIG, tmp_path) as running, connect(running.url) as one, connect(running.url) as other:
        posts = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=20) for _ in range(2)]
        with closing(posts[0]), closing(posts[1]):
            for ws, name in ((one, "risk"), (other, "other")):
                ws.send(json.dumps(JOIN | {"consumer": name}))
                assert received(ws, "subscription")[0]["consumer"] == name
            ids = {}
            for post, name in zip(posts, ("risk", "other"), strict=True):
                notice = {"key": name, "msg": "filled", "to": name, "data": {"x": nested(31)}}
                deep = {**notice, "key": "deep", "data": {"x": nested(32)}}
                assert request(post, "GET", f"/v1/alerts?consumer={'x' * 300}")[0] == 400
                status, answer = request(post, "POST", "/v1/alerts", deep)
                assert (status, answer["error"]["msg"]) == (400, "data: nested in at most 32 levels")
                status, answer = request(post, "POST", "/v1/alerts", notice)
                assert status == 201
                ids[name] = answer["id"]
            assert [metrics(running)["marketfeed_worker_connections", str(i)] for i in range(2)] == [2, 2]
            assert received(one, "a")[0]["data"] == {"x": nested(31)}
            assert received(other, "a")[0]["id"] == ids["other"]

            foreign = [ids["other"], "?", "x" * 300]
            one.send(json.dumps({"action": "ack", "alerts": foreign}))
            (answer,) = received(one, "acked")
            assert (answer["alerts"], answer["unknown"]) == ([], foreign)
            for post in posts:  # another consumer's alert
                body = {"consumer": "risk", "alerts": foreign}
                assert request(post, "POST", "/v1/alerts/ack", body) == (
                    200,
                    {"alerts": [], "unknown": foreign},
                )
                body = {"consumer": "x" * 300, "alerts": foreign}
                status, answer = request(post, "POST", "/v1/alerts/ack", body)
                assert (status, "a consumer's name must be" in answer["error"]["msg"]) == (400, True)
            other.send(json.dumps({"action": "ack", "alerts": [ids["other"]] * 2}))
            assert received(other, "acked")[0]["alerts"] == [ids["other"]]
            for post in posts:  # acknowledged before, by a session
                body = {"consumer": "other", "alerts": [ids["other"]]}
                assert request(post, "POST", "/v1/alerts/ack", body)[1]["unknown"] == [ids["other"]]
            assert running.stop() == 0


def test_a_consumer_that_holds_in_flight_alerts_is_shown_as_stalled(tmp_path):
    with engine(CONFIG, tmp_path) as running, connect(running.url) as ws, connect(running.url) as view:
        for session, join in ((ws, JOIN), (view, {"action": "subscribe", "alerts": ["*"]})):
            session.send(json.dumps(join))
            received(session, "synced")
        with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)) as post:

            def publish(number: int) -> str:
                status, answer = request(post, "POST", "/v1/alerts", {"key": str(number), "msg": "m"})
                assert status == 201
                return str(answer["id"])

            def states() -> dict[str, str]:
                status, listing = request_admin(running.admin_port, "/v1/sessions")
                shown = {row["consumer_state"] for row in listing["shown"] if "consumer_state" in row}
                assert (status, len(shown)) == (200, 1)
                status, listing = request_admin(running.admin_port, "/v1/alerts/consumers")
                (consumer,) = listing["consumers"]
                found = metrics(running)
                return {
                    "session": shown.pop(),
                    "consumer": consumer["state"],
                    "metric": next(
                        state
                        for state in ("live", "stalled", "away")
                        if found["marketfeed_alert_consumer_state", "risk", state]
                    ),
                }

            def until_received(session: ClientConnection, wanted: list[str]) -> None:
                missing = set(wanted)  # some may come again
                while missing:
                    missing -= {message["id"] for message in received(session, "a")}

            ids = [publish(number) for number in range(10)]
            until_received(ws, ids)
            assert set(states().values()) == {"stalled"}
            last = publish(10)
            until_received(view, [*ids, last])  # others do not wait for it
            ws.send(json.dumps({"action": "ack", "alerts": ids}))
            assert received(ws, "acked")[0]["alerts"] == ids
            until_received(ws, [last])
            assert set(states().values()) == {"live"}


def nested(levels: int) -> Any:
    """Return a list in lists."""
    return [nested(levels - 1)] if levels else 1


def test_alerts_that_are_off_are_off_on_workers_too(tmp_path):
    with engine(OFF, tmp_path) as running, connect(running.url) as ws:
        ws.send(json.dumps(JOIN))
        assert "alerts are off" in received(ws, "error")[0]["msg"]
        with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)) as connection:
            status, answer = request(connection, "GET", "/v1/alerts?consumer=risk")
            assert (status, answer["error"]["code"]) == (503, 503)
            assert "alerts are off" in answer["error"]["msg"]
