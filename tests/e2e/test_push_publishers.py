"""What publishers send over TCP and a Unix socket reaches a subscriber of the same engine as it was sent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from marketfeed import QUOTE, TRADE
from marketfeed.core.binary import heartbeat_frame, quotes_frame, symbols_frame, trades_frame
from tests.support.process import engine, open_session, subscribe
from tests.support.publishers import address_of, connect

if TYPE_CHECKING:
    from pathlib import Path

FEEDS = """
[[feeds]]
name = "tcp"
type = "push"
listen = "127.0.0.1:0"

[[feeds]]
name = "unix"
type = "push"
listen = "./push.sock"
"""
FRAMES = 20
TIME_NS = 1_725_000_000_123_456_000


def some_ticks(ids: list[int], seed: int):
    """Return 25 quotes and 5 trades of these ids, all different."""
    rng = np.random.default_rng(seed)
    quotes, trades = np.zeros(25, QUOTE), np.zeros(5, TRADE)
    for records in (quotes, trades):
        records["symbol"] = rng.choice(ids, len(records))
        records["ts_event"] = TIME_NS + 1000 * rng.integers(0, 10**9, len(records))
    cents = rng.integers(100, 10**7, 25)
    quotes["bid_px"], quotes["ask_px"] = cents * 10**7, (cents + 1) * 10**7
    quotes["bid_sz"], quotes["ask_sz"] = rng.integers(0, 100, (2, 25)) * 0.5
    trades["price"] = rng.integers(100, 10**7, 5) * 10**7
    trades["size"], trades["trade_id"] = rng.integers(1, 100, 5), rng.integers(1, 2**53, 5)
    trades["side"] = rng.choice(list(b"bs-"), 5)
    return quotes, trades


def as_told(names: dict[int, str], quotes, trades) -> list[tuple]:
    """Return what a subscriber must be told of each tick."""
    return [
        (
            "q",
            names[q["symbol"]],
            q["bid_px"] / 1e9 if q["bid_sz"] else None,
            q["bid_sz"],
            q["ask_px"] / 1e9 if q["ask_sz"] else None,
            q["ask_sz"],
            q["ts_event"] // 1000,
        )
        for q in quotes
    ] + [
        (
            "t",
            names[t["symbol"]],
            t["price"] / 1e9,
            t["size"],
            chr(t["side"]),
            int(t["trade_id"]),
            t["ts_event"] // 1000,
        )
        for t in trades
    ]


def told(message: dict) -> tuple:
    keys = ("bp", "bs", "ap", "as", "t") if message["T"] == "q" else ("p", "s", "d", "i", "t")
    return (message["T"], message["S"], *(message[key] for key in keys))


def test_a_subscriber_gets_exactly_what_publishers_sent(tmp_path: Path):
    publishers = {  # the same ids for different symbols, and the other way round
        "tcp": {0: "A", 1: "B", 9: "C"},
        "unix": {1: "D", 0: "E", 65535: "F"},
    }
    with engine(FEEDS, tmp_path) as running, open_session(running.url) as ws:
        subscribe(ws, quotes=["*"], trades=["*"], tier="vip")
        sockets = {feed: connect(address_of(running, feed)) for feed in publishers}
        expected: list[tuple] = []
        for feed, names in publishers.items():
            sockets[feed].sendall(symbols_frame({name: number for number, name in names.items()}, 0))
        for frame in range(FRAMES):
            for seed, (feed, names) in enumerate(publishers.items()):
                quotes, trades = some_ticks(list(names), 2 * frame + seed)
                sent = quotes_frame(quotes, 0) + heartbeat_frame(0) + trades_frame(trades, 0)
                sockets[feed].sendall(sent[:700])
                sockets[feed].sendall(sent[700:])
                expected += as_told(names, quotes, trades)
        # A third, which breaks off in the middle of things: its one good tick stays.
        with connect(address_of(running, "tcp")) as junk:
            quotes, trades = some_ticks([0], 99)
            junk.sendall(symbols_frame({"J": 0}, 0) + quotes_frame(quotes[:1], 0) + b"\xff" * 100)
            assert junk.recv(1) == b""  # cut
            expected += as_told({0: "J"}, quotes[:1], trades[:0])

        ticks: list[dict] = []
        while len(ticks) < len(expected):
            ticks += [message for message in json.loads(ws.recv(timeout=30)) if message["T"] in ("q", "t")]
        for sock in sockets.values():
            sock.close()
        assert running.stop() == 0

    assert Counter(map(told, ticks)) == Counter(expected)
    for kind, name in {(each[0], each[1]) for each in expected}:
        of_this = [message for message in ticks if (message["T"], message["S"]) == (kind, name)]
        assert [told(message) for message in of_this] == [
            each for each in expected if each[:2] == (kind, name)
        ]
        assert [message["n"] for message in of_this] == list(range(1, len(of_this) + 1))
    assert [message["g"] for message in ticks] == list(range(1, len(ticks) + 1))

    (cut,) = [entry for entry in running.log if entry["event"] == "publisher cut"]
    assert (cut["feed"], cut["reason"], cut["detail"]) == ("tcp", "malformed", "frame version 255, not 1")
    assert not (tmp_path / "push.sock").exists()


def test_an_address_that_is_not_loopback_is_a_configuration_error(tmp_path: Path):

    (tmp_path / "config.toml").write_text('[[feeds]]\ntype = "push"\nlisten = "0.0.0.0:8770"\n')
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", "serve", "--check"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=30,
    )
    assert done.returncode == 2
    assert "feeds.0.listen: push has no authentication" in done.stderr


def test_a_port_in_use_is_tried_again_until_it_is_free(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        feeds = f'[[feeds]]\nname = "late"\ntype = "push"\nlisten = "127.0.0.1:{port}"\n'
        with engine(feeds, tmp_path) as running:
            while not any(entry["event"] == "feed failed" for entry in list(running.log)):
                running._reader.join(0.01)
            taken.close()
            assert address_of(running, "late") == f"127.0.0.1:{port}"
            assert running.stop() == 0
