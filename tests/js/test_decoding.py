"""marketfeed.js reads the same from binary frames as from JSON, at the extremes of every field."""

from __future__ import annotations

import json

import numpy as np
import pytest

from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame
from marketfeed.core.records import QUOTE, QUOTES, TRADE, TRADES
from marketfeed.core.symbols import SymbolTable
from marketfeed.fanout.codecs import JsonCodec
from tests.support.js import node, with_parts

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ALLOWED = [chr(code) for code in range(0x21, 0x7F) if chr(code) not in ',*"\\']
NAMES = ["A", "__proto__", "constructor", "x" * 24, "<b>&amp;'</b>"]
NAMES += ["".join(ALLOWED[at : at + 24]) for at in range(0, len(ALLOWED), 24)]
I64 = [0, 1, -1, 10**9, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1]
PRICES = [sign * value for value in I64 for sign in (1, -1)] + [-(2**63), 130_000_001_234_567_891]
SIZES = [
    0.0,
    5e-324,
    2.2250738585072014e-308,
    0.1 + 0.2,
    1.0,
    1e15,
    2.0**53 + 2,
    1e22,
    1.7976931348623157e308,
]
TIMES = [0, 999, 1000, 1_725_000_000_123_456_789, 2**53 + 1, 9_000_000_000_000_000_000, 2**63 - 1]
U64 = [0, 1, 2**32 - 1, 2**32, 2**53 - 1, 2**53 + 1, 2**63, 2**64 - 1]
U32 = [1, 2, 2**31 - 1, 2**31, 2**32 - 1]
CONDITIONS = [b"", b"@", b"@I", b"\0F", b"~}|{"]
SCRIPT = """
import { readFileSync } from "node:fs";
const { decode } = await import(process.argv[2]);
const read = (path) => readFileSync(path);
const binary = read(process.argv[3]);
const ticks = decode(new Uint8Array(binary).buffer, []);
const plain = JSON.parse(read(process.argv[4]));
const keys = (tick) => Object.keys(tick).sort();
const differ = [];
if (ticks.length !== plain.length) differ.push([ticks.length, plain.length]);
ticks.forEach((tick, i) => {
  tick.keep();
  const packed = tick.toJSON();
  if (`${keys(packed)}` !== `${keys(plain[i])}`) differ.push([keys(packed), keys(plain[i])]);
  for (const key of keys(plain[i])) {
    const [one, other] = [packed[key], plain[i][key]];
    if (key === "c" ? `${one}` !== `${other}` : !Object.is(one, other)) differ.push([key, one, other]);
  }
});
console.log(JSON.stringify({ count: ticks.length, differ: differ.slice(0, 20) }));
"""


def cycled(values, count, dtype):
    """Return ``count`` entries that repeat ``values``: lists of different lengths meet in all ways."""
    return np.array([values[i % len(values)] for i in range(count)], dtype)


def records(dtype, count):
    ticks = np.zeros(count, dtype)
    ticks["symbol"] = cycled(range(len(NAMES)), count, np.uint16)
    ticks["ts_event"], ticks["ts_recv"] = cycled(TIMES, count, "<i8"), cycled(TIMES[::-1], count, "<i8")
    ticks["g"], ticks["n"] = cycled(U64, count, "<u8"), cycled(U32, count, "<u4")
    ticks["flags"] = cycled(range(16), count, np.uint8)
    ticks["feed"] = cycled([0, 255], count, np.uint8)
    return ticks


def test_binary_and_json_are_equal_at_the_extremes(tmp_path):
    symbols = SymbolTable(len(NAMES))
    for name in NAMES:
        symbols.intern(name)
    count = 2000
    quotes, trades = records(QUOTE, count), records(TRADE, count)
    quotes["bid_px"], quotes["ask_px"] = cycled(PRICES, count, "<i8"), cycled(PRICES[::-1], count, "<i8")
    quotes["bid_sz"], quotes["ask_sz"] = cycled(SIZES, count, "<f8"), cycled(SIZES[::-1], count, "<f8")
    trades["price"], trades["trade_id"] = cycled(PRICES, count, "<i8"), cycled(U64, count, "<u8")
    trades["size"], trades["side"] = cycled(SIZES, count, "<f8"), cycled(list(b"bs-"), count, np.uint8)
    trades["cond"] = cycled(CONDITIONS, count, "S4")
    ids = {name: number for number, name in enumerate(NAMES)}
    binary = symbols_frame(ids, 1) + quotes_frame(quotes, 2) + trades_frame(trades, 3)
    codec = JsonCodec(symbols)
    plain = [
        codec.as_snapshot(fragment) if flags & 1 else fragment
        for channel, ticks in ((QUOTES, quotes), (TRADES, trades))
        for fragment, flags in zip(codec.fragments(channel, ticks), ticks["flags"].tolist(), strict=True)
    ]
    (tmp_path / "ticks.bin").write_bytes(binary)
    (tmp_path / "ticks.json").write_bytes(b"[" + b",".join(plain) + b"]")
    script = tmp_path / "compare.mjs"
    script.write_text(SCRIPT, "utf-8")
    paths = [with_parts(tmp_path), tmp_path / "ticks.bin", tmp_path / "ticks.json"]
    assert json.loads(node(script, *map(str, paths))) == {"count": 2 * count, "differ": []}
