"""Latencies of a real engine: its log, its metrics and its report say the same, with and without workers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from prometheus_client.parser import text_string_to_metric_families

from marketfeed.core.histogram import DIGITS, HIGHEST_NS, LOWEST_NS
from marketfeed.latency import load
from tests.support import admin_client
from tests.support.process import Engine, engine, open_session

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[latency]
interval_s = 0.2
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 20
rate = 2000
"""
TIERS = ("vip", "premium", "basic")
HOPS = {"venue", "ring", "wait", "encode", "send", "total"}


def get(running: Engine, path: str) -> tuple[int, str]:
    status, _, body = admin_client.get(running.admin_port, path)
    return status, body.decode()


def metrics(running: Engine) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(get(running, "/metrics")[1])
        for sample in family.samples
    }


def until(found, what="it"):
    for _ in range(600):
        if value := found():
            return value
        time.sleep(0.05)  # between looks at another process
    raise AssertionError(f"{what} never came")


def sessions(running: Engine) -> float:
    """Return how many sessions the engine has."""
    return sum(value for key, value in metrics(running).items() if key[0] == "marketfeed_sessions")


def listen(running: Engine, tier: str, ticks: int) -> None:
    """Be a session of ``tier`` for so many ticks after `synced`: what comes before is in no histogram."""
    with open_session(running.url) as ws:
        ws.send(json.dumps({"action": "subscribe", "quotes": ["*"], "trades": ["*"], "tier": tier}))
        synced = False
        while ticks > 0:
            for message in json.loads(ws.recv(timeout=10)):
                synced = synced or message["T"] == "synced"
                ticks -= synced and message["T"] in ("q", "t")


@pytest.mark.parametrize("workers", [0, 2])
def test_log_metrics_and_report_hold_what_was_delivered(tmp_path: Path, workers: int) -> None:
    with engine(CONFIG, tmp_path, "--set", f"engine.workers={workers}") as running:
        for tier in TIERS:
            listen(running, tier, 60)
        until(lambda: not sessions(running), "the end of the sessions")  # until then they are sent more
        delivered = {tier: metrics(running)["marketfeed_delivered_total", tier] for tier in TIERS}

        def counted() -> bool:
            found = metrics(running)
            return all(
                found.get(("marketfeed_hop_seconds_count", "total", tier), 0) >= 60 for tier in TIERS
            ) and all(found["marketfeed_delivered_total", tier] == delivered[tier] for tier in TIERS)

        until(counted, "the last interval")
        shown = json.loads(get(running, "/v1/latency")[1])

        def all_shown() -> Any:  # ledgers may be some seconds old
            public = json.loads(admin_client.get(running.port, "/v1/latency")[2])
            counts = {tier: public["tiers"][tier]["ledger"]["delivered"] for tier in TIERS}
            return public if counts == delivered else None

        public = until(all_shown, "the ledgers")
        assert running.stop() == 0
    assert set(public["tiers"]) == set(TIERS)
    assert set(public) == {"tiers"}  # where the log lies is not for everybody
    for tier in TIERS:
        ledger = public["tiers"][tier]["ledger"]
        assert ledger.pop("matched") == sum(ledger.values()) >= ledger["delivered"]
    assert shown["log"]["problem"] is None
    assert set(shown["tiers"]) == set(TIERS)
    assert set(shown["tiers"]["vip"]["hops"]) - {"client"} == HOPS
    assert set(shown["tiers"]["basic"]["hops"]) - {"client"} == HOPS | {"late"}
    log = tmp_path / "var" / "latency.hlog"
    table = load(log, by=("hop", "tier"))
    sums = table.groupby(["hop", "tier"])["count"].sum()
    for tier in TIERS:
        # A session's first live ticks may come while it is still catching up: they are in no histogram.
        assert 60 <= sums["total", tier] <= delivered[tier]
        assert {sums[hop, tier] for hop in HOPS} == {sums["total", tier]}
    assert (table["max_ns"] <= HIGHEST_NS).all()
    reader, lines = HistogramLogReader(str(log), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)), 0
    while (histogram := reader.get_next_interval_histogram()) is not None:
        assert histogram.get_tag().startswith("hop=")
        lines += 1
    reader.close()
    assert lines >= len(load(log))
    report = subprocess.run(
        [sys.executable, "-m", "marketfeed", "report", str(log), "--hop", "wait", "--budget", "max=2s"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert [line.split()[1] for line in report.stdout.splitlines()[2:]] == ["basic", "premium", "vip"]


def test_symbols_that_are_busy_have_figures_of_their_own(tmp_path: Path) -> None:
    with engine(CONFIG, tmp_path, "--set", "latency.top_symbols=3") as running:
        with open_session(running.url) as ws:
            ws.close_timeout = 0.1  # it hardly reads
            ws.send('{"action":"subscribe","quotes":["*"]}')

            def busiest() -> bool:
                # Not at first, perhaps: the first choice may fall when only a few ticks have come.
                ws.recv(timeout=10)
                vip = json.loads(get(running, "/v1/latency")[1])["tiers"].get("vip", {})
                return "SY0000" in vip.get("symbols", {})

            until(busiest, "the busiest symbol")
        running.stop()
    report = subprocess.run(
        [sys.executable, "-m", "marketfeed", "report", "var/latency.hlog", "--by", "symbol"],
        capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert "SY0000" in report.stdout


def test_a_log_that_cannot_be_written_is_told_and_the_engine_goes_on(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "latency.hlog").symlink_to("/dev/full")
    with engine(CONFIG, tmp_path) as running:
        listen(running, "vip", 20)
        warnings = until(lambda: readyz(running)["warnings"], "a warning")
        assert "latency.hlog: No space left on device" in warnings[0]
        status, text = get(running, "/readyz")  # ticks flow: a balancer must not take the engine out
        assert (status, json.loads(text)["status"], json.loads(text)["problems"]) == (200, "ready", [])
        found = metrics(running)
        assert found["marketfeed_latency_log_writable",] == 0
        assert found["marketfeed_latency_log_failures_total",] > 0
        assert found["marketfeed_warning", "latency_log", ""] == 1
        assert found["marketfeed_ready",] == 1
        assert running.logged("latency log cannot be written; the engine goes on")["level"] == "error"
        listen(running, "vip", 20)
        (tmp_path / "var" / "latency.hlog").unlink()
        until(lambda: not readyz(running)["warnings"], "no warning")
        assert metrics(running)["marketfeed_warning", "latency_log", ""] == 0
        assert running.stop() == 0


def readyz(running: Engine) -> Any:
    return json.loads(get(running, "/readyz")[1])


def test_without_latency_nothing_is_recorded_or_written(tmp_path: Path) -> None:
    with engine(CONFIG, tmp_path, "--set", "latency.enabled=false") as running:
        listen(running, "vip", 20)
        vip = json.loads(get(running, "/v1/latency")[1])["tiers"]["vip"]
        assert (vip["hops"], vip["symbols"], vip["age"]["mean_ns"]) == ({}, {}, 0)
        assert vip["ledger"]["delivered"] >= 20  # ticks are counted all the same
        assert get(running, "/readyz")[0] == 200
        assert running.stop() == 0
    assert not (tmp_path / "var").exists()
