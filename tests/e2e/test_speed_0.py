"""A recording as fast as it goes, to sessions that get every tick: all of them, whatever serves them."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import urllib.request

import pytest

from marketfeed.core.binary import FrameParser, Kind
from tests.support.conformance import check_event, connect
from tests.support.crowd import metrics
from tests.support.peers import Files
from tests.support.process import Reader, engine

ROWS = 60_000
FEED = """
[[feeds]]
name = "fast"
type = "replay"
format = "csv"
path = "fast.csv"
symbol = "{symbol}"
columns = { time = 0, symbol = 1, bid = 2, ask = 3 }
time = "ms"
day = 2024-03-08
speed = 0
start_sessions = 1
"""
ALL = {"action": "subscribe", "quotes": ["*"], "trades": ["*"], "tier": "vip"}
LAST = b'"n":%d,' % ROWS


@pytest.fixture
def recording(tmp_path):
    """60,000 quotes of one symbol: a ring goes round 58 times."""
    with open(tmp_path / "fast.csv", "w") as file:
        file.writelines(f"{number},EUR/USD,1.1{number % 1000:03},1.2\n" for number in range(ROWS))
    return tmp_path


def numbers(frames):
    """Return the n of all ticks, and what else was told."""
    messages = [message for frame in frames for message in frame]
    return [m["n"] for m in messages if m["T"] == "q"], {m["T"] for m in messages if m["T"] != "q"}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_vip_session_gets_every_tick_with_shipped_settings(recording, workers):
    with engine(FEED, recording, "--set", f"engine.workers={workers}") as running:
        frames = Reader(running.url, ALL, lambda frame: LAST in frame).result(60)
    ns, others = numbers(frames)
    assert ns == list(range(1, ROWS + 1))
    assert others == {"success", "subscription", "synced"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_binary_session_gets_every_tick(recording, workers):
    ns, others = list[int](), set()
    with (
        engine(FEED, recording, "--set", f"engine.workers={workers}") as running,
        connect(running.url, compression=None, max_size=None) as ws,
    ):
        ws.send(json.dumps(ALL | {"encoding": "binary"}))
        while not ns or ns[-1] < ROWS:
            message = ws.recv(timeout=30)
            if isinstance(message, bytes):
                parser = FrameParser()
                parser.feed(message)
                for frame in parser:
                    if frame.kind is Kind.QUOTES:
                        ns += frame.records()["n"].tolist()
                    elif frame.kind is Kind.MESSAGES:
                        others |= {m["T"] for m in frame.messages()}
    assert ns == list(range(1, ROWS + 1))
    assert not {"gap", "lag"} & others


def test_an_event_stream_gets_every_tick(recording):
    frames = []
    with engine(FEED, recording) as running:
        url = f"http://127.0.0.1:{running.port}/v1/events?quotes=*&tier=vip"
        with urllib.request.urlopen(url, timeout=30) as events:
            for line in events:
                if line.startswith(b"data:"):
                    frames.append(json.loads(line[5:]))
                    if LAST in line:
                        break
    ns, others = numbers(frames)
    assert ns == list(range(1, ROWS + 1))
    assert not {"gap", "lag"} & others
    for messages in frames:
        check_event(messages)


def test_a_session_over_tls_gets_every_tick(recording):
    files = Files(recording)
    config = FEED + f'[gateway]\ntls_cert = "{files.cert}"\ntls_key = "{files.key}"\n'
    trusting = ssl.create_default_context(cafile=str(files.authority))
    frames: list[bytes] = []
    with (
        engine(config, recording) as running,
        connect(running.url, ssl=trusting, compression=None, max_size=None) as ws,
    ):
        ws.send(json.dumps(ALL))
        while not frames or LAST not in frames[-1]:
            frames.append(ws.recv(timeout=30, decode=False))
    ns, others = numbers(map(json.loads, frames))
    assert ns == list(range(1, ROWS + 1))
    assert not {"gap", "lag"} & others


@pytest.mark.parametrize("workers", [0, 1])
def test_quotes_and_trades_of_one_clock_reach_a_session_in_order_of_time(recording, workers):
    with open(recording / "trades.csv", "w") as file:
        file.writelines(f"{number},EUR/USD,1.15,1\n" for number in range(30_000, 90_000, 20))
    table = FEED.replace("[[feeds]]", '[[feeds]]\nclock = "day"')
    trades = table.replace('"fast', '"trades').replace("bid = 2, ask = 3", "price = 2, size = 3")
    settings = ("--set", f"engine.workers={workers}")
    with engine(table + trades.replace("start_sessions = 1", ""), recording, *settings) as running:
        last = b'"T":"t","S":"EUR/USD"'

        def enough(frame):
            return last in frame and b'"n":3000,' in frame[frame.rindex(last) :]

        frames = Reader(running.url, ALL, enough).result(60)
    ticks = [m for frame in frames for m in frame if m["T"] in ("q", "t")]
    assert [m["T"] for m in ticks].count("q") == ROWS
    assert [m["T"] for m in ticks].count("t") == 3000
    assert [(m["t"], m["T"]) for m in ticks] == sorted((m["t"], m["T"]) for m in ticks)
    assert not {m["T"] for frame in frames for m in frame} & {"gap", "lag"}


def test_two_feeds_and_readers_of_different_speed_miss_nothing(recording):
    feeds = FEED + FEED.replace('"fast"', '"second"').replace('"{symbol}"', '"{symbol}2"')
    feeds = feeds.replace("start_sessions = 1", "start_sessions = 3")
    with engine(feeds, recording) as running:
        readers = [
            Reader(running.url, ALL, two_last()),
            Reader(running.url, ALL, two_last(0.002)),
            Reader(running.url, ALL | {"tier": "premium"}, two_last()),
        ]
        frames = [reader.result(60) for reader in readers]
    for got in frames[:2]:
        ticks = [m for frame in got for m in frame if m["T"] == "q"]
        assert [m["g"] for m in ticks] == list(range(1, 2 * ROWS + 1))
        assert not {m["T"] for frame in got for m in frame} & {"gap", "lag"}


def two_last(pause_s=0.0):
    """Return what tells that the last tick of both symbols has come, reading slowly if told so."""
    left = {b'"S":"EUR/USD"', b'"S":"EUR/USD2"'}
    pause = threading.Event()

    def enough(frame):
        pause.wait(pause_s)
        for part in frame.split(b"},{"):
            if LAST in part:
                left.difference_update([name for name in left if name in part])
        return not left

    return enough


def test_a_session_that_never_reads_ends_and_the_others_get_everything(recording):
    settings = FEED.replace("start_sessions = 1", "start_sessions = 2") + "[limits]\nstall_s = 0.5\n"
    with engine(settings, recording) as running, socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", running.port))
        stuck.sendall(b"GET /v1/events?quotes=*&tier=vip HTTP/1.1\r\nHost: localhost\r\n\r\n")  # and no more
        frames = Reader(running.url, ALL, lambda frame: LAST in frame).result(60)
        assert metrics(running)["marketfeed_closes_total", "4001"] == 1
    ns, others = numbers(frames)
    assert ns == list(range(1, ROWS + 1))
    assert not {"gap", "lag"} & others
