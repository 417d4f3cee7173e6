"""What is shipped for Prometheus and Grafana fits a running engine; and a real Prometheus scrapes one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.admin_client import get
from tests.support.nats import nats_server
from tests.support.process import Engine, engine, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
CONFIG = """
[latency]
interval_s = 0.2
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 10
rate = 500
[[alerts.rules]]
type = "spread"
absolute = 1e-9
"""
CLUSTER = """
[cluster]
servers = ["{url}"]
replicas = 1
"""
# These have a value only once something went wrong, or a venue sent its time.
ONLY_THEN = {"errors_total", "refused_total", "closes_total"}

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="needs prometheus and promtool (Debian: prometheus)",
)


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression of dashboard, rules and adapter, and where it is."""
    for panel in json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):  # rows have none
            yield f"panel {panel['title']}", target["expr"]
    adapter = (DEPLOY / "kubernetes" / "adapter-rules.yaml").read_text()
    for metric in re.findall(r"seriesQuery: '(\w+)\{", adapter):
        yield "adapter-rules.yaml", metric
    for found in re.finditer(r"^ +expr: (?:>-\n((?: {10,}.*\n)+)|(.*)\n)", RULES.read_text(), re.M):
        yield f"rules.yml at {found.start()}", found[1] or found[2]


def exported(running: Engine) -> dict[str, set[str]]:
    """Metric names of a running engine, those of samples, and their labels."""
    families = list(text_string_to_metric_families(get(running.admin_port, "/metrics")[2].decode()))
    names: dict[str, set[str]] = {
        f"{family.name}_total": set() for family in families if family.type == "counter"
    }
    for family in families:
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


@contextmanager
def busy(folder: Path, *arguments: str, config: str = CONFIG) -> Iterator[Engine]:
    """An engine with sessions on two tiers, and a first interval measured of each."""
    with engine(config, folder, *arguments) as running, ExitStack() as sessions:
        for tier in ("vip", "basic"):
            ws = sessions.enter_context(open_session(running.url))
            ws.close_timeout = 0.1  # it does not read
            consuming = {"alerts": ["*"], "consumer": tier}
            ws.send(json.dumps({"action": "subscribe", "quotes": ["*"], "tier": tier, **consuming}))
        wait(lambda: hops(running).keys() >= {"vip", "basic"})
        yield running


def hops(running: Engine) -> Any:
    return json.loads(get(running.admin_port, "/v1/latency")[2])["tiers"]


def test_every_query_names_metrics_and_labels_that_the_engine_exports(tmp_path: Path) -> None:
    asked = list(expressions())
    assert len(asked) > 50
    with (
        nats_server(tmp_path / "nats") as server,
        busy(tmp_path, config=CONFIG + CLUSTER.format(url=server.url)) as running,
    ):
        names = exported(running)
    for where, expression in asked:
        used = re.findall(r"\b(marketfeed_[a-z0-9_]+)(?:\{([^}]*)\})?", expression)
        assert used or "marketfeed:" in expression or "up{" in expression, where
        for metric, matchers in used:
            assert metric in names, f"{where}: {metric} is not exported"
            labels = set(re.findall(r"([a-z_]+)[=!]~?\"", matchers)) - {"instance"}
            if names[metric] or metric.removeprefix("marketfeed_") not in ONLY_THEN:
                assert labels <= names[metric], f"{where}: {metric} has no label {labels - names[metric]}"


@needs_prometheus
def test_rules_are_valid_and_do_what_they_say() -> None:
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"],
                    ["check", "config", "prometheus.yml"]):  # fmt: skip
        done = subprocess.run(
            ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_a_real_prometheus_scrapes_a_running_engine_and_its_workers(tmp_path: Path) -> None:
    with busy(tmp_path, "--set", "engine.workers=2") as running:
        (tmp_path / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 200ms}}\nrule_files: ['{RULES}']\n"
            "scrape_configs:\n- job_name: marketfeed\n  static_configs:\n"
            f"  - targets: ['127.0.0.1:{running.admin_port}']\n"
        )
        with scraping(tmp_path) as query:
            wait(lambda: query("up") == {"1"})
            assert query("marketfeed_ticks_total{channel='quotes'} > bool 0") == {"1"}
            wait(lambda: query("count(marketfeed:hop_seconds:p99_5m{hop='late',tier='basic'})") == {"1"})
            assert query("marketfeed_latency_log_writable") == {"1"}
            assert query("count(marketfeed_resident_bytes > 1e6)") == {"3"}
            assert query("sum(marketfeed_sessions)") == {"2"}
            assert query("count(ALERTS{alertname='MarketfeedDown'}) or vector(0)") == {"0"}
            assert query("count(marketfeed_matched_total >= marketfeed_delivered_total)") == {"2"}


@needs_prometheus
def test_the_shipped_configuration_scrapes_an_engine_that_requires_a_token(tmp_path: Path) -> None:
    token = tmp_path / "admin.token"
    token.write_text(f"{'0123456789abcdef' * 2}\n")
    shipped = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    with engine('[admin]\ntoken_file = "admin.token"\n', tmp_path) as running:
        text = shipped.replace("# authorization", "authorization").replace("[rules.yml]", f"['{RULES}']")
        text = text.replace("/etc/marketfeed/admin.token", str(token)).replace(
            "interval: 15s", "interval: 1s"
        )
        (tmp_path / "prometheus.yml").write_text(text.replace(":8766", f":{running.admin_port}"))
        with scraping(tmp_path) as query:
            wait(lambda: query("up") == {"1"})
            assert query("marketfeed_ready") == {"1"}


@contextmanager
def scraping(folder: Path) -> Iterator[Any]:
    """A Prometheus of ``folder``/prometheus.yml; yields what asks it a question."""
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
             "--web.listen-address=127.0.0.1:0"],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        found = wait(lambda: port_of(folder / "prometheus.log"))

        def query(expression: str) -> set[str]:
            url = f"http://127.0.0.1:{found}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return {row["value"][1] for row in json.loads(answer.read())["data"]["result"]}
            except urllib.error.HTTPError as error:
                if error.code != 503:  # it listens before it is ready
                    raise
                return set()

        yield query
    finally:
        process.terminate()
        process.wait(30)


def port_of(log: Path) -> int | None:
    found = re.search(r"Listening on\"? address=127\.0\.0\.1:(\d+)", log.read_text())
    return int(found[1]) if found else None


def wait(found: Any) -> Any:
    for _ in range(300):
        if value := found():
            return value
        time.sleep(0.1)  # between looks at another process
    raise AssertionError("it never came")
