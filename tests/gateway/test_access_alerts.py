"""Alerts and access control over real sockets: views, consumers, acknowledgements and notices."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
import trio

from marketfeed.api.alerts import NoticeBody
from marketfeed.gateway.alert_routes import notice_of
from marketfeed.testing_alert_log import NOW_NS, example
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


PUBLISHERS = (
    {"sub": "ann"},
    {"sub": "bob"},
    {"sub": "ann", "tenant": "desk"},
    {"sub": "desk", "tenant": "ann"},
)


async def test_nobody_suppresses_a_notice_by_its_key_or_learns_that_there_is_one(tmp_path):
    control = Control()
    notice = {"key": "order-17", "msg": "m", "to": "risk-1"}
    async with serving_alerts(tmp_path, access=control.access) as (live, dispatch):
        found = []
        for holder in PUBLISHERS:
            header = bearer(control.token(["*"], **{**ALL, **holder}))
            status, kept = await http(live, "POST", "/v1/alerts", notice, header)
            assert status == 201, holder
            found.append(kept["id"])
            assert await http(live, "POST", "/v1/alerts", notice, header) == (200, kept)
        assert len({*found}) == len(PUBLISHERS)
        consumer = bearer(control.token(["*"], **ALL))
        _, body = await http(live, "GET", "/v1/alerts?consumer=risk-1", headers=consumer)
        assert [alert["id"] for alert in body["alerts"]] == found
        assert all("publisher" not in alert for alert in body["alerts"])
        kept = [entry.alert.publisher for entry in await dispatch.entries(0, 9)]
        assert kept == ['["","ann"]', '["","bob"]', '["desk","ann"]', '["ann","desk"]']


async def test_a_key_of_ones_own_notice_to_another_consumer_is_refused(tmp_path):
    control = Control()
    ann, bob = (bearer(control.token(["*"], **ALL, sub=sub)) for sub in ("ann", "bob"))
    notice = {"key": "order-17", "msg": "m", "to": "risk-1"}
    async with serving_alerts(tmp_path, access=control.access) as (live, dispatch):
        _, kept = await http(live, "POST", "/v1/alerts", notice, ann)
        other = {**notice, "to": "risk-2"}
        for path in ("/v1/alerts", "/v1/alerts?wait=ack&timeout_s=0"):
            status, body = await http(live, "POST", path, other, ann)
            assert (status, body["error"]) == (409, {"code": 409, "msg": (
                f"the key 'order-17' is that of your notice {kept['id']} to risk-1, "
                "and this one is to risk-2: use another key"
            )})  # fmt: skip
        assert await dispatch.head() == 1
        assert (await http(live, "POST", "/v1/alerts", other, bob))[0] == 201


def test_two_publishers_notices_of_one_moment_have_ids_of_their_own():
    body = NoticeBody(key="k", msg="m", S="A")
    made = [notice_of(body, publisher, NOW_NS).id for publisher in ("", '["","ann"]', '["","bob"]')]
    assert len({*made}) == 3


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
        assert answers[0][0] == 401
        await dispatch.append([about(1, "A1")], time.time_ns())
