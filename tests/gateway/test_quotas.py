"""Tenants that exceed a quota, over real sockets: what their sessions and polls get, and are told."""

from __future__ import annotations

import json

import pytest

from marketfeed.access.quotas import Over
from tests.support.access import Control, bearer
from tests.support.live import connected, http, serving


class Quota:
    """What the engine reports of the tenant."""

    def __init__(self, live, action):
        self._live, self._over = live, Over("firm", "max_ticks_per_day of the tenant: 9", action)

    def exceeded(self):
        self._set([self._over])

    def lifted(self):
        self._set([])

    def _set(self, over):
        self._live.gateway.limit(self._live.service.limited.set(over))


async def opened(client, token, **fields):
    await client.send(action="auth", token=token)
    assert (await client.next())["msg"] == "authenticated"
    await client.send(action="subscribe", **fields)
    while (message := await client.next())["T"] != "synced":
        assert message["T"] in ("subscription", "q"), message


async def test_a_tenant_over_its_quota_gets_a_slower_tier_until_it_is_not():
    control = Control()
    async with serving(access=control.access) as live, connected(live) as one, connected(live) as other:
        quota = Quota(live, "slower")
        live.publish("A")
        await opened(one, control.token(["*"], tenant="firm"), quotes=["A"])
        await opened(other, control.token(["*"], sub="bob", tenant="else"), quotes=["A"])
        quota.exceeded()
        told = await one.next()
        assert (told["code"], told["msg"]) == (429, "over quota: max_ticks_per_day of the tenant: 9")
        assert (await one.next())["tier"] == "premium"
        await one.next("synced")
        live.publish("A", "A", "A")
        assert (await one.next())["n"] == 4
        assert [(await other.next())["n"] for _ in range(3)] == [2, 3, 4]
        await one.send(action="subscribe", quotes=["B"], tier="vip", id=1)
        assert (await one.next())["code"] == 429
        assert (await one.next("subscription"))["tier"] == "premium"
        await one.next("synced")
        quota.lifted()
        assert (await one.next("subscription"))["tier"] == "vip"


async def test_a_tenant_over_its_quota_gets_no_more_and_then_what_it_had():
    control = Control()
    async with serving(access=control.access) as live, connected(live) as client:
        quota = Quota(live, "stop")
        live.publish("A", "B")
        await opened(client, control.token(["*"], tenant="firm"), quotes=["A", "B*"])
        quota.exceeded()
        assert (await client.next())["code"] == 429
        assert (await client.next())["quotes"] == ["A", "B*"]
        await client.next("synced")
        live.publish("A", "B", "B2")
        await client.send(action="ping", t=1)
        assert (await client.next())["T"] == "pong"
        await client.send(action="subscribe", quotes=["C"], id=1)
        assert (await client.next())["code"] == 429
        assert (await client.next())["quotes"] == ["A", "B*", "C"]
        assert (await client.next())["T"] == "synced"
        quota.lifted()
        assert (await client.next())["quotes"] == ["A", "B*", "C"]
        found = [await client.next() for _ in range(3)]
        assert [(tick["S"], tick["n"], tick["snap"]) for tick in found] == [
            ("A", 2, 1),
            ("B", 2, 1),
            ("B2", 1, 1),
        ]
        assert (await client.next())["T"] == "synced"
        live.publish("C")
        assert (await client.next())["S"] == "C"


@pytest.mark.parametrize(("action", "status"), [("slower", 200), ("stop", 429)])
async def test_polls_and_new_sessions_of_a_tenant_over_its_quota(action, status):
    control = Control()
    header = bearer(control.token(["*"], tenant="firm"))
    async with serving(access=control.access) as live:
        Quota(live, action).exceeded()
        live.publish("A")
        for path in ("/v1/quotes?symbols=A&tier=vip", "/v1/poll?quotes=A"):
            found, body = await http(live, "GET", path, headers=header)
            assert found == status
            if status == 429:
                assert body["error"]["msg"] == "over quota: max_ticks_per_day of the tenant: 9"
        async with connected(live, headers=header) as client:
            assert (await client.next())["msg"] == "authenticated"
            assert (await client.next())["code"] == 429
            assert (await client.next())["tier"] == ("premium" if action == "slower" else "vip")
        stream = await live.raw(
            "/v1/events?quotes=A",
            upgrade=False,
            headers=f"{header[0][0].decode()}: {header[0][1].decode()}\r\n",
        )
        text = b""
        while b'"synced"' not in text:
            text += await stream.receive_some()
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith(b"data: ")]
        told = [message for event in events for message in event]
        assert [one["T"] for one in told if one["T"] != "q"] == ["error", "subscription", "synced"]
        assert any(one["T"] == "q" for one in told) == (action == "slower")
