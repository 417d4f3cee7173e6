"""examples/quant.py as a script, and cell by cell within a running event loop, as a notebook runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.peers import ROOT
from tests.support.process import engine

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 1000\nrate = 5000\n'
NOTEBOOK = """import asyncio, re, sys
async def run(cells):
    names = {}
    for cell in cells:
        exec(cell, names)
        await asyncio.sleep(0)
with open(sys.argv[1]) as file:
    asyncio.run(run(re.split("(?m)^# %%.*$", file.read())))
"""


@pytest.mark.parametrize("before", [[], ["-c", NOTEBOOK]], ids=["script", "notebook"])
def test_spreads_and_volatilities_come_out(tmp_path: Path, before: list[str]) -> None:
    with engine(CONFIG, tmp_path) as running:
        text = (ROOT / "examples" / "quant.py").read_text("utf-8")
        script = tmp_path / "quant.py"
        script.write_text(text.replace("127.0.0.1:8765", f"127.0.0.1:{running.port}"))
        done = subprocess.run(
            [sys.executable, "-W", "error", *before, str(script)],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    counted = re.search(r"^(\d+) quotes, spread (\d+\.\d+) bps", done.stdout, re.MULTILINE)
    assert counted is not None
    assert int(counted[1]) > 100
    assert 0 < float(counted[2]) < 100
    assert len(re.findall(r"^SY00\d\d +0\.\d+$", done.stdout, re.MULTILINE)) == 5
    assert len(re.findall(r"^\d +SY00\d\d +\d+\.\d+ +\d+\.\d+$", done.stdout, re.MULTILINE)) == 5
    assert "Gap" not in done.stdout
