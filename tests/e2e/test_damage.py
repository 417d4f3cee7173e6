"""Damaged files before a real engine and its commands: told in a line, never replayed twice."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

from process import engine
from test_admin import get, samples

CSV = (
    '[[feeds]]\nname = "day"\ntype = "replay"\nformat = "csv"\nsymbol = "A"\nspeed = 0\n'
    'path = "day.csv.gz"\ncolumns = { time = 0, price = 1 }\n'
)


def command(folder, *arguments):
    """Run a command of the program; return its status and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def write_torn(folder):
    rows = b"".join(b"%d,1.25\n" % (1_700_000_000_000_000_000 + n) for n in range(5000))
    (folder / "day.csv.gz").write_bytes(gzip.compress(rows)[:-8])


def test_a_feed_that_fails_at_a_place_in_a_file_is_not_replayed_again_and_everybody_can_see_it(tmp_path):
    write_torn(tmp_path)
    with engine(CSV, tmp_path) as running:
        told = running.logged("feed failed for good")
        assert "day.csv.gz:5001: the file is damaged from here on: it ends in the middle" in told["error"]
        assert "exception" not in told
        found = samples(get(running.admin_port, "/metrics")[2])
        assert found["marketfeed_ticks_total", "trades", "day"] == 5000
        assert found["marketfeed_feed_state", "day", "failed"] == 1
        assert found["marketfeed_feed_failures_total", "day"] == 1
        assert json.loads(get(running.admin_port, "/readyz")[2])["feeds"] == {"day": "failed"}
        assert running.stop() == 0


def test_simulate_shows_what_could_be_read_and_says_that_it_is_not_all(tmp_path):
    write_torn(tmp_path)
    (tmp_path / "config.toml").write_text(CSV)
    status, out, err = command(tmp_path, "simulate", "day.csv.gz", "--feed", "day", "--json")
    assert status == 1
    found = json.loads(out)
    assert found["trades"] == 5000
    assert "day.csv.gz:5001: the file is damaged from here on" in found["damage"]
    assert "the figures are of what came before" in err
