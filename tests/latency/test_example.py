"""The example in docs/latency.md, run as a script in the folder of a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.latency_logs import run

TEXT = (Path(__file__).parents[2] / "docs" / "latency.md").read_text("utf-8")


@pytest.mark.e2e
def test_the_example_of_the_docs_prints_a_table_and_draws_a_picture(tmp_path):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "var").mkdir()
    run(tmp_path / "var" / "latency.hlog", 1_000_000, 3)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"MPLBACKEND": "Agg"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["start", "count", "p50_ns", "p99_ns"]
    assert len(rows) == 3
    assert (tmp_path / "vip.png").read_bytes().startswith(b"\x89PNG")
