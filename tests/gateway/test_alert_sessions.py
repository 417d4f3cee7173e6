"""Alerts of sessions over real sockets and a log on disk: consumers, live views, events and polls."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest
import trio

from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.testing_alert_log import example
from tests.support.conformance import check_messages
from tests.support.live import LIMITS, connected, http, serving, serving_alerts

LONG = {"text": "x" * 20_000}
SOON_NS = 60_000_000_000
SILENCE: dict[str, Any] = {"ends": 2**52, "by": "ann", "comment": "x"}


async def append(dispatch, *alerts):
    await dispatch.append(alerts, time.time_ns())


async def subscribed(client, **fields):
    await client.send(action="subscribe", **fields)
    answer = await client.next()
    assert answer["T"] == "subscription", answer
    await client.next("synced")
    return answer


async def alert(client):
    message = await client.next("a")
    check_messages([message])
    return message


class FullSocket:
    """The only session's socket takes nothing, as if the kernel's buffer were full, until :meth:`drain`."""

    def __init__(self, live, monkeypatch):
        (session,) = live.gateway.sessions
        self.outbox: Any = session.alerts._outbox
        self._send, self._gate = self.outbox._send, trio.Event()
        self.outbox._send = self._refuse
        wait_writable = trio.lowlevel.wait_writable

        async def wait(sock):
            await self._gate.wait()
            await wait_writable(sock)

        monkeypatch.setattr(trio.lowlevel, "wait_writable", wait)

    @staticmethod
    def _refuse(frame):
        raise BlockingIOError

    def drain(self):
        self.outbox._send = self._send
        self._gate.set()


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_consumer_receives_acknowledges_and_is_sent_nothing_again(tmp_path, encoding):
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as client:
        await append(dispatch, raised := example(1))
        answer = await subscribed(client, alerts=["*"], consumer="risk", encoding=encoding)
        assert (answer["alerts"], answer["consumer"]) == (["*"], "risk")
        message = await client.next("a")
        assert (message["id"], message["try"], message["ack"], message["v"]) == (raised.id, 1, True, 0.1)
        await client.send(action="ack", alerts=[raised.id, "?"], id=7)
        assert {"alerts": [raised.id], "unknown": ["?"], "id": 7}.items() <= (
            await client.next("acked")
        ).items()
        await client.send(action="ack", alerts=[raised.id])
        assert (await client.next("acked"))["unknown"] == [raised.id]
        assert dispatch.statistics()["risk"].unacknowledged == 0


async def test_subscribing_again_adds_patterns_and_unsubscribing_removes_them(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as client:
        await subscribed(client, alerts=["wide"], consumer="risk", quotes=["A"])
        answer = await subscribed(client, alerts=["sta*", "wide"])
        assert (answer["alerts"], answer["consumer"], answer["quotes"]) == (["wide", "sta*"], "risk", ["A"])
        await append(dispatch, example(1, "stale"), example(2, "rate"), example(3, "wide"))
        assert [(await alert(client))["rule"] for _ in range(2)] == ["stale", "wide"]
        await client.send(action="unsubscribe", alerts=["sta*"])
        assert (await client.next("subscription"))["alerts"] == ["wide"]
        await client.send(action="unsubscribe", alerts=["wide", "other"])
        answer = await client.next("subscription")
        assert (answer["alerts"], "consumer" in answer) == ([], False)
        assert dispatch.statistics()["risk"].state == "away"
        await subscribed(client, alerts=["wide"], consumer="risk")
        assert (await alert(client))["try"] == 2


async def test_a_session_that_ends_leaves_its_alerts_to_another(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as other:
        await append(dispatch, example(1))
        async with connected(live) as first:
            await subscribed(first, alerts=["*"], consumer="risk")
            assert (await alert(first))["try"] == 1
            await subscribed(other, alerts=["*"], consumer="risk")
        assert (await alert(other))["try"] == 2


async def test_a_live_view_sees_what_comes_after_it_and_no_more(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as one, connected(live) as two:
        await append(dispatch, example(1))
        await subscribed(one, alerts=["wide"])
        await subscribed(two, alerts=["*"], encoding="binary")
        await append(dispatch, example(2, "stale"))
        await append(dispatch, example(3, "wide"), example(4, "wide", to="risk"))
        message = await alert(one)
        assert (message["id"], message["ack"], message["try"]) == (example(3, "wide").id, False, 1)
        assert [(await two.next("a"))["rule"] for _ in range(2)] == ["stale", "wide"]
        await one.send(action="ack", alerts=[message["id"]])
        assert (await one.next("error"))["msg"].startswith("ack: this session has no consumer")
        await one.send(action="unsubscribe", alerts=["wide"])
        await one.next("subscription")
        await append(dispatch, example(5, "wide"), example(6, "rate"))
        assert [(await two.next("a"))["rule"] for _ in range(2)] == ["wide", "rate"]
        await subscribed(one, alerts=["rate"])
        await append(dispatch, last := example(7, "rate"))
        assert (await alert(one))["id"] == last.id


async def test_a_live_view_whose_socket_is_full_reads_on_when_it_drains(tmp_path, monkeypatch):
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as client:
        await subscribed(client, alerts=["*"])
        full = FullSocket(live, monkeypatch)
        for number in range(1, 4):
            await append(dispatch, example(number))
            with trio.fail_after(5):
                while dispatch.newest < number:
                    await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked(0.01)
        full.drain()
        assert [(await alert(client))["id"] for _ in range(3)] == [example(n).id for n in range(1, 4)]
        await append(dispatch, example(9))
        assert (await alert(client))["id"] == example(9).id


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"alerts": ["*"], "consumer": "x" * 300}, "consumer: a consumer's name must be 1 to 64"),
        ({"alerts": ["a b"]}, "alerts: a pattern is the name of a rule"),
        ({"alerts": [1]}, "alerts: a list of strings; at index 0 it is 1"),
        ({"alerts": ["*"], "start": "all"}, "start: needs consumer"),
        ({"alerts": ["*"], "consumer": "risk", "start": "then"}, 'start: "now" or "all", not \'then\''),
        ({"consumer": "risk"}, "consumer, start: need alerts"),
        ({"alerts": ["*"], "consumer": 5}, "consumer: a string, not 5"),
    ],
)
async def test_an_invalid_subscription_changes_nothing(tmp_path, fields, reason):
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as client:
        await client.send(action="subscribe", id=3, **fields)
        error = await client.next("error")
        assert (error["code"], error["id"]) == (400, 3)
        assert reason in error["msg"]
        assert dispatch.statistics() == {}
        answer = await subscribed(client, alerts=["*"], consumer="risk")
        assert answer["alerts"] == ["*"]


async def test_a_session_has_one_consumer(tmp_path):
    async with serving_alerts(tmp_path) as (live, _), connected(live) as client, connected(live) as view:
        await subscribed(client, alerts=["*"], consumer="risk")
        await client.send(action="subscribe", alerts=["*"], consumer="other")
        assert (await client.next("error"))["msg"] == "consumer: this session has consumer risk already"
        await subscribed(view, alerts=["*"])
        await view.send(action="subscribe", alerts=["*"], consumer="risk")
        assert (await view.next("error"))["msg"] == "consumer: this session has a live view already"


async def test_a_consumer_that_is_dropped_is_told_so_and_may_subscribe_again(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as client:
        await subscribed(client, alerts=["*"], consumer="risk")
        assert await dispatch.drop_consumer("risk", "ann")
        error = await client.next("error")
        assert (error["code"], error["msg"]) == (409, "consumer risk was dropped: subscribe again")
        await subscribed(client, alerts=["*"], consumer="risk")
        await append(dispatch, example(1))
        assert (await alert(client))["try"] == 1


async def test_without_alerts_in_the_engine_a_session_is_told_so():
    async with serving() as live, connected(live) as client:
        await client.send(action="subscribe", alerts=["*"])
        assert (await client.next("error"))["msg"].startswith("alerts are off in this engine")
        for target in ("/v1/alerts?consumer=a", "/v1/alerts/silences", "/v1/events?alerts=*"):
            status, body = await http(live, "GET", target)
            assert (status, body["error"]["code"]) == (503, 503)
            assert "alerts are off" in body["error"]["msg"]


async def test_events_carry_alerts_of_a_consumer_and_live_views(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        stream = await live.raw("/v1/events?alerts=*&consumer=risk&start=all", upgrade=False)
        got = b""
        await append(dispatch, example(1))
        while b'"T":"a"' not in got:
            got += await stream.receive_some()
        assert b'"alerts":["*"]' in got
        (event,) = [part for part in got.split(b"\n\n") if b'"T":"a"' in part]
        assert event.startswith(b"data: ")  # without an id: alerts move no cursor
        assert json.loads(event[6:])[0]["ack"] is True
        body = {"consumer": "risk", "alerts": [example(1).id]}
        assert await http(live, "POST", "/v1/alerts/ack", body) == (
            200,
            {"alerts": [example(1).id], "unknown": []},
        )
        view = await live.raw("/v1/events?alerts=wide", upgrade=False)
        got = b""
        while b"synced" not in got:
            got += await view.receive_some()
        await append(dispatch, example(2, "stale"), example(3, "wide"))
        while b'"T":"a"' not in got:
            got += await view.receive_some()
        assert got.count(b'"T":"a"') == 1


async def test_a_poll_waits_for_alerts_and_its_consumer_acknowledges_later(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        assert await http(live, "GET", "/v1/alerts?consumer=risk&timeout_s=0") == (204, None)
        async with trio.open_nursery() as nursery:
            answers: list[Any] = []

            async def poll():
                answers.append(await http(live, "GET", "/v1/alerts?consumer=risk&limit=1"))

            nursery.start_soon(poll)
            while not dispatch.statistics():
                await trio.sleep(0.001)
            await append(dispatch, example(1), example(2))
        ((status, body),) = answers
        assert (status, [one["id"] for one in body["alerts"]]) == (200, [example(1).id])
        assert dispatch.statistics()["risk"].sessions == 1
        status, body = await http(live, "GET", "/v1/alerts?consumer=risk&alerts=*&start=now")
        assert (status, [one["id"] for one in body["alerts"]]) == (200, [example(2).id])
        ids = [example(1).id, example(2).id, example(2).id, "x"]
        status, body = await http(live, "POST", "/v1/alerts/ack", {"consumer": "risk", "alerts": ids})
        assert (status, body["alerts"]) == (200, ids[:2])


async def test_the_head_of_a_poll_takes_nothing(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        await append(dispatch, example(1))
        assert await http(live, "HEAD", "/v1/alerts?consumer=risk") == (200, None)
        assert dispatch.statistics() == {}


async def test_many_large_alerts_come_in_several_frames(tmp_path):
    async with (
        serving_alerts(tmp_path) as (live, dispatch),
        connected(live) as client,
        connected(live) as view,
    ):
        await subscribed(client, alerts=["*"], consumer="risk")
        await subscribed(view, alerts=["*"])
        large = [example(n, data={"text": "x" * 16_000}) for n in range(40)]
        await append(dispatch, *large)
        frames = [await client.ws.get_message() for _ in range(3)]
        assert max(map(len, frames)) <= 262_144 + 2
        assert [one["id"] for frame in frames for one in json.loads(frame)] == [one.id for one in large]
        assert [(await alert(view))["id"] for _ in large] == [one.id for one in large]


async def test_a_poll_ends_with_503_when_the_gateway_drains(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch), trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def poll():
            answers.append(await http(live, "GET", "/v1/alerts?consumer=risk"))

        nursery.start_soon(poll)
        while not dispatch.statistics():
            await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await live.gateway.drain()
        while not answers:
            await trio.sleep(0.001)
        assert answers[0][0] == 503


async def test_notices_are_published_once_and_may_be_waited_for(tmp_path):
    async with serving_alerts(tmp_path) as (live, _), connected(live) as client:
        await subscribed(client, alerts=["*"], consumer="risk")
        order = {
            "key": "order-17",
            "msg": "filled\n100",
            "sev": "info",
            "S": "AAPL",
            "to": "risk",
            "data": {"n": 1},
        }
        status, body = await http(live, "POST", "/v1/alerts", order)
        assert (status, body["key"]) == (201, "order-17")
        assert await http(live, "POST", "/v1/alerts", order) == (200, body)
        message = await alert(client)
        assert {"rule": "notice", "state": "notice", "key": "order-17", "msg": "filled 100", "S": "AAPL",
                "to": "risk", "data": {"n": 1}, "v": None}.items() <= message.items()  # fmt: skip
        status, late = await http(live, "POST", "/v1/alerts?wait=ack&timeout_s=0", order)
        assert (status, late["error"]["msg"].split(":")[0]) == (504, "still queued")
        await client.send(action="ack", alerts=[message["id"]])
        await client.next("acked")
        assert await http(live, "POST", "/v1/alerts?wait=ack", order) == (200, body)


async def test_people_resolve_episodes_and_silence_rules(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        await append(dispatch, one := example(1))
        status, episode = await http(
            live, "POST", "/v1/alerts/resolve", {"key": one.key, "by": "ann", "comment": "on it"}
        )
        assert (status, episode["by"], episode["comment"], episode["cleared"]) == (200, "ann", "on it", 0)
        assert episode["resolved"] > 0
        now_us = time.time_ns() // 1000
        body = {
            "rules": ["wide"],
            "symbols": ["AA*"],
            "ends": now_us + SOON_NS // 1000,
            "by": "ann",
            "comment": "x",
        }
        status, silence = await http(live, "POST", "/v1/alerts/silences", body)
        assert (status, silence["state"], silence["rules"]) == (201, "active", ["wide"])
        later = {**body, "starts": now_us + SOON_NS // 2000}
        assert (await http(live, "POST", "/v1/alerts/silences", later))[1]["state"] == "pending"
        target = f"/v1/alerts/silences?id={silence['id']}&by=bob"
        assert await http(live, "DELETE", target) == (204, None)
        assert (await http(live, "DELETE", target))[0] == 404
        listed = (await http(live, "GET", "/v1/alerts/silences"))[1]["silences"]
        assert sorted(row["state"] for row in listed) == ["expired", "pending"]


async def test_texts_of_people_reach_others_on_one_line(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        await http(live, "POST", "/v1/alerts", {"key": "k", "msg": "a\tb\u2028c"})
        assert [entry.alert.message for entry in await dispatch.entries(0, 9)] == ["a b c"]
        status, silence = await http(
            live, "POST", "/v1/alerts/silences", SILENCE | {"comment": "up\r\ngrade "}
        )
        assert (status, silence["comment"]) == (201, "up grade")


async def test_silences_that_have_ended_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.silencing.EXPIRED", 3)
    monkeypatch.setattr("marketfeed.alerts.sqlite_writes.EXPIRED", 5)
    async with serving_alerts(tmp_path) as (live, dispatch):
        await http(live, "POST", "/v1/alerts/silences", SILENCE)
        made = [(await http(live, "POST", "/v1/alerts/silences", SILENCE))[1]["id"] for _ in range(8)]
        for number in made:
            await dispatch.expire_silence(number, "ann")
        listed = (await http(live, "GET", "/v1/alerts/silences"))[1]["silences"]
        assert {row["id"] for row in listed if row["state"] == "expired"} == set(made[-3:])
        assert len([row for row in listed if row["state"] == "active"]) == 1
        await http(live, "POST", "/v1/alerts/silences", SILENCE)
        assert len(await dispatch.silences()) == 2 + 5


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "reason"),
    [
        ("GET", "/v1/alerts", None, 400, "consumer: missing"),
        ("GET", "/v1/alerts?consumer=", None, 400, "consumer's name must be"),
        ("GET", f"/v1/alerts?consumer={'x' * 300}", None, 400, "consumer's name must be"),
        ("GET", "/v1/alerts?consumer=a&limit=0", None, 400, "limit: 1 to 1000"),
        ("GET", "/v1/alerts?consumer=a&alerts=", None, 400, "need alerts"),
        ("GET", "/v1/alerts?consumer=a&start=x", None, 400, 'start: "now" or "all"'),
        ("GET", "/v1/alerts?consumer=a&timeout_s=x", None, 400, "timeout_s"),
        ("GET", "/v1/events?consumer=a&quotes=A", None, 400, "need alerts"),
        ("GET", f"/v1/events?alerts=*&consumer={'x' * 300}", None, 400, "consumer's name must be"),
        ("POST", "/v1/alerts/ack", {"alerts": []}, 400, "missing required field `consumer`"),
        ("POST", "/v1/alerts/ack", [], 400, "the body: Expected `object`"),
        ("POST", "/v1/alerts", {"key": "", "msg": "m"}, 400, "length >= 1"),
        ("POST", "/v1/alerts", {"key": "k" * 300, "msg": "m"}, 400, "length <= 256"),
        ("POST", "/v1/alerts", {"key": "k", "msg": "m", "sev": "bad"}, 400, "Invalid enum value"),
        ("POST", "/v1/alerts", {"key": "k", "msg": "m", "S": "a b"}, 400, "S: not a symbol"),
        ("POST", "/v1/alerts", {"key": "k", "msg": "m", "to": "x" * 300}, 400, "consumer's name must be"),
        ("POST", "/v1/alerts", {"key": "k", "msg": "m", "more": 1}, 400, "unknown field `more`"),
        ("POST", "/v1/alerts", {"key": "k", "msg": "m", "data": LONG}, 400, "data: at most 16384"),
        ("POST", "/v1/alerts?wait=ack", {"key": "k", "msg": "m"}, 400, "needs `to`"),
        ("POST", "/v1/alerts?wait=no", {"key": "k", "msg": "m"}, 400, "wait: ack"),
        ("POST", "/v1/alerts/resolve", {"key": "k", "by": "ann"}, 404, "no episode has the key 'k'"),
        ("POST", "/v1/alerts/resolve", {"key": "k", "by": ""}, 400, "length >= 1"),
        ("POST", "/v1/alerts/silences", {"ends": 1, "by": "a", "comment": "b"}, 400, "later than now"),
        ("POST", "/v1/alerts", {"key": "k", "msg": "a\x1b[2Jb"}, 400, "msg: control characters"),
        ("POST", "/v1/alerts", {"key": "k", "msg": "a\u202eb"}, 400, "msg: control characters"),
        ("POST", "/v1/alerts/resolve", {"key": "k", "by": "\x9b"}, 400, "by: control characters"),
        ("POST", "/v1/alerts/resolve", {"key": "k", "by": " "}, 400, "by: white space only"),
        ("POST", "/v1/alerts/resolve", {"key": "k", "by": "a", "comment": "\0"}, 400, "comment: control"),
        ("POST", "/v1/alerts/silences", SILENCE | {"by": "\x07"}, 400, "by: control characters"),
        ("POST", "/v1/alerts/silences", SILENCE | {"comment": "\u2066"}, 400, "comment: control characters"),
        ("POST", "/v1/alerts/silences", SILENCE | {"comment": " \n"}, 400, "by, comment: who silences"),
        ("POST", "/v1/alerts/silences", SILENCE | {"symbols": ["a*b"]}, 400, "symbols: must be a symbol"),
        ("POST", "/v1/alerts/silences", SILENCE | {"symbols": ["A", "**"]}, 400, "symbols: must be a symbol"),
        ("POST", "/v1/alerts/silences", SILENCE | {"symbols": ["A\x01"]}, 400, "not 'A\\x01'"),
        ("DELETE", "/v1/alerts/silences?id=x&by=%1b", None, 400, "by: control characters"),
        ("GET", "/v1/alerts?consumer=a&timeout_s=%2B1", None, 400, "timeout_s"),
        ("GET", "/v1/alerts?consumer=a&timeout_s=%D9%A1", None, 400, "timeout_s"),
        ("DELETE", "/v1/alerts/silences", None, 404, "no silence"),
        ("PUT", "/v1/alerts", None, 405, "GET or HEAD or POST"),
    ],
)  # fmt: skip
async def test_a_bad_request_is_answered_with_the_reason(tmp_path, method, target, body, status, reason):
    limits = dataclasses.replace(LIMITS, request_bytes=65_536)
    async with serving_alerts(tmp_path, limits=limits) as (live, dispatch):
        found, answer = await http(live, method, target, body)
        assert (found, answer["error"]["code"]) == (status, status)
        assert reason in answer["error"]["msg"]
        assert (await dispatch.head(), dispatch.statistics()) == (0, {})


async def test_alerts_come_before_quotes_that_a_full_socket_has_not_taken(tmp_path, monkeypatch):
    async with (
        serving_alerts(tmp_path, DeliveryLimits(10, 100)) as (live, dispatch),
        connected(live) as client,
    ):
        live.publish("A")
        await subscribed(client, quotes=["A"], alerts=["*"], consumer="risk")
        full = FullSocket(live, monkeypatch)
        live.publish("A")  # it waits in the outbox
        while not full.outbox.waiting_bytes:
            await trio.sleep(0.001)
        for _ in range(5):
            live.publish("A")
        await append(dispatch, example(1))
        await trio.testing.wait_all_tasks_blocked(0.02)
        full.drain()
        kinds = [(await client.next())["T"] for _ in range(4)]
        assert kinds.index("a") <= 1, kinds
