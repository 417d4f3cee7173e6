"""Damaged files before a real engine and its commands: told in a line, never replayed twice."""

from __future__ import annotations

import gzip
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.admin_client import get, samples
from tests.support.commands import command
from tests.support.process import Reader, engine

CSV = (
    '[[feeds]]\nname = "day"\ntype = "replay"\nformat = "csv"\nsymbol = "A"\nspeed = 0\n'
    'path = "day.csv.gz"\ncolumns = { time = 0, price = 1 }\n'
)


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
    assert "the figures cover the ticks before that point" in err


def feed(path, format, columns, **more):
    """Return the table of a replay feed, and nothing beside it."""
    pairs = ", ".join(f"{key} = {json.dumps(column)}" for key, column in columns.items())
    rest = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    return (
        f'[[feeds]]\nname = "day"\ntype = "replay"\nformat = "{format}"\npath = "{path}"\nspeed = 0\n'
        f'symbol = "A"\ncolumns = {{ {pairs} }}\nstart_sessions = 1\n{rest}'
    )


def fixed_size_binary(folder):
    table = pa.table({"t": [1_700_000_000], "p": pa.array([bytes(16)], pa.binary(16))})
    pq.write_table(table, folder / "day.parquet")
    return feed("day.parquet", "parquet", {"time": "t", "price": "p"}, time="s")


def lists(folder):
    pq.write_table(pa.table({"t": [1_700_000_000], "p": [[1.5]]}), folder / "day.parquet")
    return feed("day.parquet", "parquet", {"time": "t", "price": "p"}, time="s")


def torn_footer(folder):
    pq.write_table(pa.table({"t": [1_700_000_000], "p": [1.5]}), folder / "day.parquet")
    whole = bytearray((folder / "day.parquet").read_bytes())
    whole[-60:-40] = b"\xff\x00\x1b[31m\n\n" * 3
    (folder / "day.parquet").write_bytes(bytes(whole))
    return feed("day.parquet", "parquet", {"time": "t", "price": "p"}, time="s")


def wrong_checksum(folder):
    with zipfile.ZipFile(folder / "day.zip", "w") as archive:
        archive.writestr("day.csv", "1399500000000,1.39147\n" * 50)
    whole = (folder / "day.zip").read_bytes()
    (folder / "day.zip").write_bytes(whole.replace(b"1.39147", b"1.39197", 1))
    return feed("day.zip", "csv", {"time": 0, "price": 1}, time="ms")


def binary(folder):
    (folder / "day.csv").write_bytes(b'\x7fELF"\r\x1b[2J' * 900)
    return feed("day.csv", "csv", {"time": 0, "price": 1}, time="ms")


REFUSED = {
    fixed_size_binary: "feeds.0.columns.price: p is fixed_size_binary[16] in {}/day.parquet; 16 bytes of ",
    lists: "feeds.0.columns.price: p is list<element: double> in {}/day.parquet; it may be a ",
    torn_footer: "feeds.0.path: {}/day.parquet is not a complete Parquet file: ",
    wrong_checksum: "feeds.0.path: {}/day.zip/day.csv is damaged: its checksum (CRC-32) is ",
    binary: "feeds.0.path: {}/day.csv does not look like csv with these columns: line 1: ",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_check_tells_in_one_line_what_cannot_be_replayed(tmp_path, make):
    (tmp_path / "config.toml").write_text(make(tmp_path))
    status, out, err = command(tmp_path, "serve", "--check")
    assert (status, out) == (2, "")
    assert REFUSED[make].format(tmp_path) in err
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()


def test_one_bad_cell_costs_one_row_of_what_a_session_gets(tmp_path):
    count, bad = 5000, 4200
    sizes = ["n/a" if row == bad else "2" for row in range(count)]
    table = {
        "t": range(1_700_000_000, 1_700_000_000 + count),
        "p": [row / 4 for row in range(count)],
        "n": sizes,
    }
    pq.write_table(pa.table(table), tmp_path / "day.parquet")
    config = feed("day.parquet", "parquet", {"time": "t", "price": "p", "size": "n"}, time="s")
    with engine(config, tmp_path) as running:
        last = Reader(
            running.url, {"action": "subscribe", "trades": ["*"]}, lambda frame: b'"n":4999,' in frame
        )
        ticks = [m for frame in last.result(60) for m in frame if m["T"] == "t"]
        assert [m["p"] for m in ticks] == [row / 4 for row in range(count) if row != bad]
        assert running.logged("broken record")["reason"] == "no size: n: 'n/a'"
        assert running.logged("feed done")["trades"] == count - 1
        found = samples(get(running.admin_port, "/metrics")[2])
        assert found["marketfeed_feed_events_total", "broken_record", "day"] == 1
        assert found["marketfeed_feed_failures_total", "day"] == 0
