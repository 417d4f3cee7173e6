"""Parquet recordings: real files, and exact prices of every type."""

from __future__ import annotations

import sys
from datetime import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketfeed.feeds.replay import ReplayFeed
from marketfeed.testing import check_feed
from tests.support.replay import damaged, names, refusal, replayed

QUOTES = {
    "path": "parquet_csv/binance_btcusdt-quotes.parquet",
    "columns": {"time": "timestamp", "symbol": "symbol", "bid": "bid", "bid_size": "bid_size", "ask": "ask",
                "ask_size": "ask_size"},
}  # fmt: skip
TRADES = {
    "path": "parquet_csv/binance_btcusdt-trades.parquet",
    "symbol": "BTCUSDT",
    "columns": {"time": "timestamp", "price": "price", "size": "quantity", "buyer_maker": "buyer_maker",
                "trade_id": "trade_id"},
}  # fmt: skip


def px(value):
    return int(Decimal(repr(value)) * 10**9)


async def test_real_quotes(realdata):
    intake = await replayed(realdata, format="parquet", **QUOTES)
    rows, quotes = pq.read_table(realdata / QUOTES["path"]).to_pylist(), intake.quotes
    assert len(rows) == len(quotes) == 451
    assert quotes["bid_px"].tolist() == [px(row["bid"]) for row in rows]
    assert quotes["ask_px"].tolist() == [px(row["ask"]) for row in rows]
    assert quotes["bid_sz"].tolist() == [row["bid_size"] for row in rows]
    assert quotes["ts_event"].tolist() == [round(row["timestamp"].timestamp() * 1000) * 10**6 for row in rows]
    assert set(names(intake, quotes)) == {"BTC/USDT"}


async def test_real_trades(realdata):
    intake = await replayed(realdata, format="parquet", **TRADES)
    rows, trades = pq.read_table(realdata / TRADES["path"]).to_pylist(), intake.trades
    assert len(rows) == len(trades) == 2001
    assert trades["price"].tolist() == [px(row["price"]) for row in rows]
    assert trades["size"].tolist() == [row["quantity"] for row in rows]
    assert trades["trade_id"].tolist() == [row["trade_id"] for row in rows]
    assert bytes(trades["side"].tolist()).decode() == "".join(
        "s" if r["buyer_maker"] == "True" else "b" for r in rows
    )


@pytest.mark.parametrize("settings", [QUOTES, TRADES], ids=["quotes", "trades"])
async def test_real_files_pass_the_conformance_suite(autojump_clock, realdata, settings):
    await check_feed(ReplayFeed, {"format": "parquet", **settings}, base=realdata)


PRICES = [
    Decimal("1.5"),
    Decimal("94213.123456789"),
    Decimal("0.000000001"),
    Decimal("9000000000.5"),
    Decimal("3"),
]
WANTED = [int(price * 10**9) for price in PRICES]
TIMES = pa.array([datetime(2024, 8, 8, 0, 0, i) for i in range(5)], pa.timestamp("us", "UTC"))
COLUMNS = {"time": "t", "bid": "b", "bid_size": "n"}


def write(folder, prices, times=TIMES, **more):
    table = pa.table({"t": times, "b": prices, "n": pa.array([1, 2, 3, 4, 5]), **more})
    pq.write_table(table, folder / "day.parquet", row_group_size=2)


def read(folder, **settings):
    return replayed(
        folder, path="day.parquet", format="parquet", **{"symbol": "A", "columns": COLUMNS, **settings}
    )


def wide(scale):
    """Return the prices as 128-bit little-endian integers, as some engines write them."""
    return pa.array([int(p * 10**scale).to_bytes(16, "little", signed=True) for p in PRICES], pa.binary(16))


@pytest.mark.parametrize("scale", [9, 10, 16, 18])
async def test_128_bit_fixed_point_is_exact(tmp_path, scale):
    write(tmp_path, wide(scale))
    intake = await read(tmp_path, price_scale=10**scale)
    assert intake.quotes["bid_px"].tolist() == WANTED
    assert not intake.events


@pytest.mark.parametrize("kind", [pa.decimal128(38, 9), pa.decimal128(30, 12), pa.decimal256(50, 9)])
async def test_decimals_are_exact(tmp_path, kind):
    write(tmp_path, pa.array(PRICES, kind))
    assert (await read(tmp_path)).quotes["bid_px"].tolist() == WANTED


async def test_integers_and_their_scale(tmp_path):
    write(tmp_path, pa.array([15_000, 10_001, 1, 2, 3], pa.int32()))
    assert (await read(tmp_path, price_scale=10_000)).quotes["bid_px"].tolist()[:2] == [
        1_500_000_000,
        1_000_100_000,
    ]


async def test_doubles_are_the_decimals_they_stand_for(tmp_path):
    values = [94213.1, 0.1, 1e-9, 9_500_000.123, 1.0]
    write(tmp_path, pa.array(values))
    assert (await read(tmp_path)).quotes["bid_px"].tolist() == [px(value) for value in values]


async def test_what_is_finer_than_a_unit_is_rounded_and_counted(tmp_path):
    write(
        tmp_path,
        pa.array([Decimal("0.0000000005"), Decimal("0.0000000015"), *PRICES[:3]], pa.decimal128(30, 12)),
    )
    intake = await read(tmp_path)
    assert intake.quotes["bid_px"].tolist()[:2] == [2, int(PRICES[0] * 10**9)]
    assert intake.events == {"rounded_price": 1, "broken_record": 1}


NEGATIVE = [Decimal("-37.63"), Decimal(0), Decimal("-0.000000001"), Decimal(1), Decimal(2)]


@pytest.mark.parametrize(
    "column",
    [pa.array(NEGATIVE, pa.decimal128(20, 9)), pa.array(map(float, NEGATIVE)),
     pa.array([int(p * 10**9).to_bytes(16, "little", signed=True) for p in NEGATIVE], pa.binary(16)),
     pa.array([int(p * 10**9) for p in NEGATIVE])],
    ids=["decimal", "double", "fixed point", "integer"],
)  # fmt: skip
async def test_negative_and_zero_prices_are_prices(tmp_path, column):
    write(tmp_path, column)
    scale = 1 if column.type in (pa.float64(), pa.decimal128(20, 9)) else 10**9
    intake = await read(tmp_path, price_scale=scale)
    assert intake.quotes["bid_px"].tolist() == [int(price * 10**9) for price in NEGATIVE]
    assert (intake.quotes["bid_sz"] > 0).all()
    assert not intake.events


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(30, 12)])
async def test_what_would_be_rounded_to_0_is_left_out_and_counted(tmp_path, kind):
    values = [Decimal("0.0000000004"), Decimal("-0.0000000004"), *PRICES[:3]]
    write(tmp_path, pa.array(values if pa.types.is_decimal(kind) else list(map(float, values)), kind))
    intake = await read(tmp_path)
    assert len(intake.quotes) == 3
    assert intake.events == {"broken_record": 2}


async def test_no_price_stands_for_none_in_parquet_too(tmp_path):
    write(tmp_path, pa.array([-1.0, 1.5, 0.0, -1.0, 2.0]))
    intake = await read(tmp_path, no_price=-1)
    assert intake.quotes["bid_sz"].tolist() == [0, 2, 3, 0, 5]


async def test_rows_without_a_price_have_no_side_and_rows_without_a_time_are_broken(tmp_path):
    times = pa.array([*TIMES.to_pylist()[:4], None], TIMES.type)
    write(tmp_path, pa.array([1.5, None, float("nan"), 2.5, 3.5]), times)
    intake = await read(tmp_path)
    assert intake.quotes["bid_sz"].tolist() == [1, 0, 0, 4]
    assert intake.events == {"broken_record": 1}


async def test_clocks_without_a_zone_are_those_of_the_key(tmp_path):
    naive = TIMES.cast(pa.timestamp("us"))
    write(tmp_path, pa.array([1.0] * 5), naive)
    utc = (await read(tmp_path)).quotes["ts_event"]
    local = (await read(tmp_path, zone="America/New_York")).quotes["ts_event"]
    assert set((local - utc).tolist()) == {4 * 3600 * 10**9}


def test_a_file_cut_short_is_told(tmp_path):
    write(tmp_path, pa.array([1.0] * 5))
    whole = (tmp_path / "day.parquet").read_bytes()
    (tmp_path / "day.parquet").write_bytes(whole[:-20])
    said = refusal(tmp_path, path="day.parquet", format="parquet", symbol="A", columns=COLUMNS)
    assert "is not a complete Parquet file" in said


def test_an_unknown_column_and_one_of_another_kind(tmp_path):
    write(tmp_path, pa.array(["x"] * 5))
    base = {"path": "day.parquet", "format": "parquet", "symbol": "A"}
    assert refusal(tmp_path, **base, columns={"time": "t", "bid": "q"}) == (
        f"columns: no column 'q' in {tmp_path}/day.parquet; it has t, b, n"
    )
    assert "columns.bid: b is string" in refusal(tmp_path, **base, columns=COLUMNS)
    assert "columns.time: b is string" in refusal(tmp_path, **base, columns={"time": "b", "bid": "n"})


def test_without_pyarrow_the_operator_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "day.parquet").write_bytes(b"PAR1")
    said = refusal(tmp_path, path="day.parquet", format="parquet", symbol="A", columns=COLUMNS)
    assert said == "format: parquet needs the package pyarrow: pip install 'marketfeed[parquet]'"


async def test_a_damaged_row_group_ends_the_file_and_is_told(tmp_path):
    prices = pa.array(np.arange(1, 20_001) / 7)
    table = pa.table({"t": pa.array(range(20_000), pa.int64()), "b": prices})
    pq.write_table(table, tmp_path / "day.parquet", row_group_size=5000, compression="gzip")
    whole = bytearray((tmp_path / "day.parquet").read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 400] = bytes(400)
    (tmp_path / "day.parquet").write_bytes(bytes(whole))
    intake, _ = await damaged(
        tmp_path, path="day.parquet", format="parquet", symbol="A", time="s", day="2024-08-08",
        columns={"time": "t", "bid": "b"},
    )  # fmt: skip
    assert 0 < len(intake.quotes) < 20_000
    assert intake.events["broken_record"] == 1
    assert "damaged from here on" in intake.logged[0]["reason"]


@pytest.mark.parametrize(
    ("rows", "keys", "said"),
    [
        (0, {}, "nothing to read"),
        (3, {}, "3 rows (3 broken)"),
        (3, {"where": {"n": "9"}}, "3 rows (3 not kept by `where`)"),
    ],
)
def test_a_short_file_without_a_tick_is_refused_at_once(tmp_path, rows, keys, said):
    table = {
        "t": pa.nulls(rows, pa.int64()),
        "b": pa.array([1.5] * rows),
        "n": pa.array([1] * rows, pa.int64()),
    }
    pq.write_table(pa.table(table), tmp_path / "day.parquet")
    settings = {"path": "day.parquet", "format": "parquet", "symbol": "A", "columns": COLUMNS, **keys}
    assert refusal(tmp_path, **settings) == f"path: {tmp_path}/day.parquet: no tick in it: {said}"


async def test_a_double_that_no_price_can_be_costs_its_row(tmp_path):
    write(tmp_path, pa.array([1e300, -1e308, float("inf"), 1.5, 2.5]))
    intake = await read(tmp_path)
    assert intake.quotes["bid_px"].tolist() == [1_500_000_000, 2_500_000_000]
    assert intake.events == {"broken_record": 3}


async def test_the_price_of_a_side_without_size_may_be_anything(tmp_path):
    write(tmp_path, pa.array([1.7976931348623157e308, 1e-12, 1e10, 1.5, 2.5]), z=pa.array([0, 0, 0, 1, 1]))
    intake = await read(tmp_path, columns={"time": "t", "bid": "b", "bid_size": "z"})
    assert intake.quotes[["bid_px", "bid_sz"]].tolist() == [(0, 0)] * 3 + [
        (1_500_000_000, 1),
        (2_500_000_000, 1),
    ]
    assert not intake.events
