"""JSON of ticks: valid, and exactly what the records say, however many there are and whatever is in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.core.few import FIELDS, Tick
from marketfeed.core.fixed import SCALE
from marketfeed.core.records import QUOTE, QUOTES, TRADE, TRADES
from marketfeed.core.symbols import SymbolTable
from marketfeed.fanout.codecs import CHUNK, FEW, MAX_CONDITIONS, BinaryCodec, JsonCodec

NAMES = ("A", "%s", "BTC-USD", "{x}", "ABCDEFGHIJKLMNOPQRSTUVWX")
SIZES = {
    "whole": [1.0, 100.0, 25_000.0],
    "broken": [0.1, 1.37, 2.5],
    "huge": [1e15, 1e22, 3.0],
    "mixed": [0.0, 0.001, 7.0],
}


def table():
    symbols = SymbolTable(8)
    for name in NAMES:
        symbols.intern(name)
    return symbols


def records_of(dtype, count, step_ns, sizes, seed, conditions=False):
    rng = np.random.default_rng(seed)
    records = np.zeros(count, dtype)
    records["symbol"] = rng.integers(0, len(NAMES), count)
    records["ts_event"] = 1_725_000_000 * SCALE + np.arange(count) // 7 * step_ns
    records["ts_recv"] = records["ts_event"] - 1_270_000_000
    records["n"], records["g"] = rng.integers(1, 2**32, count), np.arange(count) + 2**40
    if dtype is QUOTE:
        for price in ("bid_px", "ask_px"):
            records[price] = rng.integers(-(2**53), 2**53, count)
        for size in ("bid_sz", "ask_sz"):
            records[size] = rng.choice(sizes, count)
    else:
        records["price"] = rng.integers(-(2**53), 2**53, count)
        records["size"] = rng.choice(sizes, count)
        records["side"] = rng.choice([ord("b"), ord("s"), ord("-")], count)
        records["trade_id"] = rng.integers(0, 2**63, count)
        if conditions:
            records["cond"] = rng.choice(np.frombuffer(b"\0\0\0@FT~", np.uint8), (count, 4)).view("S4")[:, 0]
    return records


def expected(record, channel):
    common = {
        "t": int(record["ts_event"]) // 1000,
        "r": int(record["ts_recv"]) // 1000,
        "n": int(record["n"]),
        "g": int(record["g"]),
    }
    name = NAMES[record["symbol"]]
    if channel == QUOTES:
        return {
            "T": "q",
            "S": name,
            "bp": int(record["bid_px"]) / SCALE if record["bid_sz"] else None,
            "bs": float(record["bid_sz"]),
            "ap": int(record["ask_px"]) / SCALE if record["ask_sz"] else None,
            "as": float(record["ask_sz"]),
            **common,
        }
    return {
        "T": "t",
        "S": name,
        "p": int(record["price"]) / SCALE,
        "s": float(record["size"]),
        "d": chr(record["side"]),
        "i": int(record["trade_id"]),
        **common,
        **({"c": [chr(letter) for letter in record["cond"] if letter]} if record["cond"] else {}),
    }


@settings(max_examples=60, deadline=None)
@given(
    channel=st.sampled_from([QUOTES, TRADES]),
    count=st.sampled_from([0, 1, 2, FEW - 1, FEW, FEW + 1, 300]),
    step_ns=st.sampled_from([0, 1, 999, 1000, 123_456]),
    sizes=st.sampled_from(sorted(SIZES)),
    seed=st.integers(0, 2**32),
    conditions=st.booleans(),
)
def test_each_fragment_is_its_record(channel, count, step_ns, sizes, seed, conditions):
    records = records_of((QUOTE, TRADE)[channel], count, step_ns, SIZES[sizes], seed, conditions)
    fragments = JsonCodec(table()).fragments(channel, records)
    assert list(map(json.loads, fragments)) == [expected(record, channel) for record in records]


@given(
    channel=st.sampled_from([QUOTES, TRADES]),
    sizes=st.sampled_from(sorted(SIZES)),
    seed=st.integers(0, 2**32),
    conditions=st.booleans(),
)
def test_the_fragment_of_one_tick_is_the_one_that_arrays_make(channel, sizes, seed, conditions):
    records = records_of((QUOTE, TRADE)[channel], 8, 123_456, SIZES[sizes], seed, conditions)
    raw = [record.tobytes() for record in records]
    fields = [FIELDS[channel].unpack(record) for record in raw]
    ticks = [Tick(channel, row[8], row[7], row, record) for row, record in zip(fields, raw, strict=True)]
    for codec in (JsonCodec(table()), BinaryCodec()):
        assert list(map(codec.fragment, ticks)) == codec.fragments(channel, records)


@pytest.mark.parametrize("channel", [QUOTES, TRADES])
def test_what_is_more_than_one_piece_is_the_same_as_one_by_one(channel):
    records = records_of((QUOTE, TRADE)[channel], 2 * CHUNK + 1, 500, SIZES["mixed"], 1)
    codec = JsonCodec(table())
    singly = [codec.fragments(channel, records[i : i + 1])[0] for i in range(len(records))]
    assert codec.fragments(channel, records) == singly


def test_times_that_all_differ_and_times_that_all_agree_are_written_alike():
    codec = JsonCodec(table())
    for step_ns in (0, 7_000_000):
        records = records_of(QUOTE, FEW * 2, step_ns, SIZES["whole"], 2)
        assert codec.fragments(QUOTES, records) == [
            codec.fragments(QUOTES, records[i : i + 1])[0] for i in range(len(records))
        ]


@pytest.mark.parametrize("count", [1, FEW, CHUNK + 1])
def test_the_price_of_a_missing_side_is_null(count):
    records = records_of(QUOTE, count, 0, [5.0], 3)
    records["bid_px"], records["bid_sz"] = 0, 0
    records["ask_px"][0], records["ask_sz"][0] = 7, -0.0
    fragments = JsonCodec(table()).fragments(QUOTES, records)
    assert all(b'"bp":null,"bs":0.0,' in fragment for fragment in fragments)
    assert b'"ap":null,' in fragments[0]
    assert not any(b'"ap":null' in fragment for fragment in fragments[1:])


@pytest.mark.parametrize(("price", "text"), [(0, b"0.0"), (-37_630_000_000, b"-37.63"), (-1, b"-1e-9")])
def test_zero_and_negative_prices_are_sent_as_prices(price, text):
    records = records_of(QUOTE, 1, 0, [5.0], 4)
    records["bid_px"] = price
    assert b'"bp":%b,"bs":5.0' % text in JsonCodec(table()).fragments(QUOTES, records)[0]


def test_a_trade_shows_its_conditions_in_snapshots_too_and_others_have_no_such_key():
    records = records_of(TRADE, 3, 500, SIZES["whole"], 3)
    records["cond"][1] = b"@F\0I"
    codec = JsonCodec(table())
    fragments = codec.fragments(TRADES, records)
    assert fragments[1].endswith(b',"c":["@","F","I"]}')
    assert [b'"c"' in fragment for fragment in fragments] == [False, True, False]
    assert json.loads(codec.as_snapshot(fragments[1])) == {**expected(records[1], TRADES), "snap": 1}


def test_any_number_of_combinations_of_conditions_is_written():
    records = records_of(TRADE, MAX_CONDITIONS + 100, 500, SIZES["whole"], 4)
    letters = [
        b"%c%c%c" % (48 + code % 10, 48 + code // 10 % 10, 48 + code // 100) for code in range(len(records))
    ]
    records["cond"] = letters
    assert len(set(letters)) > MAX_CONDITIONS
    fragments = JsonCodec(table()).fragments(TRADES, records)
    assert list(map(json.loads, fragments)) == [expected(record, TRADES) for record in records]
