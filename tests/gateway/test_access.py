"""Access control over real sockets: what sessions and requests with a token get, and without."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import trio

from marketfeed.config.schema import TenantConfig
from marketfeed.errors import CloseCode
from tests.support.access import Control, bearer
from tests.support.live import LIMITS, PATIENT, connected, http, serving
from tests.support.overviews import SetOverview

WIDE = replace(LIMITS, symbols_per_session=100, sessions=50, sessions_per_ip=50)


async def subscribed(client, **fields):
    """Subscribe; return the answer and the snapshot."""
    await client.send(action="subscribe", **fields)
    answer, ticks = await client.next(), []
    assert answer["T"] == "subscription", answer
    while (message := await client.next())["T"] != "synced":
        ticks.append(message)
    return answer, ticks


async def authenticated(client, token, **fields):
    await client.send(action="auth", token=token, **fields)
    return await client.next()


async def test_a_session_authenticates_first_and_sees_what_it_is_entitled_to():
    control = Control()
    async with serving(WIDE, access=control.access) as live:
        live.publish("AAPL", "BTC-EUR", "BTC-USD", "MSFT")
        async with connected(live) as client:
            await client.send(action="subscribe", quotes=["AAPL"], id=1)
            assert (await client.next())["code"] == 401
            await client.send(action="ping", t=1)
            assert (await client.next())["T"] == "pong"
            answer = await authenticated(client, control.token(["BTC*", "MSFT"]), id=2)
            assert (answer["msg"], answer["tier"], answer["id"]) == ("authenticated", "vip", 2)
            assert 3590 < answer["ttl_s"] <= 3600
            await client.send(action="subscribe", quotes=["MSFT", "AAPL"], id=3)
            refused = await client.next()
            assert (refused["code"], refused["id"]) == (409, 3)
            assert "AAPL" in refused["msg"]
            answer, ticks = await subscribed(client, quotes=["*"], id=4)
            assert answer["quotes"] == ["*"]
            assert [tick["S"] for tick in ticks] == ["BTC-EUR", "BTC-USD", "MSFT"]
            live.publish("AAPL", "MSFT", "GOOG", "BTC-NEW")
            assert [(await client.next())["S"] for _ in range(2)] == ["MSFT", "BTC-NEW"]


async def test_a_header_authenticates_the_handshake():
    control = Control()
    async with serving(WIDE, access=control.access) as live:
        async with connected(live, headers=bearer(control.token(["A*"]))) as client:
            assert (await client.next())["msg"] == "authenticated"
            answer, _ = await subscribed(client, quotes=["A1"])
            assert answer["quotes"] == ["A1"]
        stream = await live.raw(headers="Authorization: Bearer nonsense\r\n")
        head = await stream.receive_some()
        assert head.startswith(b"HTTP/1.1 401 ")
        assert b'WWW-Authenticate: Bearer realm="marketfeed"' in head
        assert b"nonsense" not in head


async def test_who_does_not_authenticate_in_time_is_told_and_closed():
    async with serving(PATIENT, access=Control().access) as live, connected(live) as client:
        code, messages = await client.closed()
        assert code == CloseCode.AUTHENTICATION
        assert [message["code"] for message in messages if message["T"] == "error"] == [404]


async def test_failed_tokens_end_a_session_at_the_third():
    async with serving(access=Control().access) as live, connected(live) as client:
        for _ in range(3):
            await client.send(action="auth", token="nonsense")
        code, messages = await client.closed()
        assert code == CloseCode.AUTHENTICATION
        assert [message["code"] for message in messages if message["T"] == "error"] == [402, 402, 402]
        assert live.counters.authentications == {"failed": 3}


@pytest.fixture
def unfetched():
    """Access control whose set of keys could not be fetched."""
    control = Control(jwks="https://idp.example/keys", audience="us", issuer="idp")
    control.fetched = False
    return control


async def test_while_no_keys_are_available_auth_may_be_repeated_and_nothing_looks_permanent(unfetched):
    async with serving(PATIENT, access=unfetched.access) as live, connected(live) as client:
        for number in range(4):
            answer = await authenticated(client, unfetched.token(["*"]), id=number)
            told = (answer["code"], answer["msg"], answer["id"])
            assert told == (500, "keys are not available yet: try again", number)
        code, _ = await client.closed()
        assert code == CloseCode.INTERNAL
        assert live.counters.authentications == {"unavailable": 4}


async def test_while_no_keys_are_available_requests_get_503(unfetched):
    presented = f"Authorization: Bearer {unfetched.token(['*'])}\r\n"
    async with serving(WIDE, access=unfetched.access) as live:
        stream = await live.raw(headers=presented)
        head = await stream.receive_some()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 5\r\n" in head
        unfetched.fetched = True  # the set has no such key, then
        stream = await live.raw(headers=presented)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 ")


async def test_a_tier_that_is_not_entitled_is_refused_and_the_default_is_the_best_that_is():
    control = Control()
    async with serving(access=control.access) as live, connected(live) as client:
        answer = await authenticated(client, control.token(["*"], tier="premium"))
        assert answer["tier"] == "premium"
        await client.send(action="subscribe", quotes=["A"], tier="vip")
        assert (await client.next())["code"] == 409
        answer, _ = await subscribed(client, quotes=["A"])
        assert answer["tier"] == "premium"


async def test_channels_are_entitled_one_by_one():
    control = Control()
    async with serving(access=control.access) as live, connected(live) as client:
        await authenticated(client, control.token(["*"], channels=["trades"]))
        await client.send(action="subscribe", quotes=["A"])
        assert (await client.next())["code"] == 409
        await client.send(action="subscribe", alerts=["*"])
        assert (await client.next())["code"] == 409
        live.publish("A")
        _, ticks = await subscribed(client, quotes=["*"], trades=["A"])
        assert ticks == []


async def test_a_narrower_renewal_takes_effect_between_flushes_and_is_told():
    control = Control()
    async with serving(WIDE, access=control.access) as live, connected(live) as client:
        live.publish("A1", "A2", "B1")
        await authenticated(client, control.token(["*"]))
        _, ticks = await subscribed(client, quotes=["A*", "B1", "A2"])
        assert len(ticks) == 3
        answer = await authenticated(client, control.token(["A1"], tier="premium"), id="r")
        assert (answer["msg"], answer["tier"], answer["id"]) == ("authenticated", "premium", "r")
        told = await client.next()
        assert (told["T"], told["code"]) == ("error", 409)
        assert "A2, B1" in told["msg"]
        left = await client.next()
        assert (left["T"], left["quotes"], left["tier"]) == ("subscription", ["A*"], "premium")
        assert (await client.next())["T"] == "synced"
        live.publish("A2", "B1", "A1", "A3")
        tick = await client.next()
        assert (tick["S"], tick["n"]) == ("A1", 2)
        # A wider one again: what left the subscription does not come back by itself, a pattern matches more.
        assert (await authenticated(client, control.token(["*"])))["tier"] == "premium"
        live.publish("A2")
        assert (await client.next("q"))["S"] in ("A2", "A3")


async def test_a_renewal_by_another_subject_is_refused():
    control = Control()
    async with serving(access=control.access) as live, connected(live) as client:
        await authenticated(client, control.token(["*"]))
        assert (await authenticated(client, control.token(["*"], sub="bob")))["code"] == 403
        assert (await authenticated(client, control.token(["*"])))["msg"] == "authenticated"


async def test_a_session_ends_when_its_token_has_expired_and_the_grace_is_over():
    control = Control()
    async with serving(access=control.access) as live, connected(live) as client:
        assert (await authenticated(client, control.token(["*"], ttl_s=60)))["ttl_s"] <= 60
        control.passed_s = 80
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"
        assert (await authenticated(client, control.token(["*"], ttl_s=60)))["ttl_s"] <= 60
        control.passed_s = 170
        code, messages = await client.closed()
        assert code == CloseCode.TOKEN_EXPIRED
        assert "retry_ms" in messages[-1]


@pytest.mark.parametrize(("kind", "value"), [("sub", "ann"), ("tenant", "firm"), ("token", "t1")])
async def test_sessions_of_what_is_revoked_end(kind, value):
    control = Control()
    async with serving(access=control.access) as live, connected(live) as one, connected(live) as other:
        token = control.token(["*"], tenant="firm", jti="t1")
        await authenticated(one, token)
        await authenticated(other, control.token(["*"], sub="bob", tenant="other", jti="t2"))
        control.revoke(kind, value)
        code, messages = await one.closed()
        assert code == CloseCode.REVOKED
        assert "retry_ms" not in messages[-1]
        await other.send(action="ping")
        assert (await other.next())["T"] == "pong"
        assert (await authenticated(other, token))["code"] == 402


async def test_too_many_sessions_of_one_holder_are_refused_and_closed():
    control = Control()
    token = control.token(["*"], max_sessions=1)
    async with serving(access=control.access) as live:
        async with connected(live, headers=bearer(token)) as one:
            await one.next()
            async with connected(live, headers=bearer(token)) as two:
                code, messages = await two.closed()
                assert code == CloseCode.OVERLOADED
                assert [m["code"] for m in messages if m["T"] == "error"] == [406]
            status, _ = await http(live, "GET", "/v1/events?quotes=A", headers=bearer(token))
            assert status == 503
        while len(control.desk):
            await trio.sleep(0.001)
        async with connected(live, headers=bearer(token)) as three:
            assert (await three.next())["msg"] == "authenticated"
        while live.admitted:
            await trio.sleep(0.001)


async def test_a_tenant_is_bounded_as_a_whole():
    control = Control({"firm": TenantConfig(symbols=("A*",), tiers=["premium"], max_symbols=3)})
    token = control.token(["A1", "B*"], tenant="firm", tier="vip")
    async with serving(access=control.access) as live, connected(live) as one, connected(live) as two:
        live.publish("A1", "A2", "B1")
        assert (await authenticated(one, token))["tier"] == "premium"
        await authenticated(two, control.token(["*"], sub="bob", tenant="firm"))
        _, ticks = await subscribed(one, quotes=["*", "A1"])
        assert [tick["S"] for tick in ticks] == ["A1"]
        await two.send(action="subscribe", quotes=["A1", "A2"])
        assert (await two.next())["code"] == 405
        await subscribed(two, quotes=["A1"])
        control.bound(firm=TenantConfig(symbols=("B*",)))
        told = await one.next("error")
        assert told["code"] == 409
        assert (await one.next("subscription"))["quotes"] == ["*"]
        live.publish("A1", "B1")
        assert (await one.next("q"))["S"] == "B1"
        assert (await two.next("subscription"))["quotes"] == []
        await two.next("synced")
        assert (await authenticated(two, control.token(["*"], tenant="none")))["code"] == 402


async def test_a_session_that_ends_while_others_are_looked_at_again_is_passed_over():
    control = Control({"firm": TenantConfig()})
    async with serving(access=control.access) as live:
        async with connected(live) as client:
            await authenticated(client, control.token(["*"], tenant="firm"))
            (session,) = live.gateway.sessions
        await live.until_empty()
        control.bound(firm=TenantConfig(symbols=("B*",)))
        live.gateway.sessions[session] = None  # as in the list of those that are looked at
        await live.gateway.recheck()
        del live.gateway.sessions[session]


async def test_names_of_a_token_are_bounded():
    control = Control()
    async with serving(WIDE, access=control.access) as live, connected(live) as client:
        await authenticated(client, control.token(["*"], max_symbols=2))
        await subscribed(client, quotes=["A", "B"], trades=["A"])
        await client.send(action="subscribe", trades=["C"])
        assert (await client.next())["code"] == 405


async def test_requests_over_http_are_authorized():
    control = Control()
    async with serving(WIDE, access=control.access) as live:
        live.publish("A1", "A2", "B1")
        header = bearer(control.token(["A*"]))
        for path in ("quotes?symbols=A1", "poll?quotes=A1", "symbols", "latency", "alerts?consumer=x"):
            status, body = await http(live, "GET", f"/v1/{path}")
            assert (status, body["error"]["code"]) == (401, 401), path
        for path in ("quotes?symbols=B1", "poll?quotes=B1", "quotes?symbols=A1,B1", "events?quotes=B1"):
            assert (await http(live, "GET", f"/v1/{path}", headers=header))[0] == 403, path
        status, body = await http(live, "GET", "/v1/quotes?symbols=*", headers=header)
        assert [quote["S"] for quote in body] == ["A1", "A2"]
        status, body = await http(live, "GET", "/v1/poll?quotes=*", headers=header)
        assert [message["S"] for message in body["messages"]] == ["A1", "A2"]
        status, body = await http(live, "GET", "/v1/symbols", headers=header)
        assert [row["S"] for row in body["symbols"]] == ["A1", "A2"]
        limited = bearer(control.token(["A*"], tier="premium"))
        assert (await http(live, "GET", "/v1/quotes?symbols=A1&tier=vip", headers=limited))[0] == 403


async def test_latencies_of_entitled_tiers_and_symbols_are_shown():
    control, overview = Control(), SetOverview()
    tier: dict[str, Any] = {"hops": {}, "ledger": {"matched": 7}, "symbols": {"A1": {}, "B1": {}}}
    overview.shown = {"log": {"path": "/srv/latency.hlog"}, "tiers": {"vip": tier, "premium": tier}}
    async with serving(access=control.access, overview=overview) as live:
        for best, tiers in (("vip", {"vip", "premium"}), ("premium", {"premium"})):
            header = bearer(control.token(["A*"], tier=best))
            status, body = await http(live, "GET", "/v1/latency", headers=header)
            assert (status, body.keys(), set(body["tiers"])) == (200, {"tiers"}, tiers)
            assert body["tiers"]["premium"] == {**tier, "symbols": {"A1": {}}}


@pytest.mark.parametrize("key", ["token", "access_token", "jwt", "api_key", "Authorization"])
@pytest.mark.parametrize("path", ["stream", "events", "poll", "quotes", "symbols", "alerts", "nowhere"])
async def test_a_token_in_a_url_is_refused_and_not_repeated(key, path, capfd):
    control = Control()
    token = control.token(["*"])
    async with serving(access=control.access) as live:
        stream = await live.raw(f"/v1/{path}?quotes=A&symbols=A&{key}={token}", upgrade=path == "stream")
        head = await stream.receive_some()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"a token does not belong in a URL" in head
        assert token.encode() not in head
        assert live.counters.authentications == {"in the URL": 1}
    assert token not in "".join(capfd.readouterr())


async def test_a_poll_that_waits_does_not_outlive_a_revocation():
    control = Control()
    async with serving(access=control.access) as live, trio.open_nursery() as nursery:
        answers = []

        async def poll():
            header = bearer(control.token(["*"]))
            answers.append(await http(live, "GET", "/v1/poll?quotes=A&timeout_s=10", headers=header))

        nursery.start_soon(poll)
        while not len(live.shard.polls):
            await trio.sleep(0.001)
        control.revoke("sub", "ann")
        live.publish("A")
    assert answers[0][0] == 401


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_poll_that_waits_ends_with_its_token(how):
    control = Control()
    async with serving(access=control.access) as live, trio.open_nursery() as nursery:
        answers = []
        # Of a token that has expired, half a second of the grace is left.
        ttl_s = 3600 if how == "revoked" else -24.5

        async def poll():
            header = bearer(control.token(["*"], ttl_s))
            answers.append(await http(live, "GET", "/v1/poll?quotes=A&timeout_s=300", headers=header))

        nursery.start_soon(poll)
        while not len(live.shard.polls):
            await trio.sleep(0.001)
        if how == "revoked":
            control.revoke("sub", "ann")
    status, body = answers[0]
    assert (status, body["error"]["msg"]) == (401, "authentication failed: expired or revoked")


async def test_what_is_refused_or_lost_does_not_count_for_the_tenant():
    control = Control({"firm": TenantConfig(max_symbols=4)})
    token = control.token(["*"], tenant="firm")
    async with serving(access=control.access) as live, connected(live) as one, connected(live) as two:
        await authenticated(one, token)
        await authenticated(two, token)
        for wrong in ({"after": "junk"}, {"alerts": ["*"]}):
            await one.send(action="subscribe", quotes=["A1", "A2", "A3", "A4"], **wrong)
            assert (await one.next())["T"] == "error"
        await subscribed(two, quotes=["B1"])
        await two.send(action="unsubscribe", quotes=["B1"])
        await two.next("subscription")
        await subscribed(one, quotes=["A1", "A2", "A3", "A4"])
        await two.send(action="subscribe", quotes=["B1"])
        assert (await two.next())["code"] == 405
        await authenticated(one, control.token(["A1"], tenant="firm"))
        await one.next("synced")
        await subscribed(two, quotes=["B1", "B2", "B3"])
        control.bound(firm=TenantConfig(max_symbols=4, symbols=("B*",)))
        assert (await one.next("subscription"))["quotes"] == []
        await one.next("synced")
        await two.next("synced")
        await subscribed(two, quotes=["B4"])


async def test_a_ticket_opens_one_session():
    control = Control()
    header = bearer(control.token(["A*"]))
    async with serving(WIDE, access=control.access) as live:
        live.publish("A1", "B1")
        assert (await http(live, "POST", "/v1/tickets"))[0] == 401
        status, body = await http(live, "POST", "/v1/tickets", headers=header)
        assert (status, body["expires_s"]) == (201, 30)
        path = f"/v1/stream?ticket={body['ticket']}"
        async with connected(live, path) as client:
            assert (await client.next())["msg"] == "authenticated"
            _, ticks = await subscribed(client, quotes=["*"])
            assert [tick["S"] for tick in ticks] == ["A1"]
        stream = await live.raw(path)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 ")
        status, body = await http(live, "POST", "/v1/tickets", headers=header)
        control.passed_s = 31
        stream = await live.raw(f"/v1/stream?ticket={body['ticket']}")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 ")


async def test_a_ticket_of_an_event_stream_reopens_it_with_the_last_event_id():
    control = Control()
    header = bearer(control.token(["A*"]))
    async with serving(WIDE, access=control.access) as live:
        live.publish("A1", "B1")
        _, body = await http(live, "POST", "/v1/tickets", headers=header)
        path = f"/v1/events?quotes=*&ticket={body['ticket']}"
        for again in (False, True, True):
            stream = await live.raw(path, upgrade=False, headers="Last-Event-ID: e1:1\r\n" if again else "")
            text = b""
            while b'"synced"' not in text:
                data = await stream.receive_some()
                assert data, text
                text += data
            assert text.startswith(b"HTTP/1.1 200 ")
            assert b"A1" in text or again
            assert b"B1" not in text
        stream = await live.raw(path, upgrade=False)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 ")


async def test_answers_to_different_tokens_have_different_tags():
    control = Control()
    async with serving(WIDE, access=control.access) as live:
        live.publish("B1", "A1")
        tags = []
        for symbols in (["A*"], ["*"], ["A1", "B*"]):
            stream = await live.raw(
                "/v1/quotes?symbols=*",
                upgrade=False,
                headers=f"Authorization: Bearer {control.token(symbols)}\r\n",
            )
            head = (await stream.receive_some()).decode()
            tags.append(next(line for line in head.splitlines() if line.lower().startswith("etag")))
        assert len(set(tags)) == 3


async def test_json_is_told_of_the_grant_on_binary_too():
    control = Control()
    async with serving(access=control.access) as live, connected(live) as client:
        live.publish("B1", "A1")
        await authenticated(client, control.token(["A*"]))
        await client.send(action="subscribe", quotes=["*"], encoding="binary")
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["T"] != "synced":
            seen.append(await client.next())
        assert [one["ids"] for one in seen if one["T"] == "symbols"] == [{"A1": 1}]
        assert json.dumps([one["T"] for one in seen if one["T"] == "tick"]) == '["tick"]'


WAIT_FOR_THE_ENGINE = ["/v1/engine", "/v1/latency", "/v1/symbols"]
WAIT_FOR_OTHERS = ["/v1/quotes?symbols=A*", "/v1/trades?symbols=A*"]


@pytest.mark.parametrize("target", WAIT_FOR_THE_ENGINE + WAIT_FOR_OTHERS)
@pytest.mark.parametrize(("revoked", "status"), [(True, 401), (False, 403)])
async def test_an_answer_that_waited_is_not_sent_if_its_token_gives_less_by_then(target, revoked, status):
    control = Control({"firm": TenantConfig(symbols=("A*",))})
    token = bearer(control.token(["*"], tenant="firm"))
    overview = SetOverview()
    answers: list[int] = []
    async with serving(access=control.access, overview=overview) as live, trio.open_nursery() as nursery:
        live.publish("A1")

        async def ask():
            answers.append((await http(live, "GET", target, headers=token))[0])

        async def change():
            if revoked:
                control.revoke("sub", "ann")
            else:
                control.bound(firm=TenantConfig(symbols=("B*",)))

        await ask()
        if target in WAIT_FOR_THE_ENGINE:
            overview.before = change
            await ask()
        else:
            async with live.service.large:
                nursery.start_soon(ask)
                while not live.service.large.statistics().tasks_waiting:
                    await trio.sleep(0.001)
                await change()
    assert answers == [200, status]
