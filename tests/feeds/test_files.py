"""Several files as one recording: selection, order, and handling of broken files."""

from __future__ import annotations

import gzip
import zipfile
from itertools import pairwise

import pytest
import trio

from marketfeed.errors import SourceError
from marketfeed.feeds.replay.files import ENDINGS
from tests.support.replay import make, names, refusal, replayed

CSV = {"format": "csv", "symbol": "X", "columns": {"time": 0, "bid": 1, "ask": 2}, "time": "ms"}
DAY_MS = 86_400_000
BASE_MS = 1_709_900_000_000


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{BASE_MS + at},{price},{price + 1}\n" for at, price in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.csv", text)
    else:
        path.write_text(text)


def bids(intake):
    return (intake.quotes["bid_px"] // 10**9).tolist()


@pytest.mark.parametrize("path", ["days", "days/*.csv*", "d*/2024-??-*"])
async def test_a_folder_or_a_pattern_is_replayed_in_order_of_the_names(autojump_clock, tmp_path, path):
    for name, price in (("2024-03-09.csv.gz", 2), ("2024-03-08.csv", 1), ("2024-03-10.csv", 3)):
        write(tmp_path / "days" / name, (price, price), (price + 5, price))
    assert bids(await replayed(tmp_path, path=path, **CSV)) == [1, 1, 2, 2, 3, 3]


async def test_a_pattern_finds_files_in_folders_of_folders(autojump_clock, tmp_path):
    for number, folder in enumerate(("2023/12", "2024/01", "2024/02")):
        write(tmp_path / folder / "day.csv", (number, number + 1))
    assert bids(await replayed(tmp_path, path="**/*.csv", **CSV)) == [1, 2, 3]


async def test_of_a_folder_only_files_of_the_format_are_taken_in_any_case_and_packed_or_not(
    autojump_clock, tmp_path
):
    for number, name in enumerate(("a.CSV", "b.csv.GZ".lower(), "c.txt", "d.zip", "e.tsv")):
        write(tmp_path / "days" / name, (number, number + 1))
    for name in ("README.md", ".hidden.csv", "f.parquet"):
        (tmp_path / "days" / name).write_text("nothing of ours")
    (tmp_path / "days" / "g.csv").mkdir()
    assert bids(await replayed(tmp_path, path="days", **CSV)) == [1, 2, 3, 4, 5]


async def test_the_time_between_two_files_is_kept_and_a_loop_goes_over_all_of_them(autojump_clock, tmp_path):
    write(tmp_path / "a.csv", (0, 1), (1000, 2))
    write(tmp_path / "b.csv", (5000, 3))
    feed, intake = make(tmp_path, path="*.csv", loop=True, **CSV)
    with trio.move_on_after(8):
        await feed.run(intake.publish)
    assert bids(intake) == [1, 2, 3, 1, 2]
    assert intake.published_at_s == pytest.approx([0, 1, 5, 5, 6])


async def test_names_of_files_tell_the_day_that_times_count_from(autojump_clock, tmp_path):
    for day in ("20240308", "20240310", "20240309"):
        (tmp_path / f"ibm_{day}.csv").write_text("34200000,1,2\n")
    (tmp_path / "ibm_notes.csv").write_text("not of a day\n")
    settings = CSV | {"member": r"_(?P<day>\d{8})", "zone": "America/New_York"}
    intake = await replayed(tmp_path, path="ibm_*.csv", **settings)
    hours = (intake.quotes["ts_event"] // 3_600_000_000_000).tolist()
    assert [after - before for before, after in pairwise(hours)] == [24, 23]
    assert not intake.events


async def test_a_later_file_that_is_not_as_configured_is_told_and_left_out(autojump_clock, tmp_path):
    write(tmp_path / "a.csv", (0, 1))
    (tmp_path / "b.csv").write_text("time;bid;ask\n")
    write(tmp_path / "c.csv", (2, 3))
    feed, intake = make(tmp_path, speed=0, path="*.csv", **CSV)
    with pytest.raises(SourceError, match=r"b\.csv"):
        await feed.run(intake.publish)
    assert bids(intake) == [1, 3]
    assert intake.events == {"broken_file": 1}


async def test_only_one_file_is_open_at_a_time(autojump_clock, tmp_path, monkeypatch):
    for number in range(40):
        write(tmp_path / f"{number:02}.csv", (number, number + 1))
    feed, intake = make(tmp_path, speed=0, path="*.csv", **CSV)
    most = 0
    fds = tmp_path.__class__("/proc/self/fd")
    before = len(list(fds.iterdir()))

    def publish(batch):
        nonlocal most
        most = max(most, len(list(fds.iterdir())) - before)
        intake.publish(batch)

    await feed.run(publish)
    assert len(intake.quotes) == 40
    assert most <= 1


@pytest.mark.parametrize("format", sorted(ENDINGS))
def test_a_folder_or_a_pattern_with_nothing_in_it_is_refused(tmp_path, format):
    (tmp_path / "days").mkdir()
    settings = {key: value for key, value in CSV.items() if format in ("csv", "parquet")} | {"format": format}
    said = refusal(tmp_path, path="days", **settings)
    assert said.startswith(f"path: {tmp_path / 'days'} holds no file that ends in {ENDINGS[format][0]}")
    assert refusal(tmp_path, path="day?/*", **settings) == f"path: no file matches {tmp_path}/day?/*"


def test_a_member_that_no_file_matches_is_refused(tmp_path):
    write(tmp_path / "a.csv", (0, 1))
    said = refusal(tmp_path, path="*.csv", **CSV, member=r"\d{8}")
    assert said == f"member: no file at {tmp_path}/*.csv matches"


async def test_a_file_whose_name_looks_like_a_pattern_is_a_file(autojump_clock, tmp_path):
    write(tmp_path / "a[1].csv", (0, 1))
    write(tmp_path / "a1.csv", (0, 2))
    assert bids(await replayed(tmp_path, path="a[1].csv", **CSV)) == [1]


async def test_parquet_files_in_order(autojump_clock, tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    for day, price in (("20240309", 2.0), ("20240308", 1.0)):
        columns = {"t": pa.array([3_600_000], pa.int64()), "p": [price], "q": [1.0]}
        pq.write_table(pa.table(columns), tmp_path / f"x_{day}.parquet")
    settings = {
        "format": "parquet", "symbol": "X", "columns": {"time": "t", "price": "p", "size": "q"},
        "time": "ms", "member": r"_(?P<day>\d{8})",
    }  # fmt: skip
    intake = await replayed(tmp_path, path=".", **settings)
    assert (intake.trades["price"] // 10**9).tolist() == [1, 2]
    assert (intake.trades["ts_event"] // (DAY_MS * 10**6)).tolist() == [19790, 19791]


async def test_dbn_files_in_order(autojump_clock, tmp_path, realdata):
    pytest.importorskip("databento_dbn")
    vector = (realdata / "dbn_vectors" / "test_data.trades.dbn").read_bytes()
    for name in ("b.dbn", "a.dbn"):
        (tmp_path / name).write_bytes(vector)
    (tmp_path / "metadata.json").write_text("{}")
    alone = await replayed(tmp_path, path="a.dbn", format="dbn")
    both = await replayed(tmp_path, path=".", format="dbn")
    assert both.trades["price"].tolist() == alone.trades["price"].tolist() * 2


async def test_lines_of_a_stream_in_order(autojump_clock, tmp_path):
    line = '%d {"stream":"a@bookTicker","data":{"s":"A","b":"%d","B":"1","a":"9","A":"1"}}\n'
    for number, name in enumerate(("a.gz", "b.txt"), 1):
        text = (line % (BASE_MS * 10**6 + number, number)).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    intake = await replayed(tmp_path, path=".")
    assert bids(intake) == [1, 2]
    assert names(intake, intake.quotes) == ["A", "A"]


DEPTH = b'1723161254036052868 {"stream":"a@depth","data":{"e":"depthUpdate","s":"A"}}\n'
TICK = b'1723161254036052868 {"e":"trade","s":"A","t":1,"p":"1","q":"1","T":1,"m":false}\n'


@pytest.mark.parametrize(
    ("settings", "files", "ticks"),
    [
        (CSV, ("", "1709900000000,1,2\n", ""), 1),
        (CSV | {"header": True, "columns": {"time": "t", "bid": "b"}},
         ("t,b\n", "t,b\n1709900000000,1\n"), 1),
        ({"format": "binance-raw"}, (DEPTH.decode(), TICK.decode(), "", DEPTH.decode()), 1),
    ],
    ids=["csv", "csv with names", "binance-raw"],
)  # fmt: skip
async def test_of_several_files_one_may_have_no_tick_but_not_all(tmp_path, settings, files, ticks):
    for number, text in enumerate(files):
        (tmp_path / f"{number}.txt").write_text(text)
    intake = await replayed(tmp_path, path="*.txt", **settings)
    assert len(intake.quotes) + len(intake.trades) == ticks
    assert "broken_file" not in intake.events
    (tmp_path / "1.txt").write_text(files[0])
    feed, intake = make(tmp_path, path="*.txt", speed=0, **settings)
    with pytest.raises(SourceError, match="no tick in it"):
        await feed.run(intake.publish)


@pytest.mark.parametrize("first", ["", "\n"])
async def test_an_archive_of_lines_may_begin_with_an_empty_member(tmp_path, first):
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        archive.writestr("0.txt", first)
        archive.writestr("1.txt", TICK)
    assert len((await replayed(tmp_path, path="day.zip")).trades) == 1
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        archive.writestr("0.txt", first)
        archive.writestr("1.txt", DEPTH)
    assert "no tick in it" in refusal(tmp_path, path="day.zip")
