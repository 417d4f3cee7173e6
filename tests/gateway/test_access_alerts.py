"""Alerts and access control over real sockets: views, consumers, acknowledgements and notices."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
import trio

from marketfeed.testing_alert_log import example
from tests.support.access import Control, bearer
from tests.support.live import connected, http, serving_alerts

ALL: dict[str, Any] = {"channels": ["quotes", "alerts"], "consumers": ["risk*"], "publish": ["risk*"]}


def about(number, symbol, **fields):
    return msgspec.structs.replace(example(number), symbol=symbol, **fields)


async def subscribed(client, token, **fields):
    """Authenticate and subscribe."""
    await client.send(action="auth", token=token)
    assert (await client.next())["msg"] == "authenticated"
    await client.send(action="subscribe", **fields)
    answer = await client.next()
    if answer["T"] == "subscription":
        await client.next("synced")
    return answer


async def test_a_live_view_gets_alerts_about_entitled_symbols_and_about_none(tmp_path):
    control = Control()
    async with serving_alerts(tmp_path, access=control.access) as (live, dispatch), connected(live) as client:
        await subscribed(client, control.token(["A*"], **ALL), alerts=["*"])
        await dispatch.append([about(1, "A1"), about(2, "B1"), about(3, "")], time.time_ns())
        assert [(await client.next("a"))["S"] for _ in range(2)] == ["A1", ""]
        await client.send(action="auth", token=control.token(["B*"], **ALL))
        await client.next("success")
        await dispatch.append([about(4, "A1"), about(5, "B1")], time.time_ns())
        assert (await client.next("a"))["S"] == "B1"


async def test_a_consumer_gets_alerts_about_entitled_symbols_and_the_others_are_no_dead_letters(tmp_path):
    control = Control()
    async with serving_alerts(tmp_path, access=control.access) as (live, dispatch), connected(live) as client:
        await subscribed(client, control.token(["A*"], **ALL), alerts=["*"], consumer="risk-1")
        await dispatch.append([about(1, "B1"), about(2, "A1"), about(3, "")], time.time_ns())
        found = [await client.next("a") for _ in range(2)]
        assert [alert["S"] for alert in found] == ["A1", ""]
        await client.send(action="ack", alerts=[alert["id"] for alert in found])
        assert len((await client.next("acked"))["alerts"]) == 2
        statistics = dispatch.statistics()["risk-1"]
        assert statistics.unacknowledged == 0
        assert await dispatch.dead_letters() == []


async def test_alerts_consumers_and_publishing_are_entitled(tmp_path):
    control = Control()
    async with serving_alerts(tmp_path, access=control.access) as (live, _), connected(live) as client:
        answer = await subscribed(client, control.token(["*"]), alerts=["*"])
        assert answer["code"] == 409
        answer = await subscribed(client, control.token(["*"], **ALL), alerts=["*"], consumer="desk")
        assert answer["code"] == 409
        header, other = bearer(control.token(["*"], **ALL)), bearer(control.token(["*"]))
        silence = {"ends": 9 * 10**15, "by": "a", "comment": "c"}
        for method, path, body in (
            ("GET", "/v1/alerts?consumer=desk&timeout_s=0", None),
            ("POST", "/v1/alerts/ack", {"consumer": "desk", "alerts": ["x"]}),
            ("POST", "/v1/alerts", {"key": "k", "msg": "m", "sev": "info"}),
            ("POST", "/v1/alerts", {"key": "k", "msg": "m", "sev": "info", "to": "desk"}),
            ("POST", "/v1/alerts/resolve", {"key": "k", "by": "a", "comment": "c"}),
            ("GET", "/v1/alerts/silences", None),
            ("POST", "/v1/alerts/silences", silence),
            ("DELETE", "/v1/alerts/silences?id=x", None),
        ):
            assert (await http(live, method, path, body, header))[0] == 403, (method, path)
            assert (await http(live, method, path, body))[0] == 401, (method, path)
        assert (await http(live, "GET", "/v1/alerts?consumer=risk-1&timeout_s=0", headers=header))[0] == 204
        assert (await http(live, "GET", "/v1/alerts?consumer=risk-1&timeout_s=0", headers=other))[0] == 403
        notice = {"key": "k", "msg": "m", "sev": "info", "to": "risk-1"}
        assert (await http(live, "POST", "/v1/alerts", notice, header))[0] == 201
        status, body = await http(live, "GET", "/v1/alerts?consumer=risk-1", headers=header)
        assert (status, body["alerts"][0]["msg"]) == (200, "m")
        everybody = bearer(control.token(["*"], **{**ALL, "publish": ["*"]}))
        assert (await http(live, "POST", "/v1/alerts/silences", silence, everybody))[0] == 201


@pytest.mark.parametrize(
    ("claims", "lost"),
    [({"consumers": []}, "consumer risk-1"), ({"channels": ["quotes"]}, "alerts")],
)
async def test_a_narrower_renewal_leaves_a_consumer_and_its_alerts_go_to_another(tmp_path, claims, lost):
    control = Control()
    token = control.token(["*"], **ALL)
    async with serving_alerts(tmp_path, access=control.access) as (live, dispatch), connected(live) as client:
        await subscribed(client, token, alerts=["*"], consumer="risk-1")
        await dispatch.append([about(1, "A1")], time.time_ns())
        await client.next("a")
        await client.send(action="auth", token=control.token(["*"], **{**ALL, **claims}))
        told = await client.next("error")
        assert (told["code"], told["msg"]) == (409, f"no longer entitled: {lost}")
        assert (await client.next("subscription"))["alerts"] == []
        await client.send(action="ack", alerts=["x"])
        assert (await client.next("error"))["code"] == 400
        async with connected(live) as other:
            await subscribed(other, token, alerts=["*"], consumer="risk-1")
            assert (await other.next("a"))["S"] == "A1"


async def test_a_poll_that_waits_gives_no_alert_after_a_revocation(tmp_path):
    control = Control()
    header = bearer(control.token(["*"], **ALL))
    async with serving_alerts(tmp_path, access=control.access) as (live, dispatch):
        answers = []

        async def poll():
            answers.append(await http(live, "GET", "/v1/alerts?consumer=risk-1&timeout_s=10", headers=header))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            while not dispatch.consumers():
                await trio.sleep(0.001)
            control.revoke("sub", "ann")
            await dispatch.append([about(1, "A1")], time.time_ns())
        assert answers[0][0] == 401
