"""The parts of marketfeed.js in Node.js: tests/js/pure.test.mjs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.js import with_parts
from tests.support.peers import need

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RUNS = "5000" if os.environ.get("MARKETFEED_PROVE") else "300"


def test_parts_agree_with_their_models_in_random_sequences(tmp_path):
    tests = Path(__file__).with_name("pure.test.mjs")
    done = subprocess.run(
        [need("node"), "--test", tests],
        env={**os.environ, "PARTS": str(with_parts(tmp_path)), "RUNS": RUNS},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "# fail 0" in done.stdout
    assert "# pass 8" in done.stdout
