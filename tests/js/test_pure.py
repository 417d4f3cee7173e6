"""marketfeed.js in Node.js, without an engine: the tests in *.test.mjs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.js import with_parts
from tests.support.peers import need

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RUNS = "5000" if os.environ.get("MARKETFEED_PROVE") else "300"


COUNTS = {"pure": 10, "network": 14, "refusals": 15, "cluster": 21}  # tests of each file


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_all_tests_in_node_pass(tmp_path, name, count):
    tests = Path(__file__).with_name(f"{name}.test.mjs")
    done = subprocess.run(
        [need("node"), "--test", tests],
        env={**os.environ, "PARTS": str(with_parts(tmp_path)), "RUNS": RUNS},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "# fail 0" in done.stdout
    assert f"# pass {count}" in done.stdout
