"""Missing sides, prices below 0 and impossible times: the same truth over every transport."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import numpy as np

from marketfeed import QUOTE, TRADE
from marketfeed.core.binary import FrameParser, Kind, quotes_frame, symbols_frame, trades_frame
from tests.support.admin_client import get
from tests.support.conformance import check_event
from tests.support.process import engine, open_session, subscribe
from tests.support.publishers import address_of, connect

FEED = '[[feeds]]\nname = "tcp"\ntype = "push"\nlisten = "127.0.0.1:0"\n'
NAMES = {"BOTH": 0, "BID": 1, "ASK": 2, "NONE": 3, "LOW": 4}
WANTED = {
    "BOTH": (1.0, 5.0, 2.0, 6.0),
    "BID": (1.0, 5.0, None, 0.0),
    "ASK": (None, 0.0, 2.0, 6.0),
    "NONE": (None, 0.0, None, 0.0),
    "LOW": (-37.63, 5.0, 0.0, 6.0),
}


def quotes():
    """Quotes as a publisher may well send them: -0.0 sizes, and prices beside sizes of 0."""
    made = np.zeros(len(NAMES), QUOTE)
    made["symbol"] = list(NAMES.values())
    made["bid_px"] = [10**9, 10**9, 7, 7, -37_630_000_000]
    made["ask_px"] = [2 * 10**9, 7, 2 * 10**9, 0, 0]
    made["bid_sz"], made["ask_sz"] = [5, 5, -0.0, -0.0, 5], [6, -0.0, 6, 0, 6]
    return made


def sides(messages):
    """Return both sides of each symbol's last quote, as they are written."""
    keys = ("bp", "bs", "ap", "as")
    return {m["S"]: tuple(m[key] for key in keys) for m in messages if m["T"] == "q"}


def body(port, path):
    return get(port, path)[2]


def wait_quotes(ws, count):
    """Return the text of frames until ``count`` quotes came, and the cursor of what came."""
    texts, seen, cursor = "", 0, ""
    while seen < count or not cursor:
        text = ws.recv(timeout=20)
        texts += text
        for message in json.loads(text):
            seen += message["T"] == "q"
            cursor = message.get("cursor", cursor)
    return texts, cursor


def messages_of(texts):
    return [message for part in texts.replace("][", "]\n[").split("\n") for message in json.loads(part)]


def test_a_missing_side_is_null_live_in_snapshots_after_a_cut_in_events_and_in_polls(tmp_path):
    names = {"quotes": ["*"], "trades": ["*"], "tier": "vip"}
    asked = {"action": "subscribe", **names}
    with engine(FEED, tmp_path) as running, open_session(running.url) as live:
        subscribe(live, **names)
        with connect(address_of(running, "tcp")) as publisher:
            publisher.sendall(symbols_frame(NAMES, 0) + quotes_frame(quotes(), 0))
            came: list[dict[str, Any]] = []
            while len(came) < len(NAMES):
                came += [m for m in json.loads(live.recv(timeout=20)) if m["T"] == "q"]
            assert sides(came) == WANTED
            with open_session(running.url) as late:
                late.send(json.dumps(asked))
                snapshot, cursor = wait_quotes(late, len(NAMES))
            assert sides(messages_of(snapshot)) == WANTED
            publisher.sendall(quotes_frame(quotes(), 0))
            epoch, _, g = cursor.rpartition(":")
            with open_session(running.url) as resumed:
                resumed.send(json.dumps({**asked, "after": f"{epoch}:{g}"}))
                missed, _ = wait_quotes(resumed, len(NAMES))
            assert sides(messages_of(missed)) == WANTED
            assert "snap" not in missed

            poll = body(running.port, f"/v1/poll?quotes=*&tier=vip&after={cursor}")
            short = body(running.port, "/v1/quotes?symbols=*&tier=vip")
            with urllib.request.urlopen(
                f"http://127.0.0.1:{running.port}/v1/events?quotes=*&tier=vip", timeout=10
            ) as events:
                streamed = b""
                while b'"synced"' not in streamed:
                    streamed += events.readline()
            data = [line[6:] for line in streamed.splitlines() if line.startswith(b"data: ")]
            assert sides(json.loads(poll)["messages"]) == WANTED
            assert sides(json.loads(short)) == WANTED
            streamed_messages = [m for part in data for m in json.loads(part)]
            check_event(streamed_messages)
            assert sides(streamed_messages) == WANTED
            for text in (snapshot, missed, poll.decode(), short.decode(), streamed.decode()):
                assert "-0.0" not in text
                assert '"bp":null,"bs":0.0' in text

            with open_session(running.url) as binary:
                binary.send(json.dumps({**asked, "encoding": "binary"}))
                parser, records = FrameParser(), list[np.void]()
                while len(records) < len(NAMES):
                    parser.feed(binary.recv(timeout=20, decode=False))
                    records += [r for f in parser if f.kind is Kind.QUOTES for r in f.records().tolist()]
            by_name = np.array(records, QUOTE)
            missing = by_name[(by_name["bid_sz"] == 0) | (by_name["ask_sz"] == 0)]
            assert len(missing) == 3
            assert (missing["bid_px"][missing["bid_sz"] == 0] == 0).all()
            assert (missing["ask_px"][missing["ask_sz"] == 0] == 0).all()
        assert running.stop() == 0


def test_a_publishers_impossible_times_reach_nobody(tmp_path):
    trades = np.zeros(4, TRADE)
    trades["price"], trades["size"], trades["side"] = -5 * 10**9, [1, 1, 1, -0.0], ord("b")
    trades["ts_recv"] = [2**63 - 1, -1, 1, -(2**63)]
    trades["ts_event"] = [2**63 - 1, -(2**63), -1, 1_725_000_000_123_456_000]
    with engine(FEED, tmp_path) as running, open_session(running.url) as ws:
        subscribe(ws, trades=["*"], tier="vip")
        with connect(address_of(running, "tcp")) as publisher:
            publisher.sendall(symbols_frame({"A": 0}, 0) + trades_frame(trades, 0))
            came: list[dict[str, Any]] = []
            while len(came) < 4:
                came += [m for m in json.loads(ws.recv(timeout=20)) if m["T"] == "t"]
        now_us = time.time_ns() // 1000
        assert all(abs(m["r"] - now_us) < 60_000_000 for m in came)
        assert [m["t"] for m in came] == [0, 0, 0, 1_725_000_000_123_456]
        assert [m["p"] for m in came] == [-5.0] * 4
        assert str(came[3]["s"]) == "0.0"
        metrics = body(running.admin_port, "/metrics").decode()
        assert 'marketfeed_feed_events_total{event="receipt_time_replaced",feed="tcp"} 4' in metrics
        assert 'marketfeed_feed_events_total{event="event_time_impossible",feed="tcp"} 3' in metrics
        assert running.stop() == 0
