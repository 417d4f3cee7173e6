"""``GET /v1/alerts/log`` over real sockets."""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec
import pytest
import trio
import trio.testing

from marketfeed.alerts.history import Page
from marketfeed.api.alerts import AlertHistory
from marketfeed.api.schemas import ref
from marketfeed.testing_alert_log import example
from tests.support.access import Control, bearer
from tests.support.conformance import validate
from tests.support.live import LIMITS, http, serving, serving_alerts


def about(number, symbol, **fields):
    return msgspec.structs.replace(example(number), symbol=symbol, **fields)


ALERTS = [about(1, "A1"), about(2, "B1", severity="critical"), about(3, ""), about(4, "A2", to="risk-1")]


async def history(live, query="", headers=()):
    """Return status and answer, checked."""
    status, answer = await http(live, "GET", f"/v1/alerts/log{query}", headers=headers)
    if status == 200:
        validate(answer, ref(AlertHistory))
    return status, answer


async def symbols(live, query="", headers=()):
    status, answer = await history(live, query, headers)
    assert (status, answer.get("next")) == (200, None)
    return [alert["S"] for alert in answer["alerts"]]


async def test_everything_is_listed_newest_first_as_in_a_live_view(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        assert await history(live) == (200, {"alerts": [], "next": None})
        await dispatch.append(ALERTS, time.time_ns(), {ALERTS[2].id: "silenced"})
        status, answer = await history(live)
        assert (status, [alert["S"] for alert in answer["alerts"]]) == (200, ["B1", "A1"])
        newest = answer["alerts"][0]
        assert (newest["T"], newest["id"], newest["try"], newest["ack"]) == ("a", ALERTS[1].id, 1, False)
        assert "publisher" not in newest


async def test_filters_pages_and_places_to_go_on(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        await dispatch.append(ALERTS, time.time_ns())
        assert await symbols(live, "?symbols=B*,A1") == ["B1", "A1"]
        assert await symbols(live, "?severity=info,critical") == ["B1"]
        assert await symbols(live, "?alerts=wi*&severity=warning") == ["", "A1"]
        assert await symbols(live, "?alerts=&symbols=&severity=") == ["", "B1", "A1"]
        assert await symbols(live, "?alerts=move") == []
        assert await symbols(live, f"?before={ALERTS[1].id}") == ["A1"]
        _, first = await history(live, "?limit=1")
        assert ([alert["S"] for alert in first["alerts"]], first["next"]) == ([""], "3")
        assert await symbols(live, f"?before={first['next']}") == ["B1", "A1"]
        assert (await history(live, f"?before={ALERTS[3].id}"))[0] == 404  # to one consumer
        assert (await history(live, f"?before={example(99).id}"))[0] == 404


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e2", "limit"),
        ("limit=" + "9" * 400, "limit"),
        ("limit=%D9%A3", "limit"),
        ("before=-1", "before"),
        ("before=" + "9" * 19, "before"),
        ("before=1%00", "before"),
        ("before=01jdq3m4r5xw8k2b7n6t9v0yhc", "before"),
        ("before=../../etc/passwd", "before"),
        ("severity=fatal", "severity"),
        ("severity=info,,critical", "severity"),
        ("symbols=A%20B", "symbols: not a symbol"),
        ("symbols=A,,B", "symbols: not a symbol"),
        ("symbols=" + ",".join(f"S{n}" for n in range(501)), "symbols"),
        ("alerts=%2A%2A", "pattern"),
        ("consumer=risk-1", "consumer"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_what_is_wrong_is_said(tmp_path, query, key):
    async with serving_alerts(tmp_path) as (live, _):
        status, answer = await history(live, f"?{query}")
        assert status == 400
        assert key in answer["error"]["msg"]


async def test_it_is_entitled_as_a_live_view_is(tmp_path):
    control = Control()
    async with serving_alerts(tmp_path, access=control.access) as (live, dispatch):
        await dispatch.append(ALERTS, time.time_ns())
        header = bearer(control.token(["A*"], channels=["alerts"]))
        assert await symbols(live, headers=header) == ["", "A1"]
        assert await symbols(live, "?symbols=B*", header) == []
        assert (await history(live, f"?before={ALERTS[1].id}", header))[0] == 404
        assert (await history(live, headers=bearer(control.token(["A*"]))))[0] == 403
        assert (await history(live))[0] == 401


async def test_without_alerts_it_says_so():
    async with serving() as live:
        status, answer = await history(live)
        assert status == 503
        assert "alerts are off" in answer["error"]["msg"]


async def test_nothing_is_looked_up_for_clients_that_have_gone(tmp_path, monkeypatch):
    async with serving_alerts(tmp_path) as (live, dispatch):
        asked, ended = trio.Event(), trio.Event()

        async def history(*_):
            asked.set()
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

        monkeypatch.setattr(dispatch, "history", history)
        stream = await live.connect()
        await stream.send_all(b"GET /v1/alerts/log HTTP/1.1\r\nHost: x\r\n\r\n")
        await asked.wait()
        await stream.aclose()
        await ended.wait()


@pytest.mark.parametrize("control", [None, Control()], ids=["open", "controlled"])
async def test_many_requests_of_a_client_do_not_delay_those_of_others(tmp_path, monkeypatch, control):
    access = None if control is None else control.access
    many, other = (
        (
            [(b"X-Forwarded-For", address)]
            if control is None
            else bearer(control.token(["*"], sub=sub, channels=["alerts"]))
        )
        for sub, address in (("ann", b"192.0.2.1"), ("bob", b"192.0.2.2"))
    )
    limits = replace(LIMITS, sessions=100, sessions_per_ip=100)
    async with serving_alerts(tmp_path, limits=limits, access=access, trusted=("127.0.0.1",)) as (
        live,
        dispatch,
    ):
        asked, go_on = 0, trio.Event()

        async def history(*_):
            nonlocal asked
            asked += 1
            await go_on.wait()
            return Page((), None)

        monkeypatch.setattr(dispatch, "history", history)
        async with trio.open_nursery() as nursery:
            for headers in [many] * 20 + [other]:
                nursery.start_soon(history_of, live, headers)
            while asked < 2:
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert asked == 2
            go_on.set()
        assert asked == 21


async def history_of(live, headers):
    assert (await history(live, "", headers))[0] == 200
