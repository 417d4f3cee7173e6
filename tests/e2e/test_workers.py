"""``engine.workers = N`` from outside: the same as one process, and robust against the death of any."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import trio

from marketfeed import QUOTE
from marketfeed.core.binary import quotes_frame, symbols_frame
from tests.support.admin_client import get
from tests.support.crowd import Session, join, lives, metrics, workers
from tests.support.process import engine, open_session
from tests.support.publishers import address_of, connect

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'
PUSH = '[[feeds]]\nname = "pub"\ntype = "push"\nlisten = "127.0.0.1:0"\n'
TINY = "[engine]\nring_depth = 64\n"  # the writer comes round often
TWO = ("--set", "engine.workers=2")
QUIETLY = ("--set", "gateway.port=0", "--set", "admin.port=0", "--log-level", "error")
ALL = {"action": "subscribe", "quotes": ["*"], "trades": ["*"]}


def test_one_line_on_stdout_and_a_clean_end_on_sigterm(tmp_path):
    with engine(SYNTHETIC, tmp_path, *TWO) as running, open_session(running.url) as ws:
        pids = workers(running)
        assert len(pids) == 2
        ws.send(json.dumps(ALL))
        assert json.loads(ws.recv())[0]["T"] == "subscription"
        running.process.send_signal(signal.SIGTERM)
        messages = [message for frame in ws for message in json.loads(frame)]
        assert (messages[-1]["T"], messages[-1]["code"]) == ("closing", 1001)
        assert ws.protocol.close_rcvd is not None
        assert ws.protocol.close_rcvd.code == 1001
        assert running.process.wait(10) == 0
        assert running.process.stdout is not None
        assert running.process.stdout.read() == ""
        assert running.logged("stopped")
        assert not any(map(lives, pids))


def test_a_second_signal_stops_at_once_with_130_and_leaves_no_process(tmp_path):
    with engine(SYNTHETIC, tmp_path, *TWO, "--set", "engine.drain_s=60") as running:
        pids = workers(running)
        running.process.send_signal(signal.SIGSTOP)  # so that both signals wait for it together
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGCONT)
        assert running.process.wait(10) == 130
        while any(map(lives, pids)):
            running._reader.join(0.01)


async def test_200_sessions_over_three_workers_receive_exactly_the_ticks_published(tmp_path):
    names = {f"S{i}": i for i in range(40)}
    with (
        trio.fail_after(60),
        engine(PUSH, tmp_path, "--set", "engine.workers=3") as running,
        connect(address_of(running, "pub")) as publisher,
    ):
        async with trio.open_nursery() as nursery:
            sessions = await join(nursery, running, 200, ALL)
            publisher.sendall(symbols_frame(names, 0))
            rng = np.random.default_rng(1)
            published: Counter[int] = Counter()
            for _ in range(50):
                quotes = np.zeros(40, QUOTE)
                quotes["symbol"] = rng.integers(0, 40, 40)
                quotes["bid_px"], quotes["bid_sz"] = 10**9, 1
                published.update(quotes["symbol"].tolist())
                publisher.sendall(quotes_frame(quotes, 0))
            for session in sessions:
                await session.until(2000)
                assert session.follower.count == 2000
                # From n = 1 without a hole, which the follower checks, to the last of each symbol.
                assert session.follower.last == {("q", f"S{i}"): n for i, n in published.items()}
            found = metrics(running)
            assert found["marketfeed_delivered_total", "vip"] == 200 * 2000
            assert found["marketfeed_sessions", "vip", "websocket"] == 200
            connections = [found["marketfeed_worker_connections", str(i)] for i in range(3)]
            assert sum(connections) == 200
            assert max(connections) - min(connections) <= 1
            nursery.cancel_scope.cancel()


class Whole(Session):
    """Checks that every quote is one that was published, and no part of another."""

    def _take(self, messages):
        super()._take(messages)
        for quote in messages:
            if quote["T"] == "q":
                k = quote["t"]
                assert (quote["bp"], quote["bs"], quote["ap"], quote["as"]) == (k, k + 1, k + 2, k + 3)


async def keep_publishing(stream: trio.SocketStream) -> None:
    """Publish quotes whose fields all follow from one number, until the engine is gone."""
    names = {f"S{i}": i for i in range(7)}
    with suppress(trio.BrokenResourceError):
        await stream.send_all(symbols_frame(names, 0))
        for first in itertools.count(1, 200):
            quotes, k = np.zeros(200, QUOTE), np.arange(first, first + 200)
            quotes["symbol"], quotes["ts_event"] = k % 7, k * 1000
            quotes["bid_px"], quotes["ask_px"] = k * 10**9, (k + 2) * 10**9
            quotes["bid_sz"], quotes["ask_sz"] = k + 1, k + 3
            await stream.send_all(quotes_frame(quotes, 0))
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("life", range(100 if os.environ.get("MARKETFEED_PROVE") else 2))
async def test_when_the_engine_is_killed_mid_write_no_torn_tick_was_delivered_and_no_process_is_left(
    tmp_path, life
):
    wanted = int(np.random.default_rng(life).integers(200, 2000))
    with trio.fail_after(60), engine(PUSH + TINY, tmp_path, *TWO) as running:
        pids = workers(running)
        host, port = address_of(running, "pub").rsplit(":")
        async with trio.open_nursery() as nursery, await trio.open_tcp_stream(host, int(port)) as stream:
            sessions = [Whole(running.port, ALL) for _ in range(2)]
            for session in sessions:
                nursery.start_soon(session.run)
                await session.synced.wait()
            nursery.start_soon(keep_publishing, stream)
            await sessions[0].until(wanted)
            running.process.kill()
            for session in sessions:
                await session.ended.wait()
                assert session.follower.count
            nursery.cancel_scope.cancel()
        while any(map(lives, pids)):
            await trio.sleep(0.01)
        assert running.process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_when_a_worker_dies_the_others_see_no_hole_and_it_is_replaced(tmp_path, how):
    with trio.fail_after(60), engine(SYNTHETIC, tmp_path, *TWO) as running:
        async with trio.open_nursery() as nursery:
            sessions = await join(nursery, running, 6, ALL)
            for session in sessions:
                await session.until(100)
            before = metrics(running)
            pids = workers(running)
            os.kill(pids[0], how)
            # Connections go to whoever lives, at once or once the dead one is found out.
            await join(nursery, running, 2, ALL)
            while not any(entry["event"] == "worker started" for entry in running.log):
                await trio.sleep(0.01)
            assert not lives(pids[0])
            left = [session for session in sessions if not session.ended.is_set()]
            assert len(left) == 3
            for session in left:
                await session.go_on(200)
            after = metrics(running)
            assert after["marketfeed_worker_restarts_total",] == 1
            assert after["marketfeed_closes_total", "1006"] == 3
            assert after["marketfeed_delivered_total", "vip"] >= before["marketfeed_delivered_total", "vip"]
            # The newcomers among them, on whichever worker.
            assert after["marketfeed_sessions", "vip", "websocket"] == 5
            assert len(workers(running)) == 2
            for session in await join(nursery, running, 4, ALL):
                await session.go_on(50)
            assert running.stop() == 0
            nursery.cancel_scope.cancel()


async def test_all_who_connect_while_no_worker_answers_are_served_by_those_that_come(tmp_path):
    with trio.fail_after(60), engine(SYNTHETIC, tmp_path, *TWO) as running:
        for pid in workers(running):
            os.kill(pid, signal.SIGSTOP)
        # Some have been handed over and come back when the workers are killed, the rest wait in line behind.
        async with trio.open_nursery() as nursery:
            for session in await join(nursery, running, 12, ALL):
                await session.go_on(10)
            assert running.stop() == 0
            nursery.cancel_scope.cancel()


def test_sessions_of_all_workers_are_listed_the_slow_ones_first(tmp_path):
    feed = SYNTHETIC.replace("rate = 1000", "rate = 100000")
    with (
        engine(feed, tmp_path, *TWO, "--set", "limits.stall_s=60") as running,
        open_session(running.url) as slow,
        open_session(running.url),
        open_session(running.url),
    ):
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.send(json.dumps(ALL))
        listing: dict[str, Any] = {"slow": 0}
        while not listing["slow"]:
            listing = json.loads(get(running.admin_port, "/v1/sessions")[2])
        assert listing["sessions"] == 3
        assert "full" in listing["shown"][0]["slow"]
        assert {row["worker"] for row in listing["shown"]} == {0, 1}
        assert len(json.loads(get(running.admin_port, "/v1/sessions?limit=2")[2])["shown"]) == 2


async def test_limits_hold_over_all_workers_and_are_given_back(tmp_path):
    with trio.fail_after(60), engine(SYNTHETIC, tmp_path, *TWO, "--set", "limits.sessions=3") as running:
        async with trio.open_nursery() as nursery:
            await join(nursery, running, 3, ALL)
            refused = Session(running.port, ALL)
            nursery.start_soon(_refused, refused)
            await refused.ended.wait()
            assert not refused.synced.is_set()
            os.kill(workers(running)[0], signal.SIGKILL)
            running.logged("worker started")
            # What the dead one had is free again: one or two of the three.
            await join(nursery, running, 1, ALL)
            nursery.cancel_scope.cancel()


def test_the_limit_on_handshakes_holds_over_all_workers(tmp_path):
    with engine(SYNTHETIC, tmp_path, *TWO, "--set", "limits.handshakes_per_s=1") as running:
        answers = [handshake(running.port) for _ in range(12)]
        let_in = [head for head in answers if head.startswith("HTTP/1.1 101")]
        refused = [head for head in answers if head.startswith("HTTP/1.1 503")]
        assert len(let_in) + len(refused) == 12
        assert let_in
        assert refused
        assert all(re.search(r"\r\nRetry-After: [0-9]+\r\n", head, re.IGNORECASE) for head in refused)
        shown = get(running.admin_port, "/metrics")[2].decode()
        reason = "too many handshakes: limits.handshakes_per_s"
        assert f'marketfeed_refused_total{{reason="{reason}"}} {len(refused)}.0' in shown
        assert f"marketfeed_accepted_total {len(let_in)}.0" in shown
        assert re.search(r"marketfeed_handshakes_shown_per_s [1-9][0-9]*\.0", shown)
        running.logged(reason)


def handshake(port: int) -> str:
    """Return the head of the answer to a handshake; the connection is closed."""
    key = base64.b64encode(bytes(16)).decode()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(
            f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer and (data := sock.recv(4096)):
            answer += data
    return answer.partition(b"\r\n\r\n")[0].decode() + "\r\n"


async def _refused(session: Session) -> None:
    with pytest.RaisesGroup(Exception, allow_unwrapped=True, flatten_subgroups=True):
        await session.run()


def test_workers_that_cannot_start_are_one_line_and_exit_2(tmp_path):
    (tmp_path / "config.toml").write_text(SYNTHETIC)
    done = subprocess.run(
        ["prlimit", "--nofile=100:100", sys.executable, "-m", "marketfeed", "serve", *TWO, *QUIETLY],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (told,) = done.stderr.splitlines()
    assert told.startswith("marketfeed: worker 0 cannot start: it may have 100 files open")


def test_a_worker_that_cannot_be_replaced_is_reported_after_growing_delays(tmp_path):
    with engine(SYNTHETIC, tmp_path, *TWO) as running:
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (100, 100))
        os.kill(workers(running)[0], signal.SIGKILL)
        tried: list[dict[str, object]] = []
        while len(tried) < 3:
            running._reader.join(0.01)
            tried = [entry for entry in running.log if entry["event"] == "worker cannot start"]
        assert [entry["again_in_s"] for entry in tried] == [0.5, 1.0, 2.0]
        assert len(workers(running)) == 1
        with open_session(running.url) as ws:  # the other one serves meanwhile
            ws.send(json.dumps(ALL))
            assert json.loads(ws.recv())[0]["T"] == "subscription"
        assert running.stop() == 0
