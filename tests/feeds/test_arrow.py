"""Cells of Parquet files: a bad cell drops its row; every type is read exactly or refused at once."""

from __future__ import annotations

import datetime as dt
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.feeds.replay.arrow import Cells
from marketfeed.feeds.replay.fixedpoint import from_words, widened
from tests.support.replay import damaged, names, outcome, refusal, replayed

BASE = {"path": "day.parquet", "format": "parquet", "symbol": "A", "time": "s"}
TRADES: dict[str, Any] = {**BASE, "columns": {"time": "t", "price": "p", "size": "n"}}
START = 1_700_000_000


def write(folder, count=5, row_group_size=10_000, **columns):
    table = {"t": pa.array(range(START, START + count), pa.int64()), "p": pa.array([1.5] * count)}
    table |= {"n": pa.array([2] * count), **columns}
    pq.write_table(pa.table(table), folder / "day.parquet", row_group_size=row_group_size)


def no_utf8(count, at):
    """Return a column of strings with invalid UTF-8 in row ``at``."""
    values = pa.array([b"A\xff\x1b" if row == at else b"A" for row in range(count)], pa.binary())
    return pa.Array.from_buffers(pa.string(), count, values.buffers())


COUNT, AT = 5000, 4200
BAD = {
    "a text that is no size": ({"n": ["n/a" if r == AT else "2" for r in range(COUNT)]}, "no size: n: 'n/a'"),
    "an empty size": ({"n": ["" if r == AT else "2" for r in range(COUNT)]}, "a trade without size: n: ''"),
    "a size of 401 digits": (
        {"n": ["9" * 401 if r == AT else "2" for r in range(COUNT)]}, f"no size: n: '{'9' * 60}…'"
    ),
    "a negative size": ({"n": pa.array([-3 if r == AT else 2 for r in range(COUNT)])}, "no size: n: -3"),
    "a uint64 price above 2**63": (
        {"p": pa.array([2**64 - 5 if r == AT else 2 for r in range(COUNT)], pa.uint64())},
        "no price: p: 18446744073709551611",
    ),
    "a uint64 time above 2**63": (
        {"t": pa.array([2**63 + 5 if r == AT else START + r for r in range(COUNT)], pa.uint64())},
        "no time: t: 9223372036854775813",
    ),
    "the least int64 as time": (
        {"t": pa.array([-(2**63) if r == AT else START + r for r in range(COUNT)])},
        "no time: t: -9223372036854775808",
    ),
    "the least int64 as price": (
        {"p": pa.array([-(2**63) if r == AT else 2 for r in range(COUNT)])},
        "no price: p: -9223372036854775808",
    ),
    "a decimal256 beyond 128 bits": (
        {"p": pa.array([Decimal(10 ** 50 if r == AT else 2) for r in range(COUNT)], pa.decimal256(60, 2))},
        "no price: p: " + "1" + "0" * 50 + ".00",
    ),
    "a symbol that is no UTF-8": ({"s": no_utf8(COUNT, AT)}, "no UTF-8: s: 'A\\xff\\x1b'"),
    "a timestamp beyond 2262": (
        {"t": pa.array([10**15 if r == AT else START + r for r in range(COUNT)], pa.timestamp("s"))},
        "no time: t: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_cell_costs_its_row_and_is_told_by_row_and_value(tmp_path, case):
    columns, reason = BAD[case]
    write(tmp_path, COUNT, **columns)
    settings = dict(TRADES)
    if "s" in columns:
        settings |= {"columns": {**TRADES["columns"], "symbol": "s"}, "symbol": None}
    intake = await replayed(tmp_path, **settings)
    assert len(intake.trades) == COUNT - 1
    assert intake.events == {"broken_record": 1}
    (told,) = intake.logged
    assert told["at"] == f"{tmp_path}/day.parquet:{AT}"
    assert told["reason"].startswith(reason)
    assert told["reason"].isprintable()
    times = intake.trades["ts_event"] // 10**9 - START
    assert times.tolist() == [row for row in range(COUNT) if row != AT]


async def test_a_side_of_a_quote_whose_size_is_an_empty_text_is_missing(tmp_path):
    write(tmp_path, 3, n=["1", "", None])
    intake = await replayed(tmp_path, **{**BASE, "columns": {"time": "t", "bid": "p", "bid_size": "n"}})
    assert intake.quotes["bid_sz"].tolist() == [1, 0, 0]
    assert not intake.events


async def test_what_cannot_be_decoded_as_a_whole_is_halved_down_to_the_row(tmp_path, monkeypatch):
    from marketfeed.feeds.replay.arrow import Cells

    plain_sizes = Cells.sizes

    def failing(self, column):
        if 77 in column.to_pylist():
            raise KeyError("the decoder has a fault")
        return plain_sizes(self, column)

    monkeypatch.setattr(Cells, "sizes", failing)
    write(tmp_path, COUNT, n=pa.array([77 if r in (0, 3000, 4999) else 2 for r in range(COUNT)]))
    intake = await replayed(tmp_path, **TRADES)
    rows = (intake.trades["ts_event"] // 10**9 - START).tolist()
    assert rows == [row for row in range(COUNT) if row not in (0, 3000, 4999)]
    assert intake.events == {"broken_record": 3}


PRICES = {
    "float16": (np.array([65504, 0.1, 1.39, 100.5, 2], np.float16), ["65504", "0.1", "1.39", "100.5", "2"]),
    "float32": (
        np.array([61195288.05, 0.1, 1.39147, 94213.12, 110.015625], np.float32),
        ["61195288", "0.1", "1.39147", "94213.12", "110.015625"],
    ),
    "float32, large": (
        np.array([16777217, 4194304.5, 9123450000, 123456.789, -37.63], np.float32),
        ["16777216", "4194304.5", "9123449856", "123456.7890625", "-37.63"],
    ),
    "float64": (
        np.array([61195288.05, 0.1, 1.39147, 9_000_000_000.5, 110.015625]),
        ["61195288.05", "0.1", "1.39147", "9000000000.5", "110.015625"],
    ),
    "uint64": (pa.array([2**33, 1, 2, 3, 4], pa.uint64()), [str(2**33), "1", "2", "3", "4"]),
    "int8": (pa.array([1, -2, 3, 4, 5], pa.int8()), ["1", "-2", "3", "4", "5"]),
    **{
        f"decimal{bits}({digits}, {scale})": (
            pa.array([Decimal(text) for text in ("1.5", "-2.25", "0.01", "3", "94.21")],
                     getattr(pa, f"decimal{bits}")(digits, scale)),
            ["1.5", "-2.25", "0.01", "3", "94.21"],
        )
        for bits, digits, scale in [(32, 9, 2), (64, 18, 2), (128, 38, 9), (128, 38, 12), (128, 38, 30),
                                    (256, 50, 9), (256, 76, 30), (256, 76, 70)]
    },
}  # fmt: skip


@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "dictionary"])
@pytest.mark.parametrize("case", PRICES)
async def test_prices_of_every_type_are_what_is_stored(tmp_path, case, encoded):
    values, wanted = PRICES[case]
    column = pa.array(values)
    if encoded:
        column = pa.DictionaryArray.from_arrays(pa.array(range(len(column)), pa.int32()), column)
    write(tmp_path, p=column)
    intake = await replayed(tmp_path, **TRADES)
    assert intake.trades["price"].tolist() == [int(Decimal(text) * 10**9) for text in wanted]


@pytest.mark.parametrize(
    "kind",
    [pa.float16(), pa.float32(), pa.float64(), pa.int64(), pa.uint64(), pa.decimal128(20, 4),
     pa.decimal256(50, 4), pa.binary(16)],
    ids=str,
)  # fmt: skip
async def test_a_null_price_is_a_missing_side_of_a_quote_whatever_the_type(tmp_path, kind):
    value: Any = (15_000_000_000).to_bytes(16, "little") if kind == pa.binary(16) else 2
    value = Decimal(2) if pa.types.is_decimal(kind) else value
    write(tmp_path, 3, p=pa.array([value, None, value], kind))
    columns = {"time": "t", "bid": "p"}
    scale = 10**10 if kind == pa.binary(16) else 1
    intake = await replayed(tmp_path, **{**BASE, "columns": columns, "price_scale": scale})
    assert intake.quotes["bid_sz"].tolist() == [1, 0, 1]
    assert not intake.events


@pytest.mark.parametrize("scale", [100, 10**4, 10**9, 10**12, 3])
async def test_integers_of_every_size_obey_the_scale(tmp_path, scale):
    values = [12_345, -12_345, 2**31, 2**62 // 10**9 * scale if scale <= 4 else 7, 1]
    write(tmp_path, p=pa.array(values, pa.int64()))
    intake = await replayed(tmp_path, **{**TRADES, "price_scale": scale})
    wanted = [round(Fraction(value * 10**9, scale)) for value in values]
    assert intake.trades["price"].tolist() == [w for w in wanted if w]


@given(st.lists(st.one_of(st.none(), st.integers(0, 10**18)), min_size=1, max_size=30), st.integers(0, 18))
def test_sizes_in_decimals_are_the_nearest_doubles(numbers, decimals):
    nothing: Any = None  # no times in this table
    values = [None if number is None else Decimal(number).scaleb(-decimals) for number in numbers]
    for kind in (pa.decimal128(38, decimals), pa.decimal64(18, decimals), pa.decimal256(60, decimals)):
        if kind.bit_width == 64 and any(number is not None and number >= 10**18 for number in numbers):
            continue
        sizes, broken = Cells(pa, None, None, nothing).sizes(pa.array(values, kind))
        assert sizes.tolist() == [0.0 if value is None else float(value) for value in values]
        assert not broken.any()


@given(
    st.lists(st.integers(-(2**127), 2**127 - 1) | st.integers(-(10**20), 10**20), min_size=1),
    st.integers(0, 40),
)
def test_integers_of_128_bits_over_any_power_of_ten_are_exact_or_broken(values, power):
    words = np.frombuffer(b"".join(v.to_bytes(16, "little", signed=True) for v in values), "<i8").reshape(
        -1, 2
    )
    found = from_words(words, np.zeros(len(values), bool), 10**power)
    for value, price, broken in zip(values, found.values.tolist(), found.broken.tolist(), strict=True):
        exact = round(Fraction(value * 10**9, 10**power))
        assert broken == (abs(exact) >= 2**63 or (exact == 0 and value != 0))
        assert price == (0 if broken else exact)


@given(st.decimals(-(10**6), 10**6, places=2) | st.decimals(-10, 10, places=6))
def test_a_decimal_of_up_to_seven_digits_comes_back_from_a_float_of_32_bits(number):
    digits = len(number.normalize().as_tuple().digits)
    (found,) = widened(np.array([float(number)], np.float32)).tolist()
    if digits <= 7 and abs(number) < 8_000_000:
        assert Decimal(repr(found)) == number or np.float32(found) == np.float32(float(number))
    assert (
        abs(Fraction(found) - Fraction(struct.unpack("f", struct.pack("f", float(number)))[0]))
        <= Fraction(abs(found)) / 2**24
    )


@given(st.integers(-(2**31), 2**31))
def test_an_integer_in_a_float_of_32_bits_is_the_one_that_is_stored(number):
    stored = np.array([number], np.float32)
    assert widened(stored).tolist() == [float(stored[0])]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York", "+02:00"])
async def test_timestamps_of_every_unit_and_zone(tmp_path, unit, zone):
    per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = pa.array([START * per_s, None, (START + 1) * per_s], pa.timestamp(unit, zone))
    write(tmp_path, 3, t=times)
    intake = await replayed(tmp_path, **TRADES)
    assert intake.trades["ts_event"].tolist() == [START * 10**9, (START + 1) * 10**9]
    assert intake.events == {"broken_record": 1}
    assert intake.logged[0]["reason"] == "no time: t: None"


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York"])
async def test_a_timestamp_at_the_ends_of_its_range_is_no_other_one_in_a_zone(tmp_path, zone):
    """With the zone's offset the time exceeds 64 bits and would wrap around."""
    times = pa.array([START * 10**9, -(2**63) + 1, 2**63 - 1], pa.int64()).cast(pa.timestamp("ns"))
    write(tmp_path, 3, t=times)
    intake = await replayed(tmp_path, **TRADES | {"time": "ns", "zone": zone})
    assert len(intake.trades) == 1
    assert intake.events == {"broken_record": 2}


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
async def test_a_date_is_its_midnight_in_the_zone(tmp_path, kind):
    write(tmp_path, 2, t=pa.array([dt.date(2024, 7, 1), dt.date(2024, 12, 2)], kind))
    intake = await replayed(tmp_path, **{**TRADES, "zone": "America/New_York"})
    days = [dt.datetime(2024, 7, 1, 4, tzinfo=dt.UTC), dt.datetime(2024, 12, 2, 5, tzinfo=dt.UTC)]
    assert intake.trades["ts_event"].tolist() == [round(day.timestamp()) * 10**9 for day in days]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary(4)],
    ids=str,
)
@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "dictionary"])
async def test_texts_of_every_type_are_symbols_sizes_sides_and_ids(tmp_path, kind, encoded):
    def column(values):
        values = [v.ljust(4, "\0") if kind == pa.binary(4) else v for v in values]
        values = (
            pa.array([v.encode() for v in values], kind) if "binary" in str(kind) else pa.array(values, kind)
        )
        return values.dictionary_encode() if encoded and kind != pa.string_view() else values

    write(
        tmp_path,
        2,
        s=column(["A", "B/C"]),
        n=column(["1.5", "7"]),
        d=column(["buy", "S"]),
        i=column(["17", "x"]),
    )
    columns = {**TRADES["columns"], "symbol": "s", "side": "d", "trade_id": "i"}
    intake = await replayed(tmp_path, **{**TRADES, "symbol": None, "columns": columns})
    assert names(intake, intake.trades) == ["A", "B/C"]
    assert intake.trades["size"].tolist() == [1.5, 7]
    assert bytes(intake.trades["side"].tolist()) == b"bs"
    assert intake.trades["trade_id"].tolist() == [17, 0]


async def test_trade_ids_take_all_64_bits_and_none_is_negative(tmp_path):
    write(tmp_path, 3, i=pa.array([2**64 - 1, 5, None], pa.uint64()))
    columns = {**TRADES["columns"], "trade_id": "i"}
    assert (await replayed(tmp_path, **{**TRADES, "columns": columns})).trades["trade_id"].tolist() == [
        2**64 - 1,
        5,
        0,
    ]
    write(tmp_path, 3, i=pa.array([-1, 5, None], pa.int64()))
    assert (await replayed(tmp_path, **{**TRADES, "columns": columns})).trades["trade_id"].tolist() == [
        0,
        5,
        0,
    ]


REFUSED = {
    "time": [pa.string(), pa.float64(), pa.time64("us"), pa.duration("s"), pa.bool_(), pa.list_(pa.int64())],
    "price": [pa.string(), pa.bool_(), pa.binary(16), pa.binary(8), pa.binary(), pa.list_(pa.float64()),
              pa.struct([("units", pa.int64())]), pa.timestamp("s"), pa.map_(pa.string(), pa.int8())],
    "size": [pa.bool_(), pa.struct([("a", pa.int8())]), pa.list_(pa.int8()), pa.date32()],
    "symbol": [pa.list_(pa.string()), pa.struct([("a", pa.string())]), pa.map_(pa.string(), pa.string())],
    "side": [pa.list_(pa.string())],
    "trade_id": [pa.float64(), pa.struct([("a", pa.int8())])],
}  # fmt: skip


@pytest.mark.parametrize(
    ("role", "kind"), [(role, kind) for role, kinds in REFUSED.items() for kind in kinds], ids=str
)
def test_types_that_cannot_be_read_are_refused_with_file_column_type_and_what_can(tmp_path, role, kind):
    write(tmp_path, 3, x=pa.nulls(3, kind))
    said = refusal(tmp_path, **{**TRADES, "columns": {**TRADES["columns"], role: "x"}})
    kind = pq.read_schema(tmp_path / "day.parquet").field("x").type  # Parquet names nested fields differently
    assert said.startswith(f"columns.{role}: x is {str(kind)[:60]}")
    assert f" in {tmp_path}/day.parquet; " in said
    assert "it may be" in said or "16 bytes of fixed point need price_scale" in said


def test_where_on_a_column_that_has_no_text_is_refused(tmp_path):
    write(tmp_path, 3, x=pa.nulls(3, pa.list_(pa.int8())))
    said = refusal(tmp_path, **TRADES, where={"x": "1"})
    assert said.startswith(f"where: x is list<element: int8> in {tmp_path}/day.parquet; it may be a text, ")


def test_a_type_with_a_very_long_name_and_a_column_that_is_there_twice(tmp_path):
    write(tmp_path, 3, x=pa.nulls(3, pa.struct([(f"field{n}", pa.int8()) for n in range(500)])))
    said = refusal(tmp_path, **{**TRADES, "columns": {**TRADES["columns"], "size": "x"}})
    assert len(said) < 300
    twice = pa.Table.from_arrays([pa.array([1])] * 3, names=["t", "p", "p"])
    pq.write_table(twice, tmp_path / "day.parquet")
    said = refusal(tmp_path, **{**TRADES, "columns": {"time": "t", "price": "p"}})
    assert said.startswith("columns: more than one column 'p' in ")


async def test_a_wrong_byte_in_a_page_with_a_checksum_is_found(tmp_path):
    table = pa.table({"t": range(START, START + 3000), "p": np.arange(3000) / 4, "n": np.ones(3000)})
    pq.write_table(
        table, tmp_path / "day.parquet", write_page_checksum=True, compression="none", use_dictionary=False,
        row_group_size=1000,
    )  # fmt: skip
    whole = (tmp_path / "day.parquet").read_bytes()
    price = struct.pack("<d", 1500 / 4)
    (tmp_path / "day.parquet").write_bytes(whole.replace(price, struct.pack("<d", 1501 / 4), 1))
    intake, said = await damaged(tmp_path, **TRADES)
    assert intake.trades["price"].tolist() == [n * 250_000_000 for n in range(1000)]
    assert f"{tmp_path}/day.parquet:1000: the file is damaged from here on: " in said


@pytest.mark.slow
async def test_fuzzed_files_are_told_in_one_line(tmp_path):
    chance = np.random.default_rng(11)
    count = 300
    write(
        tmp_path,
        count,
        100,
        s=pa.array(["AB"] * count).dictionary_encode(),
        d=pa.array([Decimal("1.5")] * count),
    )
    whole = (tmp_path / "day.parquet").read_bytes()
    columns = {"time": "t", "price": "d", "size": "n", "symbol": "s", "side": "s", "trade_id": "n"}
    told = 0
    for _ in range(250):
        broken = bytearray(whole)
        for at in chance.integers(0, len(whole), chance.integers(1, 6)):
            broken[at] = chance.integers(256)
        if chance.random() < 0.2:
            del broken[chance.integers(len(broken)) :]
        (tmp_path / "day.parquet").write_bytes(bytes(broken))
        _, said = await outcome(tmp_path, **{**TRADES, "symbol": None, "columns": columns})
        told += bool(said)
    assert told > 100
