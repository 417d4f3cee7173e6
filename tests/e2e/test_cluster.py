"""Two engines and a real NATS server: the same ticks on both, and what clients are told of failures."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from marketfeed.client import Closing, publisher
from tests.support.admin_client import get
from tests.support.crowd import metrics
from tests.support.nodes import (
    DEMO,
    PUSH,
    WAIT_S,
    Watcher,
    check_equal,
    cluster_of,
    config,
    readiness,
    running_node,
    states,
)
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.process import Engine

pytestmark = pytest.mark.slow


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until ``condition``, which may make requests, holds."""
    with trio.fail_after(WAIT_S):
        while not await trio.to_thread.run_sync(condition):
            await trio.sleep(0.05)


async def stopped(running: Engine, how: int = signal.SIGTERM) -> int:
    return await trio.to_thread.run_sync(running.stop, how)


def origin_in(running: Engine) -> list[str]:
    return [node["node"] for node in cluster_of(running)["nodes"] if node["origin"]]


def status_of(admin: int, *arguments: str) -> tuple[int, str]:
    """Return exit status and output of ``marketfeed cluster status``."""
    command = [sys.executable, "-m", "marketfeed", "cluster", "status", "--url", f"http://127.0.0.1:{admin}"]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=False, timeout=WAIT_S)
    return done.returncode, done.stdout.decode()


async def test_both_serve_the_same_ticks(tmp_path, server, nursery):
    with running_node(server, tmp_path, "a") as a, running_node(server, tmp_path, "b") as b:
        watchers = Watcher(a.port), Watcher(b.port)
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        for watcher in watchers:
            await watcher.more(400)
            watcher.check()
        check_equal(*watchers)
        assert watchers[0].epochs() == watchers[1].epochs()
        await eventually(lambda: states(a) == states(b) == {"a": "live", "b": "live"})
        await eventually(lambda: origin_in(b) == ["a"])
        for running in (a, b):
            status, body = readiness(running)
            assert (status, body["status"], body["problems"]) == (200, "ready", [])
            assert body["warnings"] == [
                "cluster: replicas = 1: the loss of one NATS server stops it",
                *[text for text in body["warnings"] if not text.startswith("cluster: replicas")],
            ]
            rows = json.loads(get(running.port, "/v1/nodes")[2])
            assert {row["url"] for row in rows} == {f"http://127.0.0.1:{one.port}" for one in (a, b)}
        found = metrics(b)
        assert found["marketfeed_cluster_origin",] == 0
        assert found["marketfeed_cluster_frames_total",] > 0
        assert found["marketfeed_cluster_link_state", "connected"] == 1
        assert found["marketfeed_cluster_nodes", "live"] == 2
        assert metrics(a)["marketfeed_cluster_origin",] == 1
        status, text = await trio.to_thread.run_sync(status_of, b.admin_port)
        assert status == 0
        assert [line.split()[:4] for line in text.splitlines()[2:]] == [
            ["a", "both", "live", "*"],
            ["b", "both", "live", str(cluster_of(b)["nodes"][1]["term"])],
        ]
        nursery.cancel_scope.cancel()


async def test_a_client_moves_with_its_cursor(tmp_path, server, nursery):
    with running_node(server, tmp_path, "a") as a, running_node(server, tmp_path, "b") as b:
        ticks: dict[Any, Any] = {}
        cursor = None
        for running in (a, b, a, b):
            watcher = Watcher(running.port, after=cursor)
            nursery.start_soon(watcher.run)
            await watcher.more(300)
            cursor = await watcher.stop()
            assert watcher.resets() == 0
            ticks |= watcher.ticks
            watcher.ticks = ticks
            watcher.check()  # over both nodes
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("workers", [0, 2])
async def test_another_node_takes_over_when_the_origin_is_killed(tmp_path, server, nursery, workers):
    with (
        running_node(server, tmp_path, "a", workers=workers) as a,
        running_node(server, tmp_path, "b", workers=workers) as b,
    ):
        watcher = Watcher(b.port, a.port)
        nursery.start_soon(watcher.run)
        await watcher.more(300)
        first = watcher.feed.epoch
        a.process.kill()
        await watcher.until(lambda: len(watcher.epochs()) == 2)
        await watcher.more(300)
        assert watcher.epochs()[0] == first
        assert watcher.sources()[0] == "stale"
        assert watcher.of(Closing)[0].code == 1001
        assert watcher.resets() == 1
        watcher.check()
        assert watcher.feed.source in (None, "live")
        await eventually(lambda: origin_in(b) == ["b"])
        nursery.cancel_scope.cancel()


async def test_an_origin_that_is_started_again_does_not_wait_for_its_lease(tmp_path, server, nursery):
    lease_s = 3600.0  # far beyond WAIT_S
    with (
        running_node(server, tmp_path, "a", lease_s=lease_s) as a,
        running_node(server, tmp_path, "b", lease_s=lease_s) as b,
    ):
        watcher = Watcher(b.port)
        nursery.start_soon(watcher.run)
        await watcher.more(300)
        await stopped(a, signal.SIGKILL)
        with running_node(server, tmp_path, "a", lease_s=lease_s):
            await eventually(lambda: origin_in(b) == ["a"])
            await watcher.more(300)
            watcher.check()
            assert len(watcher.epochs()) == 2
            nursery.cancel_scope.cancel()


async def test_a_paused_origin_sends_nothing_and_becomes_a_mirror(tmp_path, server, nursery):
    with running_node(server, tmp_path, "a") as a, running_node(server, tmp_path, "b") as b:
        watchers = Watcher(a.port), Watcher(b.port)
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        for watcher in watchers:
            await watcher.more(100)
        a.process.send_signal(signal.SIGSTOP)
        await watchers[1].until(lambda: len(watchers[1].epochs()) == 2)
        a.process.send_signal(signal.SIGCONT)
        await watchers[0].until(lambda: len(watchers[0].epochs()) == 2)
        for watcher in watchers:
            await watcher.more(300)
            watcher.check()
        check_equal(*watchers)
        await eventually(lambda: origin_in(a) == ["b"])
        found = metrics(a)
        assert found["marketfeed_cluster_origin",] == 0
        assert metrics(b)["marketfeed_cluster_mirror_faults_total", "invalid"] == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("workers", [0, 2])
async def test_an_origin_that_is_ended_hands_over_without_a_gap(tmp_path, server, nursery, workers):
    with (
        running_node(server, tmp_path, "a", workers=workers) as a,
        running_node(server, tmp_path, "b", workers=workers) as b,
    ):
        watchers = Watcher(a.port), Watcher(b.port)
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        for watcher in watchers:
            await watcher.more(200)
        await eventually(lambda: states(a) == {"a": "live", "b": "live"})
        assert await stopped(a) == 0
        for watcher in watchers:
            await watcher.more(500)
            watcher.check()
        assert watchers[0].of(Closing)[0].url == f"http://127.0.0.1:{b.port}"
        assert watchers[1].of(Closing) == []
        assert [len(watcher.epochs()) for watcher in watchers] == [1, 1]
        assert [watcher.resets() for watcher in watchers] == [0, 0]
        check_equal(*watchers)
        await eventually(lambda: origin_in(b) == ["b"])
        nursery.cancel_scope.cancel()


async def test_a_third_node_follows_a_handover_without_a_gap(tmp_path, server, nursery):
    """Nodes are upgraded one after the other."""
    with (
        running_node(server, tmp_path, "a") as a,
        running_node(server, tmp_path, "b") as b,
        running_node(server, tmp_path, "c", role="gateway") as c,
    ):
        watcher = Watcher(c.port)
        nursery.start_soon(watcher.run)
        await watcher.more(200)
        await eventually(lambda: states(a) == dict.fromkeys("abc", "live"))
        assert await stopped(a) == 0
        await watcher.more(500)
        watcher.check()
        assert (len(watcher.epochs()), watcher.resets(), len(watcher.of(Closing))) == (1, 0, 0)
        assert metrics(c)["marketfeed_cluster_adopted_total",] == 0
        await eventually(lambda: origin_in(c) == ["b"])
        assert await stopped(b) == 0
        await watcher.until(lambda: watcher.sources() == ["stale"])
        nursery.cancel_scope.cancel()


async def test_a_restart_of_nats_is_told_and_leaves_no_hole(tmp_path, server, nursery):
    with (
        running_node(server, tmp_path, "a", lease_s=60.0) as a,
        running_node(server, tmp_path, "b", lease_s=60.0) as b,
    ):
        watchers = Watcher(a.port), Watcher(b.port)
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        for watcher in watchers:
            await watcher.more(100)
        await trio.to_thread.run_sync(server.kill)
        await watchers[1].until(lambda: watchers[1].sources() == ["stale"])
        status, body = readiness(b)
        assert (status, body["status"]) == (200, "ready")
        assert any(text.startswith("cluster: no connection to NATS") for text in body["warnings"])
        assert "cluster: the source of ticks is not heard" in body["warnings"]
        await watchers[0].more(100)  # the origin goes on while its lease holds
        server.start()
        await trio.to_thread.run_sync(server.wait_until_ready)
        await watchers[1].until(lambda: watchers[1].sources() == ["stale", "live"])
        for watcher in watchers:
            await watcher.more(300)
            watcher.check()
            assert (len(watcher.epochs()), watcher.resets()) == (1, 0)
        check_equal(*watchers)
        assert watchers[0].sources() == []
        assert metrics(b)["marketfeed_cluster_adopted_total",] == 0
        nursery.cancel_scope.cancel()


async def test_an_origin_without_nats_stops_before_its_lease_ends(tmp_path, server, nursery):
    with running_node(server, tmp_path, "a") as a:
        watcher = Watcher(a.port)
        nursery.start_soon(watcher.run)
        await watcher.more(100)
        await trio.to_thread.run_sync(server.kill)
        await watcher.until(lambda: watcher.sources() == ["stale"])
        assert metrics(a)["marketfeed_cluster_origin",] == 0
        server.start()
        await watcher.until(lambda: watcher.sources() == ["stale", "live"])
        await watcher.more(100)
        watcher.check()
        assert len(watcher.epochs()) == 1  # nobody held the lease in between
        nursery.cancel_scope.cancel()


async def test_ticks_of_publishers_reach_both_nodes(tmp_path, server, nursery):
    with (
        running_node(server, tmp_path, "a", feeds=PUSH) as a,
        running_node(server, tmp_path, "b", feeds=PUSH) as b,
    ):
        watchers = Watcher(a.port), Watcher(b.port)
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        async with publisher(str(tmp_path / "a" / "push.sock")) as out:
            await out.wait_connected()

            async def publish() -> None:
                for number in range(1, 10**6):
                    out.quote("A", bid=number, bid_size=1, ask=10**6, ask_size=1)
                    await trio.sleep(0.002)

            nursery.start_soon(publish)
            for watcher in watchers:
                await watcher.more(200)
                watcher.check()
            check_equal(*watchers)
            assert all(n == bid for _, n, bid in watchers[1].ticks.values())
            nursery.cancel_scope.cancel()


@contextmanager
def started(text: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a node that may never serve; return the process and its admin port."""
    admin = free_port()
    path = folder / "alone.toml"
    path.write_text(text)
    command = [sys.executable, "-m", "marketfeed", "serve", "--config", str(path), "--set", "gateway.port=0"]
    with subprocess.Popen(
        [*command, "--set", f"admin.port={admin}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process, admin
        finally:
            process.kill()


async def not_ready(admin: int, word: str) -> list[str]:
    """Return the problems in ``/readyz`` once ``word`` is in one."""
    problems: list[str] = []

    def found() -> bool:
        try:
            status, _, text = get(admin, "/readyz")
        except OSError:
            return False
        problems[:] = json.loads(text)["problems"]
        return status == 503 and word in str(problems)

    await eventually(found)
    return problems


async def test_a_node_with_other_rings_refuses_with_the_reason(tmp_path, server):
    text = config(server, "b", free_port(), depth=1024)
    with running_node(server, tmp_path, "a") as a, started(text, tmp_path) as (_, admin):
        assert await not_ready(admin, "refused:") == [
            "cluster: refused: the origin's rings have 64 symbols × 4096 ticks, those of this node "
            "64 symbols × 1024 ticks; set engine.max_symbols and engine.ring_depth alike"
        ]
        await eventually(lambda: states(a) == {"a": "live", "b": "joining"})


async def test_without_nats_a_node_says_what_it_waits_for(tmp_path, server):
    server.kill()
    with started(config(server, "a", free_port()), tmp_path) as (_, admin):
        assert await not_ready(admin, "refused") == [
            "cluster: joining: no connection to NATS: Connection refused"
        ]


async def test_an_ingest_node_feeds_gateways(tmp_path, server, nursery):
    text = config(server, "a", free_port(), role="ingest")
    with started(text, tmp_path) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"marketfeed ready without gateway epoch=")
        with running_node(server, tmp_path, "b", role="gateway", feeds="") as b:
            watcher = Watcher(b.port)
            nursery.start_soon(watcher.run)
            await watcher.more(200)
            watcher.check()
            rows = json.loads(get(b.port, "/v1/nodes")[2])
            assert [row["url"] for row in rows] == [f"http://127.0.0.1:{b.port}"]
            process.kill()
            await watcher.until(lambda: watcher.sources() == ["stale"])
            await eventually(lambda: states(b) == {"b": "stale"})
            status, text = await trio.to_thread.run_sync(status_of, b.admin_port, "--json")
            assert (status, json.loads(text)["nodes"][0]["state"]) == (1, "stale")
            assert origin_in(b) == []
            nursery.cancel_scope.cancel()


def test_an_engine_without_a_cluster_loads_no_client_of_nats(tmp_path):
    code = (
        "import sys; from pathlib import Path; from marketfeed.config.schema import load;"
        "from marketfeed.engine import Engine; engine = Engine(load(Path('config.toml'), []));"
        "assert engine.member is None;"
        "assert not {'nats', 'marketfeed.clustering.member'} & sys.modules.keys()"
    )
    (tmp_path / "config.toml").write_text(DEMO)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=WAIT_S)
