"""Two real Alertmanagers: what is escalated is firing on both, is one alert, and ends."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from marketfeed.alerts.escalation.message import End, Verdict
from marketfeed.alerts.escalation.registry import escalations
from marketfeed.alerts.escalation.schedule import Schedule
from marketfeed.core.units import S
from tests.support.admin_client import post
from tests.support.escalations import EPISODE, raised
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None,
    reason="needs Alertmanager (Debian: prometheus-alertmanager)",
)
CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


@contextmanager
def alertmanager(folder: Path) -> Iterator[str]:
    """A running Alertmanager; yields its URL."""
    folder.mkdir()
    (folder / "alertmanager.yml").write_text(CONFIG)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus-alertmanager", "--config.file=alertmanager.yml", "--storage.path=data",
             "--web.listen-address=127.0.0.1:0", "--cluster.listen-address="],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:

        def url() -> str | None:
            found = re.search(r"Listening on\"? address=(127\.0\.0\.1:\d+)", (folder / "log").read_text())
            return f"http://{found[1]}" if found else None

        running = wait(url)
        wait(lambda: ready(running))
        yield running
    finally:
        process.terminate()
        process.wait(30)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=10) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def firing(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v2/alerts?active=true", timeout=10) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())
        return found


def wait(found: Callable[[], Any]) -> Any:
    for _ in range(300):
        if value := found():
            return value
        time.sleep(0.1)  # between looks at another process
    raise AssertionError("it never came")


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(alertmanager(tmp_path / name)) for name in ("a", "b")]


async def test_an_escalation_fires_on_every_peer_and_ends_when_the_episode_does(peers, tmp_path):
    table = {"kind": "alertmanager", "urls": peers, "after_s": 0, "allow_private": True}
    (built,) = escalations([table], tmp_path, {})
    schedule = Schedule([built.plan])

    async def send() -> list[Verdict]:
        verdicts = []
        for batch in schedule.due(time.time_ns()):
            outcome = await built.sender.send([pending.message for pending in batch], time.time_ns())
            schedule.record(batch, outcome, time.time_ns())
            verdicts.append(outcome.verdict)
        return verdicts

    alert = raised(at_ns=time.time_ns())
    schedule.raised(alert, time.time_ns())
    assert await send() == [Verdict.DELIVERED]
    wait(lambda: all(map(firing, peers)))
    for url in peers:
        (found,) = firing(url)
        assert found["labels"] == {
            "alertname": "wide", "severity": "critical", "symbol": "AAPL", "key": alert.key,
        }  # fmt: skip
        assert found["annotations"]["value"] == "60.5"
        assert found["status"]["state"] == "active"
    # Another value is the same alert, and each post moves its end.
    (first,) = firing(peers[0])
    (pending,) = schedule.pending()
    moved = [msgspec.structs.replace(pending.message, alert=msgspec.structs.replace(alert, value=75.0))]
    assert (await built.sender.send(moved, time.time_ns() + S)).verdict is Verdict.DELIVERED
    (again,) = firing(peers[0])
    assert again["annotations"]["value"] == "75"
    assert again["endsAt"] > first["endsAt"]
    schedule.ended(alert.key, End(cause="cleared", at_ns=time.time_ns()), time.time_ns())
    assert await send() == [Verdict.DELIVERED]
    wait(lambda: not any(map(firing, peers)))
    assert schedule.pending() == []


@pytest.mark.slow
async def test_an_alert_that_is_not_resent_ends_by_itself(peers, tmp_path):
    table = {"kind": "alertmanager", "urls": peers, "after_s": 0, "resend_s": 2.0, "allow_private": True}
    (built,) = escalations([table], tmp_path, {})
    schedule = Schedule([built.plan])
    schedule.raised(raised(at_ns=time.time_ns()), time.time_ns())
    ((pending,),) = schedule.due(time.time_ns())
    await built.sender.send([pending.message], time.time_ns())
    wait(lambda: all(map(firing, peers)))
    wait(lambda: not any(map(firing, peers)))  # 4 × resend_s later


CONFIG_OF_ENGINE = (
    EPISODE
    + """
[[alerts.escalate]]
kind = "alertmanager"
after_s = 0
urls = {urls}
allow_private = true
"""
)


@pytest.mark.e2e
def test_an_episode_of_an_engine_fires_until_a_person_resolves_it(peers, tmp_path):
    config = CONFIG_OF_ENGINE.format(urls=json.dumps([*peers, "http://127.0.0.1:9"]))  # one peer is down
    with engine(config, tmp_path) as running:
        wait(lambda: all(map(firing, peers)))
        (found,) = firing(peers[0])
        assert (found["labels"]["alertname"], found["labels"]["symbol"]) == ("tight", "A")
        body = {"key": found["labels"]["key"], "by": "ann", "comment": "on it"}
        assert post(running.port, "/v1/alerts/resolve", body)[0] == 200
        wait(lambda: not any(map(firing, peers)))
        assert running.stop() == 0
