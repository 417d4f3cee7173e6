"""CSV recordings: real files of equities, FX and options with exact prices; configuration mistakes."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import trio

from marketfeed.feeds.replay import ReplayFeed
from marketfeed.testing import check_feed
from tests.support.replay import damaged, make, names, refusal, refusals, replayed

FX: dict[str, Any] = {
    "time": "ms",
    "day": "2014-05-08",
    "symbol": "EUR/USD",
    "columns": {"time": 0, "bid": 1, "ask": 2},
}
EQUITY = {"time": "ms", "day": "2013-10-07", "zone": "America/New_York", "price_scale": 10_000}
IBM_QUOTES = {
    "path": "us_equity_ticks/ibm_20131007_quote.zip",
    "columns": {"time": 0, "bid": 1, "bid_size": 2, "ask": 3, "ask_size": 4, "exchange": 5},
    **EQUITY,
}
CHAIN = {
    "path": "options_minute/goog_20151224_quote_american.zip",
    "member": r"(?P<day>\d{8})_(?P<root>\w+?)_minute_quote_american_"
    r"(?P<kind>put|call)_(?P<strike>\d+)_(?P<expiry>\d+)",
    "symbol": "{root}_{expiry}{kind:.1}{strike}",
    "zone": "America/New_York",
    "time": "ms",
    "price_scale": 10_000,
    "columns": {"time": 0, "bid": 4, "bid_size": 5, "ask": 9, "ask_size": 10},
}
TRUEFX = {
    "path": "parquet_csv/truefx_usdjpy-ticks.csv",
    "header": True,
    "time": "iso",
    "symbol": "USD/JPY",
    "columns": {"time": "timestamp", "bid": "bid", "ask": "ask"},
}
NEW_YORK = ZoneInfo("America/New_York")


def rows_of(folder, settings, member=0):
    """Read a recording independently of the project's code."""
    path = folder / settings["path"]
    if path.suffix != ".zip":
        return list(csv.reader(path.read_text().splitlines()))
    with zipfile.ZipFile(path) as archive:
        return list(csv.reader(io.TextIOWrapper(archive.open(archive.namelist()[member]))))


def px(text, scale=1):
    return int(Decimal(text) * 10**9 / scale)


def at(ms, day=(2013, 10, 7)):
    return (round(datetime(day[0], day[1], day[2], tzinfo=NEW_YORK).timestamp()) * 1000 + int(ms)) * 10**6


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("ibm", 24_293), ("spy", 250_601)])
async def test_real_equity_trades(realdata, name, count):
    settings = {"path": f"us_equity_ticks/{name}_20131007_trade.zip", **EQUITY}
    intake = await replayed(
        realdata, format="csv", symbol=name.upper(), columns={"time": 0, "price": 1, "size": 2}, **settings
    )
    rows, trades = rows_of(realdata, settings), intake.trades
    assert len(rows) == len(trades) == count
    assert trades["price"].tolist() == [px(row[1], 10_000) for row in rows]
    assert trades["size"].tolist() == [float(row[2]) for row in rows]
    assert trades["ts_event"].tolist() == [at(row[0]) for row in rows]
    assert not intake.events


@pytest.mark.slow
async def test_real_equity_quotes_as_written_have_one_side_each(realdata):
    intake = await replayed(realdata, format="csv", symbol="IBM", **IBM_QUOTES)
    rows, quotes = rows_of(realdata, IBM_QUOTES), intake.quotes
    assert len(rows) == len(quotes) == 109_067
    for field, column in (("bid_px", 1), ("ask_px", 3)):
        assert quotes[field].tolist() == [px(row[column], 10_000) for row in rows]
    assert quotes["bid_sz"].tolist() == [float(row[2]) for row in rows]
    assert ((quotes["bid_sz"] > 0) ^ (quotes["ask_sz"] > 0)).all()


@pytest.mark.slow
async def test_real_equity_quotes_merged_by_exchange(realdata):
    intake = await replayed(realdata, format="csv", symbol="IBM.{exchange}", merge="exchange", **IBM_QUOTES)
    rows, quotes = rows_of(realdata, IBM_QUOTES), intake.quotes
    state, wanted = dict[str, list[Any]](), []
    for row in rows:
        mine = state.setdefault(row[5], [0, 0.0, 0, 0.0])
        for side in (0, 2):
            if float(row[2 + side]):
                mine[side : side + 2] = px(row[1 + side], 10_000), float(row[2 + side])
        wanted.append((f"IBM.{row[5]}", *mine))
    fields = (quotes[name].tolist() for name in ("bid_px", "bid_sz", "ask_px", "ask_sz"))
    assert list(zip(names(intake, quotes), *fields, strict=True)) == wanted


@pytest.mark.slow
async def test_real_equity_quotes_merged_over_all_exchanges(realdata):
    intake = await replayed(realdata, format="csv", symbol="IBM", merge="all", where={"7": "0"}, **IBM_QUOTES)
    state, wanted = dict[tuple[int, str], tuple[int, float]](), []
    last: tuple[int | float, ...] = (0, 0.0, 0, 0.0)
    for row in rows_of(realdata, IBM_QUOTES):
        if row[7] != "0":
            continue
        for side in (1, 3):
            if float(row[side + 1]):
                state[side, row[5]] = px(row[side], 10_000), float(row[side + 1])
        best = []
        for side, choose in ((1, max), (3, min)):
            there = [value for (s, _), value in state.items() if s == side]
            top = choose((price for price, _ in there), default=0)
            best += [top, sum(size for price, size in there if price == top)]
        if tuple(best) != last:
            last = tuple(best)
            wanted.append((at(row[0]), *last))
    quotes = intake.quotes
    fields = (quotes[name].tolist() for name in ("ts_event", "bid_px", "bid_sz", "ask_px", "ask_sz"))
    assert list(zip(*fields, strict=True)) == wanted
    assert intake.events == {"filtered": 1}


@pytest.mark.slow
async def test_real_fx_quotes(realdata):
    settings = {"path": "fx_ticks/fxcm_eurusd_20140508_quote.zip", **FX}
    intake = await replayed(realdata, format="csv", **settings)
    rows, quotes = rows_of(realdata, settings), intake.quotes
    assert len(rows) == len(quotes) == 167_466
    assert quotes["bid_px"].tolist() == [px(row[1]) for row in rows]
    assert quotes["ask_px"].tolist() == [px(row[2]) for row in rows]
    assert (quotes["bid_sz"] == 1).all()
    assert names(intake, quotes[:1]) == ["EUR/USD"]


async def test_real_fx_quotes_with_a_header_and_iso_times(realdata):
    intake = await replayed(realdata, format="csv", **TRUEFX)
    rows, quotes = rows_of(realdata, TRUEFX)[1:], intake.quotes
    assert len(rows) == len(quotes) == 1000
    assert quotes["bid_px"].tolist() == [px(row[1]) for row in rows]
    times = [round(datetime.fromisoformat(row[0]).timestamp() * 1000) * 10**6 for row in rows]
    assert quotes["ts_event"].tolist() == times


@pytest.mark.slow
async def test_a_real_option_chain_comes_merged_by_time_with_its_herd(autojump_clock, realdata):
    feed, intake = make(realdata, format="csv", speed=1000, **CHAIN)
    await feed.run(intake.publish)
    quotes = intake.quotes
    assert len(quotes) == 275_552
    assert len(intake.symbols) == 2_192
    assert (np.diff(quotes["ts_event"]) >= 0).all()
    herd = Counter(quotes["ts_event"].tolist()).most_common(1)[0]
    assert herd[1] == 2_163
    wanted = {}
    with zipfile.ZipFile(realdata / CHAIN["path"]) as archive:
        for name in archive.namelist():
            _, root, *_, kind, strike, expiry = name.removesuffix(".csv").split("_")
            for row in csv.reader(io.TextIOWrapper(archive.open(name))):
                if at(row[0], (2015, 12, 24)) == herd[0]:
                    wanted[f"{root}_{expiry}{kind[0]}{strike}"] = [px(row[i] or "0", 10_000) for i in (4, 9)]
    rows = quotes[quotes["ts_event"] == herd[0]]
    got = {n: [int(r["bid_px"]), int(r["ask_px"])] for n, r in zip(names(intake, rows), rows, strict=True)}
    assert got == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"symbol": "IBM", **IBM_QUOTES},
        {"symbol": "IBM", "merge": "all", **IBM_QUOTES},
        {"path": "us_equity_ticks/spy_20131007_trade.zip", "symbol": "SPY", **EQUITY,
         "columns": {"time": 0, "price": 1, "size": 2}},
        {"path": "fx_ticks/fxcm_eurusd_20140508_quote.zip", **FX},
        TRUEFX,
        CHAIN,
    ],
    ids=["equity quotes", "merged", "equity trades", "fx", "header and iso", "option chain"],
)  # fmt: skip
async def test_real_files_pass_the_conformance_suite(autojump_clock, realdata, settings):
    intake = await check_feed(ReplayFeed, {"format": "csv", **settings}, base=realdata, timeout_s=1e6)
    assert sum(map(len, intake.batches)) >= 1000


# Files written by the tests.

PLAIN = {"path": "day.csv", "format": "csv", **FX}
LINES = [f"{1000 * i},1.{i:05},1.{i + 1:05}" for i in range(5000)]
TEXT = "\n".join(LINES) + "\n"


def write(folder, text=TEXT, name="day.csv"):
    data = text.encode()
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        import zstandard

        data = zstandard.compress(data)
    elif name.endswith(".zip"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("day.csv", data)
        data = buffer.getvalue()
    (folder / name).write_bytes(data)


def bids(intake):
    return (intake.quotes["bid_px"] // 10**4).tolist()


BIDS = [100_000 + i for i in range(5000)]


@pytest.mark.parametrize("name", ["day.csv", "day.csv.gz", "day.zip", "day.csv.zst"])
async def test_plain_and_packed_files_are_the_same(tmp_path, name):
    write(tmp_path, name=name)
    assert bids(await replayed(tmp_path, **{**PLAIN, "path": name})) == BIDS


@pytest.mark.parametrize("name", ["day.csv.gz", "day.zip", "day.csv.zst"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
async def test_a_packed_file_cut_short_loses_no_whole_row_and_is_told_of(tmp_path, name, share):
    write(tmp_path, "".join(f"{line}\n" for line in LINES), name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    if name.endswith(".zst"):  # decompressed by block
        import zstandard

        text = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / name).read_bytes())
    else:
        import zlib

        start = 0 if name.endswith(".gz") else 30 + len("day.csv")
        inflate = zlib.decompressobj(31 if name.endswith(".gz") else -15)
        text = inflate.decompress((tmp_path / name).read_bytes()[start:])
    readable = text.count(b"\n")
    if not readable:
        assert "does not look like csv" in refusal(tmp_path, **{**PLAIN, "path": name})
        return
    intake, said = await damaged(tmp_path, **{**PLAIN, "path": name})
    assert bids(intake) == BIDS[:readable]
    assert intake.events == {"broken_line": 1}
    assert f":{readable + 1}: the file is damaged from here on: it ends in the middle" in said
    assert "damaged from here on" in intake.logged[0]["reason"]


async def test_a_zip_cut_between_its_members_gives_all_that_are_whole(tmp_path):
    with zipfile.ZipFile(tmp_path / "day.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.csv", f"{1000 * number},1.{number:05},2\n" * 50)
    whole = (tmp_path / "day.zip").read_bytes()
    third = [i for i in range(len(whole)) if whole.startswith(b"PK\x03\x04", i)][2]
    (tmp_path / "day.zip").write_bytes(whole[: third + 10])
    intake, said = await damaged(tmp_path, **{**PLAIN, "path": "day.zip"})
    assert bids(intake) == [100_000] * 50 + [100_001] * 50
    assert "1.csv:51: the file is damaged from here on: the directory at the archive's end is missing" in said


async def test_broken_lines_are_counted_told_and_left_out(tmp_path):
    lines = [*LINES[:10], "junk", "1,2", "99,x,2", "100,1,1e-10", "", *LINES[10:20], "999,1e400,2"]
    write(tmp_path, "\r\n".join(lines))
    intake = await replayed(tmp_path, **PLAIN)
    assert bids(intake) == BIDS[:20]
    assert intake.events == {"broken_line": 5}
    told = [(e["at"].rpartition(":")[2], e["reason"].partition(":")[0]) for e in intake.logged]
    assert told == [
        ("11", "fewer than 3 columns"), ("12", "fewer than 3 columns"),
        ("13", "not a price"), ("14", "a price finer than 1e-9"), ("26", "not a price"),
    ]  # fmt: skip


async def test_a_side_without_a_price_is_missing(tmp_path):
    write(tmp_path, "1,1.5,\n2,,2.5\n3,,\n")
    intake = await replayed(tmp_path, **PLAIN)
    assert intake.quotes["bid_sz"].tolist() == [1, 0, 0]
    assert intake.quotes["ask_sz"].tolist() == [0, 1, 0]


SIDES = ["bid_px", "bid_sz", "ask_px", "ask_sz"]
SIZED = {**PLAIN, "columns": {"time": 0, "bid": 1, "bid_size": 2, "ask": 3, "ask_size": 4}}


@pytest.mark.parametrize("none", ["", "  ", "nan", "NaN", "null", "NULL"])
async def test_words_that_say_that_there_is_no_price(tmp_path, none):
    write(tmp_path, f"1,{none},5,7,6\n2,6,5,{none},6\n3,n/a,5,7,6\n")
    columns = {"time": 0, "bid": 1, "bid_size": 2, "ask": 3, "ask_size": 4}
    intake = await replayed(tmp_path, **{**PLAIN, "columns": columns})
    sides = intake.quotes[["bid_px", "bid_sz", "ask_px", "ask_sz"]].tolist()
    assert sides == [(0, 0, 7 * 10**9, 6), (6 * 10**9, 5, 0, 0)]
    assert intake.events == {"broken_line": 1}
    write(tmp_path, f"1,{none},5\n2,1.5,5\n")
    intake = await replayed(tmp_path, **{**PLAIN, "columns": {"time": 0, "price": 1, "size": 2}})
    assert intake.trades["price"].tolist() == [1_500_000_000]
    assert intake.logged[0]["reason"].startswith("a trade without price or size")


@pytest.mark.parametrize("price", ["1.7976931348623157e+308", "9999999999", "n/a", "1e-12"])
async def test_the_price_of_a_side_without_size_may_be_anything(tmp_path, price):
    write(tmp_path, f"1,{price},0,7,6\n2,6,5,{price},0\n3,{price},1,7,6\n4,{price},x,7,6\n")
    columns = {"time": 0, "bid": 1, "bid_size": 2, "ask": 3, "ask_size": 4}
    intake = await replayed(tmp_path, **{**PLAIN, "columns": columns})
    sides = intake.quotes[["bid_px", "bid_sz", "ask_px", "ask_sz"]].tolist()
    assert sides == [(0, 0, 7 * 10**9, 6), (6 * 10**9, 5, 0, 0)]
    assert intake.events == {"broken_line": 2}


async def test_trade_ids_take_all_64_bits(tmp_path):
    ids = (18446744073709551615, 9223372036854775808, 7, -3, "x", 18446744073709551616, "")
    write(tmp_path, "".join(f"{at},1.5,5,{number}\n" for at, number in enumerate(ids)))
    keys = {**PLAIN, "columns": {"time": 0, "price": 1, "size": 2, "trade_id": 3}}
    intake = await replayed(tmp_path, **keys)
    assert intake.trades["trade_id"].tolist() == [*ids[:3], 0, 0, 0, 0]


async def test_negative_and_zero_prices_are_prices(tmp_path):
    write(tmp_path, "1,-37.63,5,0,7\n2,0,1,-0.01,0\n3,-1,,0,2\n4,0,0,,3\n")
    intake = await replayed(tmp_path, **SIZED)
    assert intake.quotes[SIDES].tolist() == [
        (-37_630_000_000, 5, 0, 7), (0, 1, 0, 0), (0, 0, 0, 2), (0, 0, 0, 0)
    ]  # fmt: skip
    assert not intake.events


async def test_negative_and_zero_prices_are_prices_without_columns_of_sizes_too(tmp_path):
    write(tmp_path, "1,-2,0\n2,0,2.5\n")
    intake = await replayed(tmp_path, **PLAIN)
    assert intake.quotes[SIDES].tolist() == [(-2 * 10**9, 1, 0, 1), (0, 1, 2_500_000_000, 1)]


@pytest.mark.parametrize(("text", "key"), [("0", 0), ("-1", "-1"), ("999999.99", 999999.99), ("0.000", "0")])
async def test_the_number_that_stands_for_no_price_can_be_told(tmp_path, text, key):
    write(tmp_path, f"1,{text},2.5\n2,1.5,{text}\n")
    intake = await replayed(tmp_path, **PLAIN, no_price=key)
    assert intake.quotes["bid_sz"].tolist() == [0, 1]
    assert intake.quotes["ask_sz"].tolist() == [1, 0]
    assert intake.quotes["bid_px"].tolist() == [0, 1_500_000_000]


async def test_merged_rows_of_one_side_without_sizes_have_0_at_the_other(tmp_path):
    write(tmp_path, "1,1.5,0,N\n2,0,1.6,N\n3,1.4,0,Q\n")
    settings = {**PLAIN, "columns": {**FX["columns"], "exchange": 3}, "merge": "all"}
    intake = await replayed(tmp_path, **settings)
    assert intake.quotes[["bid_px", "ask_px"]].tolist() == [
        (1_500_000_000, 0), (1_500_000_000, 1_600_000_000)
    ]  # fmt: skip


async def test_merged_sides_may_be_negative(tmp_path):
    write(tmp_path, "1,-2,1,0,0,N\n2,0,0,-1,1,N\n3,-3,1,-1.5,1,Q\n4,0,4,0,0,Q\n")
    settings = {**SIZED, "columns": {**SIZED["columns"], "exchange": 5}, "merge": "all"}
    intake = await replayed(tmp_path, **settings)
    assert [(b / 1e9, bs, a / 1e9, s) for b, bs, a, s in intake.quotes[SIDES].tolist()] == [
        (-2, 1, 0, 0), (-2, 1, -1, 1), (-2, 1, -1.5, 1), (0, 4, -1.5, 1)
    ]  # fmt: skip


async def test_trades_at_negative_and_zero_prices_are_trades_and_those_of_nothing_are_none(tmp_path):
    write(tmp_path, "1,-37.63,5\n2,0,1\n3,1,0\n4,,3\n5,2,\n6,1e-10,2\n7,-0.0000000004,2\n8,1e-9,2\n")
    settings = {**PLAIN, "columns": {"time": 0, "price": 1, "size": 2}}
    intake = await replayed(tmp_path, **settings)
    assert intake.trades[["price", "size"]].tolist() == [(-37_630_000_000, 5), (0, 1), (1, 2)]
    assert intake.events == {"broken_line": 5}
    reasons = [entry["reason"].partition(":")[0] for entry in intake.logged]
    assert reasons == ["a trade without price or size"] * 3 + ["a price finer than 1e-9"] * 2


async def test_quoted_fields_other_delimiters_and_symbols_from_a_column(tmp_path):
    write(tmp_path, 'when;name;"last, price";n;who\n1000;"A ""B""";"1.5";3;buy\n2000;C;2.5;4;SELL\n')
    columns = {"time": "when", "symbol": "name", "price": "last, price", "size": "n", "side": "who"}
    intake = await replayed(
        tmp_path, path="day.csv", format="csv", header=True, delimiter=";", time="s", day="2014-05-08",
        columns=columns,
    )  # fmt: skip
    assert names(intake, intake.trades) == ["A_B_", "C"]
    assert intake.trades["price"].tolist() == [1_500_000_000, 2_500_000_000]
    assert bytes(intake.trades["side"].tolist()) == b"bs"


async def test_an_exchange_per_file_is_merged_by_time(tmp_path):
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        archive.writestr("N.csv", "1000,1.5,1.9,N\n3000,1.7,1.8,N\n")
        archive.writestr("Q.csv", "2000,1.6,1.95,Q\n4000,1.6,1.8,Q\n")
    columns = {**FX["columns"], "exchange": 3}
    intake = await replayed(tmp_path, **{**PLAIN, "path": "day.zip", "columns": columns, "merge": "all"})
    best = [(b / 1e9, a / 1e9, s) for b, a, s in intake.quotes[["bid_px", "ask_px", "ask_sz"]].tolist()]
    assert best == [(1.5, 1.9, 1), (1.6, 1.9, 1), (1.7, 1.8, 1), (1.7, 1.8, 2)]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("back", "wanted"),
    [
        ([1000, 5000, 2000, 6000], [1000, 1500, 2500, 5000, 2000, 5500, 6000, 7000]),
        ([1000, 5000, 2000], [1000, 1500, 2500, 5000, 2000, 5500, 7000]),
        ([9000, 10], [1500, 2500, 5500, 7000, 9000, 10]),
    ],
)
async def test_a_clock_that_goes_back_in_one_file_of_an_archive_holds_nothing_up(
    tmp_path, first, back, wanted
):
    members = [back, [1500, 2500, 5500, 7000]]
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        for number, name in enumerate("NQ"):
            rows = members[number ^ first]
            archive.writestr(f"{name}.csv", "".join(f"{at},{at},9\n" for at in rows))
    feed, intake = make(tmp_path, **{**PLAIN, "path": "day.zip", "speed": 0})
    with trio.fail_after(5):
        await feed.run(intake.publish)
    assert (intake.quotes["bid_px"] // 10**9).tolist() == wanted


async def test_a_full_symbol_table_leaves_rows_out(tmp_path):
    write(tmp_path, "1000,1,2,A\n2000,3,4,B\n3000,5,6,A\n")
    settings = {**PLAIN, "columns": {**FX["columns"], "symbol": 3}, "symbol": None}
    feed, intake = make(tmp_path, max_symbols=1, speed=0, **settings)
    await feed.run(intake.publish)
    assert (intake.quotes["bid_px"] // 10**9).tolist() == [1, 5]
    assert intake.events == {"symbols_full": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": None},
         "columns: csv needs to know its columns, such as {{ time = 0, bid = 1, ask = 2 }}, "
         "in a [[feeds]] table; on the command line, use --feed"),
        ({"columns": {"time": 0}}, "columns: either bid and ask, or price; not both"),
        ({"columns": {"time": 0, "bid": 1, "price": 2}},
         "columns: either bid and ask, or price; not both"),
        ({"columns": {"time": 0, "bid": 1, "ask_size": 2}},
         "columns.ask_size: needs columns.ask"),
        ({"columns": {"time": "t", "bid": 1}}, "columns: use numbers from 0; names need header = true"),
        ({"header": True, "columns": {"time": "t", "bid": 1}},
         "columns.time: no column 't' in {}; it has 0, 1.00000, 1.00001"),
        ({"symbol": None}, "symbol: set a name for all rows, or columns.symbol"),
        ({"symbol": "{root}"}, "symbol: '{{root}}' may contain no placeholder"),
        ({"zone": "Nowhere/Town"},
         "zone: 'Nowhere/Town' is not a time zone known on this machine, such as America/New_York"),
        ({"member": "("},
         "member: not a regular expression: missing ), unterminated subpattern at position 0"),
        ({"no_price": "none"}, "no_price: 'none' is no valid price"),
        ({"merge": "exchange"}, "merge: 'exchange' needs columns.exchange"),
        ({"merge": "exchange", "columns": {"time": 0, "bid": 1, "exchange": 2}},
         "symbol: with merge = 'exchange' it must contain {{exchange}}, such as 'IBM.{{exchange}}'"),
        ({"time": "iso"}, "day: not with time = 'iso', whose text has the day"),
        ({"day": None}, "path: {} does not look like csv with these columns: line 1: a time before 1980; "
         "is `time` its unit, and does it lack a `day`?: 0,1.00000,1.00001"),
        ({"path": "none.csv"}, "path: {.parent}/none.csv: No such file or directory"),
        ({"format": "dbn", "time": "ns", "day": None}, "columns: only with format csv or parquet"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(tmp_path, change, said):
    write(tmp_path)
    settings = {key: value for key, value in {**PLAIN, **change}.items() if value is not None}
    assert refusal(tmp_path, **settings) == said.format(tmp_path / "day.csv")


def test_a_name_that_two_columns_have_is_refused(tmp_path):
    write(tmp_path, "time,bid,bid\n1000,1,2\n")
    said = refusal(tmp_path, **{**PLAIN, "header": True, "columns": {"time": "time", "bid": "bid"}})
    assert said == f"columns.bid: more than one column 'bid' in {tmp_path}/day.csv; it has time, bid, bid"


@pytest.mark.parametrize("content", ["", "\n\n", "a,b\n", "\0" * 5000])
@pytest.mark.parametrize("name", ["day.csv", "day.zip", "day.csv.gz"])
def test_files_of_something_else(tmp_path, content, name):
    write(tmp_path, content, name)
    assert "does not look like csv with these columns" in refusal(tmp_path, **{**PLAIN, "path": name})


async def test_the_rows_that_where_keeps_may_come_late(tmp_path):
    rows = [f"{at},1.{at:05},2,QUOTE\n" for at in range(20_000)]
    rows[15_000:15_001] = ["broken,row\n", "15000,1.00007,2,TRADE\n"]
    write(tmp_path, "".join(rows))
    intake = await replayed(tmp_path, **PLAIN, where={"3": "TRADE"})
    assert bids(intake) == [100_007]
    assert intake.events == {"filtered": 19_999, "broken_line": 1}


def test_a_short_file_of_which_where_keeps_nothing_is_refused(tmp_path):
    write(tmp_path, "1,1.5,2,QUOTE\n" * 3)
    said = refusal(tmp_path, **PLAIN, where={"3": "TRADE"})
    assert said == f"path: {tmp_path}/day.csv holds no tick: 3 rows (3 not kept by `where`)"


@pytest.mark.parametrize("first", ["", "\n\n", "time,bid,ask\n"])
async def test_an_archive_may_begin_with_members_without_a_row(tmp_path, first):
    names = {"header": True, "columns": {"time": "time", "bid": "bid", "ask": "ask"}}
    keys = {**PLAIN, "path": "day.zip", **(names if "bid" in first else {})}
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        archive.writestr("a.csv", first)
        archive.writestr("b.csv", ("" if first == "\n\n" else first) + "1,1.00007,2\n")
    assert bids(await replayed(tmp_path, **keys)) == [100_007]
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        archive.writestr("a.csv", first)
        archive.writestr("b.csv", first)
    assert f"path: {tmp_path}/day.zip does not look like csv" in refusal(tmp_path, **keys)


def test_a_zip_that_is_none(tmp_path):
    (tmp_path / "day.zip").write_bytes(b"junk" * 100)
    assert refusal(tmp_path, **{**PLAIN, "path": "day.zip"}) == f"path: {tmp_path}/day.zip is not a zip file"


async def test_an_endless_line_is_passed_over(tmp_path):
    write(tmp_path, LINES[0] + "\n" + "x" * (3 << 20) + "\n" + LINES[1] + "\n")
    intake = await replayed(tmp_path, **PLAIN)
    assert bids(intake) == BIDS[:2]
    assert intake.events["broken_line"] >= 1


def test_all_mistakes_of_a_table_are_told_at_once(tmp_path):
    change = {
        "path": "none.csv", "symbol": "{root}", "zone": "Mars", "no_price": "none", "delimiter": "\n",
        "columns": {"time": 0, "price": 1, "bid_size": 2}, "sides": {"x": "up", "y": "down"},
        "where": {"3": []}, "take": "quotes",
    }  # fmt: skip
    told = refusals(tmp_path, **{**PLAIN, **change})
    assert [line.partition(": ")[0] for line in told] == [
        "where.3", "no_price", "sides.x", "sides.y", "zone", "symbol", "delimiter",
        "columns.bid_size", "sides", "take", "path",
    ]  # fmt: skip


def test_a_file_that_is_missing_is_told_beside_columns_that_are(tmp_path):
    told = refusals(tmp_path, **{**PLAIN, "path": "none.csv", "columns": None})
    assert [line.partition(": ")[0] for line in told] == ["columns", "path"]


def test_all_keys_that_another_format_does_not_have_are_told_at_once(tmp_path):
    change = {"path": "none.dbn", "format": "dbn", "header": True, "merge": "exchange"}
    told = refusals(tmp_path, **{**PLAIN, **change})
    assert [line.partition(": ")[0] for line in told] == ["columns", "header", "time", "day", "merge", "path"]
