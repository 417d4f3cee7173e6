"""Usage on the admin port: the route, and metrics by tenant."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from marketfeed.access.quotas import Over
from marketfeed.access.usage import Interval, Report, User, UserReport, day_of
from marketfeed.access.usage_report import day_text
from marketfeed.admin import usage_metrics as metrics
from marketfeed.admin.usage_operations import OFF, UsageOperations
from marketfeed.config.schema import AuthConfig, Config, Loaded
from marketfeed.errors import RequestError
from marketfeed.gateway.http import Request
from marketfeed.server.metering import Metering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from prometheus_client.core import Metric


class Source(Collector):
    """What a scrape reads."""

    def __init__(self, one: Metering) -> None:
        self._one = one

    def collect(self) -> Iterable[Metric]:
        return metrics.usage_metrics(self._one)


@asynccontextmanager
async def metering(folder: Path, mode: Any = "keys") -> AsyncIterator[Metering]:
    auth = AuthConfig(mode=mode, path=str(folder / "access.db"))
    found = Metering(Loaded(Config(auth=auth), "config.toml", folder), lambda: ["BTC-USD", "ETH-USD"])
    async with found.open():
        yield found


def report(tenant: str, sub: str, ids: bytes = b"\0\0\0\0") -> Report:
    counts = {("vip", "quotes"): (3, 30), ("vip", "alerts"): (1, 9)}
    now_s = time.time()
    return Report(Interval(now_s, now_s), [ids], [UserReport(tenant, sub, counts, [0])])


async def asked(one: Metering, **query: str) -> tuple[int, Any]:
    request = Request("/v1/usage", {key: [value] for key, value in query.items()})
    response: Any = await UsageOperations(one).routes["/v1/usage"]["GET"](request)
    return response.status, json.loads(response.body)


async def test_usage_by_user_tenant_and_prefix(tmp_path):
    async with metering(tmp_path) as one:
        one.take(report("acme", "ann"))
        one.take(report("acme", "bob", b"\1\0\0\0"))
        one.count_sessions(User("acme", "ann"), 2)
        one.count_sessions(User("acme", "bob"), 1)
        status, body = await asked(one)
        ann, bob = body["rows"]
        assert status == 200
        assert ann == {
            "day": day_text(day_of(time.time())), "tenant": "acme", "sub": "ann", "sessions": 2, "peak": 2,
            "symbols": 1, "quotes": 3, "trades": 0, "alerts": 1, "bytes": 39,
            "counts": [
                {"tier": "vip", "channel": "alerts", "ticks": 1, "bytes": 9},
                {"tier": "vip", "channel": "quotes", "ticks": 3, "bytes": 30},
            ],
        }  # fmt: skip
        assert bob["sub"] == "bob"
        (row,) = (await asked(one, by="tenant", tenant="acme"))[1]["rows"]
        assert (row["users"], row["sessions"], row["symbols"], row["quotes"]) == (2, 3, 2, 6)
        assert "sub" not in row
        prefixes = (await asked(one, by="symbols", prefixes="BTC,E*"))[1]["prefixes"]
        assert [(p["prefix"], p["users"]) for p in prefixes] == [("BTC", 1), ("E", 1)]
        assert (await asked(one, day="2020-01-01", days="3"))[1] == {"rows": []}


async def test_mistakes_are_answered_and_an_engine_without_access_control_says_so(tmp_path):
    async with metering(tmp_path) as one:
        status, body = await asked(one, day="monday")
        assert (status, body["error"]["msg"][:4]) == (400, "day:")
        with pytest.raises(RequestError, match="unknown parameter 'month'"):
            await asked(one, month="5")
        one.path.write_bytes(b"x" * 5000)
        one.path.with_name("access.db-wal").unlink()
        assert (await asked(one))[0] == 503
    async with metering(tmp_path / "off", "none") as off:
        status, body = await asked(off)
        assert (status, body["error"]["msg"]) == (503, OFF)


async def test_metrics_name_tenants_and_never_users(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_TENANTS", 2)
    async with metering(tmp_path) as one:
        for tenant in ("acme", "beta", "gamma", "delta"):
            one.take(report(tenant, "ann@example.com"))
            one.count_sessions(User(tenant, "ann@example.com"), 1)
        one.over = [Over("acme", "max_ticks_per_day of the tenant: 1", "stop")]
        registry = CollectorRegistry()
        registry.register(Source(one))
        text = generate_latest(registry).decode()
    assert "ann@" not in text
    for line in (
        'marketfeed_usage_ticks_total{channel="quotes",tenant="acme",tier="vip"} 3.0',
        'marketfeed_usage_ticks_total{channel="quotes",tenant="(others)",tier="vip"} 6.0',
        'marketfeed_usage_bytes_total{channel="alerts",tenant="beta",tier="vip"} 9.0',
        'marketfeed_usage_alerts_total{tenant="(others)"} 2.0',
        'marketfeed_tenant_sessions{tenant="beta"} 1.0',
        'marketfeed_tenant_sessions{tenant="(others)"} 2.0',
        'marketfeed_tenant_over_quota{action="stop",tenant="acme"} 1.0',
        "marketfeed_usage_store_failures_total 0.0",
        "marketfeed_usage_unwritten 4.0",
    ):
        assert line in text.splitlines()
    async with metering(tmp_path / "off", "none") as off:
        assert list(metrics.usage_metrics(off)) == []
