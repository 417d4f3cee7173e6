"""The publishers in examples/ run as they stand, and their ticks reach subscribers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import engine, open_session, subscribe
from tests.support.publishers import address_of

ROOT = Path(__file__).parents[2]
TABLE = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "push.md").read_text(), re.DOTALL)


def published(folder: Path, name: str, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], dict]:
    """Run the example ``name`` against an engine; return a tick of each of ``wanted``, by type and symbol."""
    assert TABLE is not None
    config = TABLE[1].replace("127.0.0.1:8770", "127.0.0.1:0")
    ticks: dict[tuple[str, str], dict] = {}
    with engine(config, folder) as running, open_session(running.url) as ws:
        subscribe(ws, quotes=["*"], trades=["*"], tier="vip")
        publisher = subprocess.Popen(
            [sys.executable, ROOT / "examples" / name, address_of(running, "publishers")], cwd=folder
        )
        try:
            while ticks.keys() < wanted:
                for message in json.loads(ws.recv(timeout=30)):
                    if message["T"] in ("q", "t"):
                        ticks[message["T"], message["S"]] = message
        finally:
            publisher.kill()
            publisher.wait()
        assert running.stop() == 0
    assert ticks.keys() == wanted
    return ticks


def test_the_example_with_our_own_package_publishes_quotes_and_trades(tmp_path: Path):
    ticks = published(tmp_path, "publish.py", {("q", "EUR-USD"), ("q", "GBP-USD"), ("t", "EUR-USD")})
    quote, trade = ticks["q", "EUR-USD"], ticks["t", "EUR-USD"]
    assert quote["ap"] - quote["bp"] == pytest.approx(0.00001)
    assert (quote["bs"], quote["as"]) == (1_000_000, 2_000_000)
    assert (trade["s"], trade["d"]) == (500_000, "b")
    assert abs(quote["t"] - quote["r"]) < 60_000_000  # µs


def test_the_example_without_any_package_publishes_quotes(tmp_path: Path):
    quote = published(tmp_path, "publish_plain.py", {("q", "XAU-USD")})["q", "XAU-USD"]
    assert (quote["bp"], quote["bs"], quote["ap"], quote["as"]) == (2650.12, 12.5, 2650.38, 8.0)
