"""Two recorded Binance sessions, replayed to subscribers of all tiers by a real engine.

At 50 times the recorded speed; with MARKETFEED_PROVE=1 (make prove) at speed 1 too, six minutes.
"""

from __future__ import annotations

import gzip
import json
import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.process import Reader, engine

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"BTCUSDT": "usdm_btcusdt_20240808.gz", "ETHUSDT": "spot_ethusdt_20240808.gz"}
SPEEDS = [50, 1] if os.environ.get("MARKETFEED_PROVE") else [50]
RECORDED_S = 350


def recorded(folder: Path, name: str) -> dict[str, list[dict[str, str]]]:
    """Return a recording's bookTicker and trade frames, read without the project's code."""
    found: dict[str, list[dict[str, str]]] = {"q": [], "t": []}
    with gzip.open(folder / "binance_raw_ws" / name) as file:
        for line in file:
            frame = json.loads(line.partition(b" ")[2])
            kind = frame.get("stream", "").rpartition("@")[2]
            if kind in ("bookTicker", "trade"):
                found["q" if kind == "bookTicker" else "t"].append(frame["data"])
    return found


def same(number: float, text: str) -> bool:
    return Decimal(repr(number)) == Decimal(text)


@pytest.mark.alone
@pytest.mark.parametrize("speed", SPEEDS)
def test_two_sessions_replayed_to_all_tiers(realdata, tmp_path, speed):
    truth = {symbol: recorded(realdata, name) for symbol, name in FILES.items()}
    assert [len(truth["BTCUSDT"][kind]) for kind in "qt"] == [66_089, 21_313]
    assert [len(truth["ETHUSDT"][kind]) for kind in "qt"] == [24_077, 6_106]
    feeds = "\n".join(
        f'[[feeds]]\nname = "{symbol}"\ntype = "replay"\nformat = "binance-raw"\n'
        f'path = "{realdata}/binance_raw_ws/{name}"\nspeed = {speed}\nstart_sessions = 3\n'
        for symbol, name in FILES.items()
    )
    left = {(kind, symbol): len(truth[symbol][kind]) for symbol in FILES for kind in "qt"}
    with engine(feeds, tmp_path) as running:

        def until_last() -> Any:
            missing = dict(left)

            def enough(frame: bytes) -> bool:
                if not any(b'"n":%d,' % n in frame for n in missing.values()):
                    return False
                for message in json.loads(frame):
                    key = (message["T"], message.get("S"))
                    if key in missing and missing[key] == message["n"]:
                        del missing[key]
                return not missing

            return enough

        request = {"action": "subscribe", "quotes": list(FILES), "trades": ["*"]}
        readers = {
            tier: Reader(running.url, {**request, "tier": tier}, until_last())
            for tier in ("vip", "premium", "basic")
        }
        frames = {tier: reader.result(60 + RECORDED_S / speed) for tier, reader in readers.items()}
        assert running.stop() == 0
    check_vip(frames["vip"], truth)
    for tier, step_s in (("premium", 0.1), ("basic", 0.5)):
        check_latest(frames[tier], truth, step_s)


def check_vip(frames: list[list[dict[str, Any]]], truth: dict[str, Any]) -> None:
    """Every tick of the recordings, in order, with the recorded decimals; order of g over both channels."""
    ticks = [message for frame in frames for message in frame if message["T"] in ("q", "t")]
    assert [message["g"] for message in ticks] == list(range(1, len(ticks) + 1))
    for symbol, kinds in truth.items():
        quotes = [m for m in ticks if m["T"] == "q" and m["S"] == symbol]
        trades = [m for m in ticks if m["T"] == "t" and m["S"] == symbol]
        assert len(quotes) == len(kinds["q"])
        assert len(trades) == len(kinds["t"])
        for got, n, want in zip(quotes, range(1, len(quotes) + 1), kinds["q"], strict=True):
            assert got["n"] == n
            assert same(got["bp"], want["b"])
            assert same(got["ap"], want["a"])
            assert (got["bs"], got["as"]) == (float(want["B"]), float(want["A"]))
            assert got["t"] == int(want.get("T", 0)) * 1000
        for got, want in zip(trades, kinds["t"], strict=True):
            assert same(got["p"], want["p"])
            assert (got["s"], got["i"]) == (float(want["q"]), int(want["t"]))
            assert got["d"] == ("s" if want["m"] else "b")
    assert not [m for frame in frames for m in frame if m["T"] in ("gap", "lag", "error")]


def check_latest(frames: list[list[dict[str, Any]]], truth: dict[str, Any], step_s: float) -> None:
    """One tick a symbol, channel and step at most; the last is the recording's last."""
    received: list[int] = []  # by the engine, µs: of the newest tick of each flush
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for frame in frames:
        ticks = [m for m in frame if m["T"] in ("q", "t")]
        keys = [(m["T"], m["S"]) for m in ticks]
        assert len(keys) == len(set(keys))
        received += [max(m["r"] for m in ticks)] if ticks else []
        last.update(zip(keys, ticks, strict=True))
    # A grid, however long the replay took: no more flushes than steps.
    assert len(received) <= (received[-1] - received[0]) / 1e6 / step_s + 2
    for symbol, kinds in truth.items():
        assert same(last["q", symbol]["bp"], kinds["q"][-1]["b"])
        assert same(last["q", symbol]["ap"], kinds["q"][-1]["a"])
        assert same(last["t", symbol]["p"], kinds["t"][-1]["p"])
