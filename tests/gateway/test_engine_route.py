"""``GET /v1/engine``: what clients with and without a token, here and elsewhere, may know of the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import marketfeed
from marketfeed.api.engine import FEED_STATES, MAX_PATTERNS, EngineAnswer
from marketfeed.api.schemas import ref
from marketfeed.config.schema import TenantConfig
from marketfeed.gateway.files import files
from marketfeed.gateway.hosts import Hosts
from marketfeed.gateway.overview import EngineNow, FeedNow
from marketfeed.ingest.supervise import FeedState
from tests.support.access import Control, bearer
from tests.support.conformance import validate
from tests.support.live import LIMITS, http, serving, serving_alerts
from tests.support.overviews import SetOverview

DEMO = FeedNow(0, "demo", "live", 17)
VENUE = FeedNow(3, "venue", "down", 18, "it failed, and is run again after a delay")


async def engine(live, headers=(), target="/v1/engine"):
    """Return the answer, which its schema describes, as it is for a client with these headers."""
    status, answer = await http(live, "GET", target, headers=headers)
    if status == 200:
        validate(answer, ref(EngineAnswer))
    return status, answer


async def test_everybody_sees_everything_without_access_control():
    overview = SetOverview(DEMO, VENUE)
    async with serving(overview=overview) as live:
        status, answer = await engine(live)
        assert status == 200
        before, after = live.shard.wall_ns() // 1000 - 10_000_000, live.shard.wall_ns() // 1000
        assert before < answer.pop("now") <= after
        assert answer == {
            "version": marketfeed.__version__,
            "auth": "none",
            "epoch": "e1",
            "sdk": files().sdk,
            "alerts": False,
            "default_tier": "vip",
            "tiers": [
                {"tier": "vip", "interval_ms": 0, "delivery": "every"},
                {"tier": "premium", "interval_ms": 20, "delivery": "latest"},
            ],
            "feeds": [
                {"feed": "demo", "state": "live", "since": 17, "reason": None},
                {"feed": "venue", "state": "down", "since": 18, "reason": VENUE.reason},
            ],
        }
        overview.now = EngineNow((FeedNow(0, "demo", "stale", 18),))
        assert (await engine(live))[1]["feeds"][0]["state"] == "stale"


async def test_alerts_are_on_if_there_is_a_log(tmp_path):
    async with serving_alerts(tmp_path) as (live, _):
        assert (await engine(live))[1]["alerts"] is True


async def test_without_a_token_one_learns_that_one_is_needed_and_nothing_else():
    async with serving(access=Control().access, overview=SetOverview(DEMO)) as live:
        assert await engine(live) == (200, {"version": marketfeed.__version__, "auth": "jwt"})
        for header in (b"Bearer nonsense", b"Basic YTpi", b"Bearer", b""):
            status, answer = await engine(live, [(b"Authorization", header)])
            assert (status, answer.keys()) == (401, {"error"})


async def test_a_token_shows_what_it_entitles_to():
    tenants = {"desk": TenantConfig(symbols=("B*", "AAPL"), channels=("quotes", "alerts"), tiers=["premium"])}
    control = Control(tenants)
    claims: Any = {"tenant": "desk", "channels": ["quotes", "trades", "alerts"], "consumers": ["risk-*"]}
    token = control.token(["BTC*", "AAPL", "MSFT"], publish=["risk-1"], max_symbols=9, **claims)
    async with serving(access=control.access, overview=SetOverview(DEMO)) as live:
        status, answer = await engine(live, bearer(token))
        assert status == 200
        access = answer["access"]
        assert abs(access.pop("expires") / 1e6 - control.now_s() - 3600) < 60
        assert access == {
            "sub": "ann",
            "tenant": "desk",
            "tiers": ["premium"],
            "channels": ["quotes", "alerts"],
            "symbols": ["BTC*", "AAPL"],
            "consumers": ["risk-*"],
            "publish": ["risk-1"],
            "more": 0,
            "max_symbols": 9,
        }
        assert answer["default_tier"] == "premium"
        assert [one["tier"] for one in answer["tiers"]] == ["premium"]
        assert [one["feed"] for one in answer["feeds"]] == ["demo"]
        assert not answer["alerts"]  # entitled, and off
        control.revoke("sub", "ann")
        assert (await engine(live, bearer(token)))[0] == 401


async def test_alerts_about_no_symbol_are_left_to_a_token_whose_symbols_its_tenant_excludes():
    control = Control({"desk": TenantConfig(symbols=("B*",))})
    token = control.token(["AAPL"], tenant="desk", channels=["quotes", "alerts"])
    async with serving(access=control.access) as live:
        access = (await engine(live, bearer(token)))[1]["access"]
    assert (access["channels"], access["symbols"]) == (["alerts"], [])


async def test_long_lists_of_a_token_are_cut_and_counted():
    control = Control()
    token = control.token([f"S{n:03}" for n in range(MAX_PATTERNS + 5)])
    async with serving(access=control.access) as live:
        access = (await engine(live, bearer(token)))[1]["access"]
    assert (len(access["symbols"]), access["more"]) == (MAX_PATTERNS, 5)
    assert (access["channels"], access["tenant"], access["max_symbols"]) == (["quotes", "trades"], "", None)


@pytest.mark.parametrize(
    ("host", "authority", "shown"),
    [
        ("127.0.0.1", "127.0.0.1:8765", "http://127.0.0.1:8766"),
        ("127.0.0.1", "localhost:8765", "http://localhost:8766"),
        ("localhost", "127.0.0.1:8765", "http://127.0.0.1:8766"),
        ("localhost", "localhost", "http://localhost:8766"),
        ("::1", "[::1]:8765", "http://[::1]:8766"),
        ("127.0.0.2", "127.0.0.1:8765", "http://127.0.0.2:8766"),
    ],
)
async def test_a_client_on_the_same_machine_is_shown_the_admin_port_under_the_name_it_used(
    host, authority, shown
):
    overview = SetOverview(admin=(host, 8766))
    async with serving(overview=overview, hosts=Hosts(["x"])) as live:
        _, answer = await engine(live, target=f"http://{authority}/v1/engine")
        assert answer["admin"] == shown


async def test_clients_of_other_machines_are_not_shown_the_admin_port():
    here: Any = {
        "overview": SetOverview(admin=("127.0.0.1", 8766)),
        "hosts": Hosts(["x", "feed.example.com"]),
    }
    local = "http://localhost/v1/engine"
    for trusted in ((), ("127.0.0.1",)):
        async with serving(trusted=trusted, **here) as live:
            assert "admin" in (await engine(live, target=local))[1]
            for name, value in ((b"X-Forwarded-For", b"203.0.113.7"), (b"Via", b"1.1 proxy")):
                assert "admin" not in (await engine(live, [(name, value)], local))[1]
            for host in ("feed.example.com", "203.0.113.7", "[2001:db8::1]"):
                assert "admin" not in (await engine(live, target=f"http://{host}/v1/engine"))[1]
    async with serving(overview=SetOverview(), hosts=Hosts(["x"])) as live:
        assert "admin" not in (await engine(live, target=local))[1]


async def test_it_takes_no_parameters_and_counts_as_a_request():
    async with serving(replace(LIMITS, requests_per_s=2)) as live:
        assert (await engine(live, target="/v1/engine?feed=demo"))[0] == 400
        assert [(await engine(live))[0] for _ in range(2)][-1] == 429


def test_every_state_of_a_feed_is_described():
    assert set(FEED_STATES) == {state.value for state in FeedState}
