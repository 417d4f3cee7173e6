"""What clients get wrong with alerts, over real sockets and a log on disk."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
import trio

from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.testing_alert_log import example
from tests.support.live import LIMITS, connected, http, serving_alerts

NESTED_BYTES = 16_384


def nested(levels):
    """Return the JSON of a notice whose data are nested in ``levels`` levels, objects and arrays in turn."""
    objects, arrays = '{"x":', "["
    opened = "".join((objects, arrays)[level % 2] for level in range(levels))
    closed = "".join("}]"[level % 2] for level in reversed(range(levels)))
    return f'{{"key":"{levels}","msg":"m","data":{opened}1{closed}}}'.encode()


async def test_data_are_nested_in_at_most_32_levels(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        assert (await http(live, "POST", "/v1/alerts", nested(32)))[0] == 201
        for levels in (33, 100, 500):
            status, answer = await http(live, "POST", "/v1/alerts", nested(levels))
            assert (status, answer["error"]["msg"]) == (400, "data: nested in at most 32 levels")
        assert await dispatch.head() == 1
        (_, body) = await http(live, "GET", "/v1/alerts?consumer=risk")
        (alert,) = body["alerts"]
        assert {"key": "32", "data": json.loads(nested(32))["data"]}.items() <= alert.items()


@pytest.mark.parametrize("opened", [b"[", b'{"x":'])
@pytest.mark.parametrize("beginning", [b'{"key":"k","msg":"m","data":{"x":', b""])
async def test_brackets_that_no_parser_can_follow_are_refused(tmp_path, beginning, opened):
    limits = dataclasses.replace(LIMITS, request_bytes=200_000)
    async with serving_alerts(tmp_path, limits=limits) as (live, dispatch):
        for count in (NESTED_BYTES // len(opened), 100_000 // len(opened)):
            status, answer = await http(live, "POST", "/v1/alerts", beginning + opened * count)
            assert status == 400
            assert answer["error"]["msg"].startswith("the body")
        assert await dispatch.head() == 0
        assert (await http(live, "POST", "/v1/alerts", nested(1)))[0] == 201


@pytest.mark.parametrize(
    "body",
    [b'{"key":"\xff"}', b'{"key":"k","msg":"m","data":{"\xed\xa0\x80":1}}', b"\xff", b'{"key":"\\ud800"}'],
)
async def test_text_that_is_not_utf8_is_refused_by_every_route_with_a_body(tmp_path, body):
    async with serving_alerts(tmp_path) as (live, dispatch):
        posts = [path for path, methods in live.gateway.routes.server._routes.items() if "POST" in methods]
        assert len(posts) >= 4
        for path in posts:
            status, answer = await http(live, "POST", path, body)
            assert status == 400
            # A ticket needs no body, and none of it is read.
            assert answer["error"]["msg"].startswith("the body" if "alerts" in path else "no ticket")
        assert await dispatch.head() == 0


async def acknowledged(live, client, consumer, *ids):
    """Acknowledge over the session ``client``, or over HTTP if it is None; return what was, and was not."""
    if client is None:
        body = {"consumer": consumer, "alerts": ids}
        status, answer = await http(live, "POST", "/v1/alerts/ack", body)
        assert status == 200
    else:
        await client.send(action="ack", alerts=ids)
        answer = await client.next("acked")
    return answer["alerts"], answer.get("unknown", [])


@pytest.mark.parametrize("over_http", [False, True])
async def test_only_what_a_consumer_has_not_settled_is_acknowledged(tmp_path, over_http):
    async with (
        serving_alerts(tmp_path) as (live, dispatch),
        connected(live) as session,
        connected(live) as other,
    ):
        for ws, consumer in ((session, "risk"), (other, "other")):
            await ws.send(action="subscribe", alerts=["*"], consumer=consumer)
            await ws.next("synced")
        one, private = example(1), example(2, to="other")
        await dispatch.append([one, private], time.time_ns())
        assert (await session.next("a"))["id"] == one.id
        assert [(await other.next("a"))["id"] for _ in range(2)] == [one.id, private.id]
        client = None if over_http else session
        foreign = [private.id, "?", "x" * 300, ""]
        assert await acknowledged(live, client, "risk", *foreign) == ([], foreign)
        assert await acknowledged(live, client, "risk", one.id, "?", one.id) == ([one.id], ["?"])
        assert await acknowledged(live, client, "risk", one.id) == ([], [one.id])
        counts = dispatch.statistics()
        assert (counts["risk"].unacknowledged, counts["other"].unacknowledged) == (0, 2)
        client = None if over_http else other
        assert await acknowledged(live, client, "other", one.id, private.id) == ([one.id, private.id], [])
        assert dispatch.statistics()["other"].unacknowledged == 0


@pytest.mark.parametrize("over_http", [False, True])
async def test_a_stale_acknowledgement_counts_once(tmp_path, over_http):
    """Of an alert that has gone to another session meanwhile, and by a session that is gone."""
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as second:
        await dispatch.append([one := example(1)], time.time_ns())
        async with connected(live) as first:
            await first.send(action="subscribe", alerts=["*"], consumer="risk")
            assert (await first.next("a"))["try"] == 1
        await second.send(action="subscribe", alerts=["*"], consumer="risk")
        assert (await second.next("a"))["try"] == 2
        assert await acknowledged(live, None, "risk", one.id) == ([one.id], [])
        client = None if over_http else second
        assert await acknowledged(live, client, "risk", one.id) == ([], [one.id])
        found = dispatch.statistics()["risk"]
        assert (found.unacknowledged, found.acknowledged, found.floor) == (0, 1, 1)


async def test_a_dead_letter_can_be_acknowledged_once(tmp_path, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.delivery.FIRST_S", 0)
    monkeypatch.setattr("marketfeed.alerts.dispatch.LOOK_S", 0.01)
    limits = DeliveryLimits(max_tries=1, in_flight=1)
    async with serving_alerts(tmp_path, limits) as (live, dispatch), connected(live) as client:
        await client.send(action="subscribe", alerts=["*"], consumer="risk")
        await dispatch.append([one := example(1)], time.time_ns())
        assert (await client.next("a"))["id"] == one.id
        while not await dispatch.dead_letters():
            await trio.sleep(0.001)
        assert await acknowledged(live, client, "risk", one.id) == ([one.id], [])
        assert await acknowledged(live, client, "risk", one.id) == ([], [one.id])
        assert await dispatch.dead_letters() == []


async def test_acknowledgements_of_nobody_are_answered_and_create_nothing(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as client:
        await dispatch.append([one := example(1)], time.time_ns())
        assert await acknowledged(live, None, "nobody", one.id) == ([], [one.id])
        body = {"consumer": "x" * 300, "alerts": [one.id]}
        status, answer = await http(live, "POST", "/v1/alerts/ack", body)
        assert (status, "a consumer's name must be 1 to 64" in answer["error"]["msg"]) == (400, True)
        await client.send(action="ack", alerts=[one.id], id=4)
        error = await client.next("error")
        assert (error["code"], error["id"]) == (400, 4)
        assert error["msg"].startswith("ack: this session has no consumer")
        assert dispatch.statistics() == {}


async def test_a_poll_that_does_not_wait_gets_what_is_due(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        await dispatch.append([one := example(1)], time.time_ns())
        while dispatch.newest < 1:
            await trio.sleep(0.001)
        status, answer = await http(live, "GET", "/v1/alerts?consumer=risk&timeout_s=0")
        assert (status, [alert["id"] for alert in answer["alerts"]]) == (200, [one.id])
        assert (await http(live, "GET", "/v1/alerts?consumer=risk&timeout_s=0"))[0] == 204


async def test_a_notice_that_says_nothing_is_refused(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        status, answer = await http(live, "POST", "/v1/alerts", {"key": "1", "msg": " \n "})
        assert (status, answer["error"]["msg"]) == (400, "msg: white space only")
        assert await dispatch.head() == 0
