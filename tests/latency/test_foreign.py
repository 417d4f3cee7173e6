"""Interoperability of logs with hdr-histogram-js, in node."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from marketfeed.latency.intervals import Tag
from marketfeed.latency.read import read
from tests.support import SUPPORT
from tests.support.latency_logs import START_S, interval, write

ROOT = Path(__file__).parents[2]
MODULE = ROOT / ".venv" / "foreign" / "node_modules" / "hdr-histogram-js"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (shutil.which("node") and MODULE.is_dir()),
        reason="needs node, and: npm install --prefix .venv/foreign hdr-histogram-js@3.0.1",
    ),
]


def node(verb, log):
    script = SUPPORT / "foreign.cjs"
    done = subprocess.run(
        ["node", script, MODULE, verb, log], capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout or "null")


def test_it_finds_the_same_tags_times_counts_and_percentiles(tmp_path):
    # Ten thousand each: the implementations round fractional counts of percentiles differently.
    values = [
        range(1_000, 9_001_000, 900),
        [42_000_000_000, 512] * 5000,
        range(10**9, 6 * 10**10, 59 * 10**5),
    ]
    tags = [Tag("send", "vip", "0"), Tag("venue_negative", "basic", "1"), Tag("total", "vip", "0", "A;B=C")]
    log = write(
        tmp_path / "latency.hlog",
        *(interval(v, t, i) for i, (v, t) in enumerate(zip(values, tags, strict=True))),
    )
    theirs = node("read", log)
    ours = read([log])
    assert [one["tag"] for one in theirs] == list(map(str, tags))
    assert [one["start_ms"] / 1000 for one in theirs] == ours.times_s
    assert [one["end_ms"] - one["start_ms"] for one in theirs] == [10_000] * 3
    assert [one["count"] for one in theirs] == [figures[0] for figures in ours.figures]
    assert [one["percentiles"] for one in theirs] == [figures[2:] for figures in ours.figures]


def test_we_find_what_it_wrote(tmp_path):
    node("write", tmp_path / "theirs.hlog")
    found = read([tmp_path / "theirs.hlog"])
    assert not list(found.problems)
    assert found.keys == [("stage-1", "", "", "")]
    assert found.times_s == [START_S]
    count, least, p50, *_, most = found.figures[0]
    assert (count, least) == (1000, 1000)
    assert p50 == pytest.approx(500_000, rel=0.01)
    assert most == pytest.approx(1_000_000, rel=0.01)
