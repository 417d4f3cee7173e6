"""A recording replayed by a real engine to real clients, and simulated: the same figures.

What is compared: for each session, the ticks matched, delivered, conflated and lost by the engine's own
ledger, and the frames and bytes that came over the socket, against the simulation's. Bursts come in pairs,
200 ms apart. For vip and premium (100 ms) the phase cannot matter, as no grid step holds more than one burst.
On the tier slow (400 ms) it does: whether a pair falls into one step or two. There each session's phase is
known from the engine, and where the engine's grid lies from when flushes came; the simulation is run at that
phase. Compared are sessions whose grid is not within 40 ms of a burst: only those surely have the same.
"""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame
from marketfeed.core.records import QUOTE, TRADE
from marketfeed.core.units import MS
from marketfeed.fanout.interest import Names
from marketfeed.fanout.tiers import Tier
from marketfeed.ingest.registry import feed_specs
from marketfeed.recordings.simulate import BESIDE_GRIDS_NS, Plan, simulate
from tests.support.admin_client import get
from tests.support.conformance import check_messages, connect
from tests.support.process import engine

START_NS = 1_723_161_254_000_000_000
SYMBOLS = [f"S{number:02}" for number in range(20)]
PAIRS, APART_MS, WITHIN_MS = 4, 1200, 200  # 1200 ms are three steps of slow: every pair meets the same grid
QUOTES_EACH = 5
SESSIONS = 16
CLEAR_MS = 40
TIERS = {
    "vip": Tier("vip", 0, True, 262_144),
    "premium": Tier("premium", 100 * MS, False, 65_536),
    "slow": Tier("slow", 400 * MS, False, 65_536),
}
CONFIG = (
    '[[feeds]]\nname = "day"\ntype = "replay"\nformat = "marketfeed"\npath = "day.mfr"\nstart_sessions = {}\n'
    '[tiers.vip]\n[tiers.premium]\n[tiers.slow]\ninterval_ms = 400\ndelivery = "latest"\n'
)


def write_recording(path):
    frames = [symbols_frame({name: number for number, name in enumerate(SYMBOLS)}, 1)]
    g = 0
    for burst in range(2 * PAIRS):
        at = START_NS + (burst // 2 * APART_MS + burst % 2 * WITHIN_MS) * MS
        quotes, trades = np.zeros(len(SYMBOLS) * QUOTES_EACH, QUOTE), np.zeros(len(SYMBOLS), TRADE)
        for records in (quotes, trades):
            records["symbol"] = np.arange(len(records)) % len(SYMBOLS)
            records["ts_recv"], records["ts_event"] = at, at
            records["g"] = np.arange(len(records)) + g + 1
            g += len(records)
        quotes["bid_px"], quotes["ask_px"], quotes["bid_sz"], quotes["ask_sz"] = 10**9, 2 * 10**9, 1, 1
        trades["price"], trades["size"], trades["side"] = 10**9, 1, ord("b")
        frames += [quotes_frame(quotes, burst + 2), trades_frame(trades, burst + 2)]
    path.write_bytes(b"".join(frames))


def ledgers(port):
    shown = json.loads(get(port, "/v1/sessions?limit=1000")[2])["shown"]
    return {row["session"]: (row["phase"], row["ledger"][row["tier"]]) for row in shown}


class Client(threading.Thread):
    """A session that keeps every frame and when it came, and stays until it may go."""

    def __init__(self, url, tier):
        super().__init__(daemon=True)
        self.frames, self.came_ns = [], []
        self.has_all, self.may_go = threading.Event(), threading.Event()
        self._url, self._tier = url, tier
        self.start()

    def run(self):
        missing = set(SYMBOLS)
        with connect(self._url, compression=None) as ws:
            ws.send(json.dumps({"action": "subscribe", "quotes": ["*"], "trades": ["*"], "tier": self._tier}))
            while missing:
                frame = json.loads(payload := ws.recv(timeout=30, decode=False))
                self.came_ns.append(time.time_ns())
                check_messages(frame)
                self.frames.append((payload, frame))
                missing -= {m["S"] for m in frame if m["T"] == "q" and m["n"] == 2 * PAIRS * QUOTES_EACH}
            self.has_all.set()
            self.may_go.wait(30)

    @property
    def id(self):
        return self.frames[0][1][0]["session"]

    def flushes(self):
        """Return each frame of ticks, and how long its newest had waited, in ms."""
        return [
            (payload, at / 1e6 - max(m["r"] for m in frame) / 1e3)
            for (payload, frame), at in zip(self.frames, self.came_ns, strict=True)
            if frame[0]["T"] in ("q", "t")
        ]


def run_for_real(folder):
    """Return each session's tier, phase, ledger and flushes."""
    chosen = ["vip", "premium"] + ["slow"] * SESSIONS
    with engine(CONFIG.format(len(chosen)), folder) as running:
        clients = [Client(running.url, tier) for tier in chosen]
        try:
            assert all(client.has_all.wait(40) for client in clients)
            booked = ledgers(running.admin_port)
        finally:
            for client in clients:
                client.may_go.set()
        for client in clients:
            client.join(30)
    return [(tier, *booked[c.id], c.flushes()) for tier, c in zip(chosen, clients, strict=True)]


def wire_bytes(payload):
    return len(payload) + (2 if len(payload) < 126 else 4 if len(payload) < 65536 else 10)


def simulated(folder, phases):
    (spec,) = feed_specs([{"type": "replay", "format": "marketfeed", "path": "day.mfr"}])
    return simulate(Plan(spec, folder, TIERS, Names(("*",), ("*",)), chosen=phases))


def same(outcome, ledger, flushes):
    for name in ("matched", "delivered", "conflated", "lost"):
        assert getattr(outcome, name) == ledger[name], name
    assert ledger["pending"] == 0
    assert outcome.frames == len(flushes)
    assert outcome.json_bytes == sum(wire_bytes(raw) for raw, _ in flushes)


@pytest.mark.alone
def test_a_simulation_has_the_figures_of_a_real_run(tmp_path):
    write_recording(tmp_path / "day.mfr")
    sessions = run_for_real(tmp_path)
    plain = simulated(tmp_path, {})
    for tier, _, ledger, flushes in sessions[:2]:
        same(plain.tiers[tier], ledger, flushes)
    # Where the recording's start lies on the engine's grid of slow: a flush came at its session's own
    # offset, so the first burst was so long before. The least late of all flushes tells best.
    slow, interval_ms = TIERS["slow"], TIERS["slow"].interval_ns / 1e6
    step_ms = interval_ms / slow.phases
    starts = [
        (phase * step_ms - waited_ms - WITHIN_MS * (len(flushes) == PAIRS)) % interval_ms
        for _, phase, _, flushes in sessions[2:]
        for _, waited_ms in flushes[:: max(len(flushes) // PAIRS, 1)]
    ]
    start_ms = max(starts, key=lambda one: sum((one - other) % interval_ms < CLEAR_MS for other in starts))
    compared = 0
    for _, phase, ledger, flushes in sessions[2:]:
        grid_ms = (phase * step_ms - start_ms) % interval_ms  # after the first burst
        if min(abs(grid_ms - edge) for edge in (0, WITHIN_MS, interval_ms)) < CLEAR_MS:
            continue
        # The simulation begins at 0 of all grids.
        result = simulated(tmp_path, {"slow": [round(grid_ms / step_ms) % slow.phases]})
        assert result.started_ns % slow.interval_ns == BESIDE_GRIDS_NS
        same(result.tiers["slow"], ledger, flushes)
        assert len(flushes) in (PAIRS, 2 * PAIRS)
        compared += 1
    assert compared
