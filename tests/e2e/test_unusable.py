"""Recordings without a tick: refused by --check, or failed with a line that says what was in them."""

from __future__ import annotations

import pytest

from tests.support.admin_client import get, samples
from tests.support.commands import command
from tests.support.process import engine

DEPTH = b'1723161254036052868 {"stream":"a@depth","data":{"e":"depthUpdate","s":"A","b":[],"a":[]}}\n'
BINANCE = '[[feeds]]\nname = "day"\ntype = "replay"\npath = "day.txt"\nspeed = 0\n'


def test_check_refuses_a_short_recording_without_a_tick(tmp_path):
    (tmp_path / "day.txt").write_bytes(DEPTH * 3)
    (tmp_path / "config.toml").write_text(BINANCE)
    status, out, err = command(tmp_path, "serve", "--check")
    assert (status, out) == (2, "")
    assert "no tick in it: 3 lines (3 depthUpdate)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("schema", ["ohlcv-1s", "mbo", "statistics"])
def test_check_names_the_schema_that_cannot_be_replayed(realdata, tmp_path, schema):
    path = realdata / f"dbn_vectors/test_data.{schema}.v3.dbn.zst"
    (tmp_path / "config.toml").write_text(
        f'[[feeds]]\nname = "day"\ntype = "replay"\nformat = "dbn"\npath = "{path}"\n'
    )
    status, _, err = command(tmp_path, "serve", "--check")
    assert status == 2
    assert f"holds {schema}, " in err
    assert err.count("\n") == 1


def test_a_long_recording_without_a_tick_ends_its_feed_as_failed_with_an_account_of_it(tmp_path):
    (tmp_path / "day.txt").write_bytes(DEPTH * 50_000)
    with engine(BINANCE, tmp_path) as running:
        told = running.logged("feed failed for good")
        assert "day.txt: no tick in it: 50,000 lines (50,000 depthUpdate)" in told["error"]
        found = samples(get(running.admin_port, "/metrics")[2])
        assert found["marketfeed_feed_state", "day", "failed"] == 1
        assert running.stop() == 0
