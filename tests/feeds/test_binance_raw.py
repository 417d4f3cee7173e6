"""Decoding of raw Binance streams: single lines, and two recordings compared with Decimal."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal

import numpy as np
import pytest

from marketfeed.core.records import BUY, QUOTES, SELL, TRADES
from marketfeed.feeds.replay.binance_raw import BinanceRaw

# Recorded on 2024-08-08 and 2024-08-09; aggTrade from Binance's documentation.
SPOT_BOOK = (
    b'1723161254024619568 {"stream":"ethusdt@bookTicker","data":{"u":35346513501,"s":"ETHUSDT",'
    b'"b":"2683.80000000","B":"3.02920000","a":"2683.81000000","A":"31.43950000"}}\n'
)
FUTURES_BOOK = (
    b'1723161255075314667 {"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107838013,'
    b'"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"3.330","T":1723161256317,'
    b'"E":1723161256317}}\n'
)
TRADE = (
    b'1723161255089314667 {"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256354,'
    b'"T":1723161256354,"s":"BTCUSDT","t":5259738261,"p":"61800.30","q":"0.002","X":"MARKET","m":false}}\n'
)
AGG_TRADE = (
    b'1723161255090000000 {"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1672515782136,'
    b'"s":"BTCUSDT","a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782136,"m":true,"M":true}}\n'
)
DEPTH = (
    b'1723161254036052868 {"stream":"ethusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255308,'
    b'"s":"ETHUSDT","U":35346513499,"u":35346513505,"b":[["2683.80000000","3.02920000"]],"a":[]}}\n'
)
SNAPSHOT = b'1723161254152322667 {"lastUpdateId":35346513512,"bids":[["2683.80","3.02920"]],"asks":[]}\n'
ACKNOWLEDGED = b'1723161254000000000 {"result":null,"id":1}\n'


class Names(dict):
    """Assigns ids in order of appearance; refuses some names."""

    def __init__(self, *refused):
        super().__init__()
        self.refused = refused

    def __call__(self, name):
        return None if name in self.refused else self.setdefault(name, len(self))


def decode(*lines, symbol=None):
    return BinanceRaw().decode(list(lines), Names() if symbol is None else symbol)


def test_spot_book_ticker_without_a_venue_time():
    decoded = decode(SPOT_BOOK)
    (quote,) = decoded.batch.quotes
    assert (quote["bid_px"], quote["ask_px"]) == (2_683_800_000_000, 2_683_810_000_000)
    assert (quote["bid_sz"], quote["ask_sz"], quote["ts_event"], quote["symbol"]) == (3.0292, 31.4395, 0, 0)
    assert (quote["g"], quote["n"], quote["ts_recv"]) == (0, 0, 0)
    assert decoded.times_ns.tolist() == [1723161254024619568]


def test_futures_book_ticker_with_the_venues_time():
    (quote,) = decode(FUTURES_BOOK).batch.quotes
    assert (quote["bid_px"], quote["ask_px"]) == (61_800_200_000_000, 61_800_300_000_000)
    assert quote["ts_event"] == 1723161256317_000_000


def test_trades_and_aggregate_trades_with_the_aggressors_side():
    first, second = decode(TRADE, AGG_TRADE).batch.trades
    assert (first["price"], first["size"]) == (61_800_300_000_000, 0.002)
    assert (first["trade_id"], first["side"], first["ts_event"]) == (5259738261, BUY, 1723161256354_000_000)
    assert (second["price"], second["size"]) == (1_000_000, 100)
    assert (second["trade_id"], second["side"], second["ts_event"]) == (12345, SELL, 1672515782136_000_000)


def test_the_order_of_lines_is_kept_over_channels_and_symbols():
    names = Names()
    decoded = decode(SPOT_BOOK, TRADE, FUTURES_BOOK, AGG_TRADE, symbol=names)
    assert names == {"ETHUSDT": 0, "BTCUSDT": 1}
    assert decoded.batch.channels.tolist() == [QUOTES, TRADES, QUOTES, TRADES]
    assert decoded.batch.quotes["symbol"].tolist() == [0, 1]
    assert decoded.times_ns.tolist() == [
        int(line.split()[0]) for line in (SPOT_BOOK, TRADE, FUTURES_BOOK, AGG_TRADE)
    ]


def test_other_frames_are_counted_and_passed_over():
    decoded = decode(DEPTH, SNAPSHOT, ACKNOWLEDGED, SPOT_BOOK)
    assert len(decoded.batch) == 1
    assert decoded.events == {"other_frame": 3}
    assert decoded.broken == []


BARE = {
    "spot quote": SPOT_BOOK.replace(b'{"stream":"ethusdt@bookTicker","data":', b"").replace(b"}}", b"}"),
    "futures quote": FUTURES_BOOK.replace(b'{"stream":"btcusdt@bookTicker","data":', b"").replace(
        b"}}", b"}"
    ),
    "quote of all": SPOT_BOOK.replace(b"ethusdt@bookTicker", b"!bookTicker"),
    "quote of a stream named otherwise": FUTURES_BOOK.replace(b"btcusdt@bookTicker", b"mine"),
    "array in a wrapper": SPOT_BOOK.replace(b'"data":{', b'"data":[{').replace(b"}}", b"}]}"),
}


@pytest.mark.parametrize("line", BARE.values(), ids=BARE)
def test_quotes_of_every_wrapping_are_the_same(line):
    wrapped = SPOT_BOOK if b"ETHUSDT" in line else FUTURES_BOOK
    assert decode(line).batch.quotes.tolist() == decode(wrapped).batch.quotes.tolist()
    assert not decode(line).events


def test_bare_trades_are_trades():
    bare = [
        TRADE.replace(b'{"stream":"btcusdt@trade","data":', b"").replace(b"}}", b"}"),
        AGG_TRADE.replace(b'{"stream":"btcusdt@aggTrade","data":', b"").replace(b"}}", b"}"),
    ]
    assert decode(*bare).batch.trades.tolist() == decode(TRADE, AGG_TRADE).batch.trades.tolist()


def test_an_array_of_events_gives_each_of_them_and_a_broken_one_costs_no_other():
    first, second = (line.partition(b" ")[2].strip() for line in (BARE["spot quote"], BARE["futures quote"]))
    events = [first, b'{"e":"24hrTicker","s":"X"}', b'{"e":"trade","p":7}', b"5", second]
    decoded = decode(b"7 [" + b",".join(events) + b"]\n")
    assert decoded.batch.quotes["bid_px"].tolist() == [2_683_800_000_000, 61_800_200_000_000]
    assert decoded.times_ns.tolist() == [7, 7]
    assert decoded.events == {"other_frame": 1}
    assert decoded.passed == {"24hrTicker": 1}
    assert [at for at, _ in decoded.broken] == [0]


def test_what_was_passed_over_is_named():
    decoded = decode(
        DEPTH, DEPTH, SNAPSHOT, ACKNOWLEDGED, b'1 {"e":"x y\\u001b[1m"}\n', b'1 {"stream":"a@x"}\n'
    )
    assert decoded.passed == {"depthUpdate": 2, "depth snapshot": 1, "answer to a request": 1, "unknown": 2}
    assert decoded.events == {"other_frame": 6}


@pytest.mark.parametrize("kind", ["NA", "ADL", "INSURANCE_FUND", "LIQUIDATION", "", 5])
def test_only_trades_on_the_market_are_trades(kind):
    other = TRADE.replace(b'"MARKET"', json.dumps(kind).encode())
    decoded = decode(other, TRADE, other.replace(b'"61800.30"', b'"0"').replace(b'"0.002"', b'"0"'))
    assert len(decoded.batch.trades) == 1
    assert decoded.events == {"other_trade": 2}
    assert not decoded.broken


def test_a_trade_of_nothing_is_no_trade_and_one_that_says_no_kind_is():
    nothing = TRADE.replace(b'"0.002"', b'"-0.000"')
    bare = TRADE.replace(b'"X":"MARKET",', b"")
    decoded = decode(nothing, bare, AGG_TRADE.replace(b'"100"', b'"0"'))
    assert len(decoded.batch.trades) == 1
    assert decoded.events == {"empty_trade": 2}


def test_negative_and_zero_prices_are_prices():
    lines = [TRADE.replace(b"61800.30", text) for text in (b"-37.63", b"0.00", b"-0.000000001")]
    book = SPOT_BOOK.replace(b"2683.80000000", b"-2.5").replace(b"2683.81000000", b"0")
    decoded = decode(*lines, book)
    assert decoded.batch.trades["price"].tolist() == [-37_630_000_000, 0, -1]
    assert decoded.batch.quotes[["bid_px", "ask_px"]].tolist() == [(-2_500_000_000, 0)]


def test_a_side_without_a_size_needs_no_price():
    line = SPOT_BOOK.replace(b"3.02920000", b"0.0").replace(b"2683.80000000", b"")
    (quote,) = decode(line).batch.quotes
    assert (quote["bid_px"], quote["bid_sz"]) == (0, 0)
    assert quote["ask_px"] == 2_683_810_000_000


def test_a_side_without_a_size_is_missing():
    book = SPOT_BOOK.replace(b'"3.02920000"', b'"-0.0"').replace(b'"31.43950000"', b'"0.00000000"')
    (quote,) = decode(book).batch.quotes
    assert [quote[name] for name in ("bid_px", "bid_sz", "ask_px", "ask_sz")] == [0, 0, 0, 0]
    assert not np.signbit(quote["bid_sz"])


@pytest.mark.parametrize("price", [b"0.0000000004", b"-4e-10", b"1e-400"])
def test_a_price_that_would_be_rounded_to_0_is_left_out_and_told(price):
    lines = [SPOT_BOOK.replace(b"2683.80000000", price), TRADE.replace(b"61800.30", price)]
    decoded = decode(*lines)
    assert len(decoded.batch) == 0
    assert [(at, "finer than 1e-9" in why) for at, why in decoded.broken] == [(0, True), (1, True)]


@pytest.mark.parametrize(("line", "ms"), [(TRADE, b"1723161256354"), (AGG_TRADE, b"1672515782136")])
def test_times_in_microseconds_are_told_by_their_size(line, ms):
    channels = decode(line.replace(ms, ms + b"789")).batch
    assert channels.trades["ts_event"].tolist() == [int(ms) * 1_000_000 + 789_000]
    assert decode(line).batch.trades["ts_event"].tolist() == [int(ms) * 1_000_000]


def test_nothing_at_all():
    decoded = decode()
    assert (len(decoded.batch), len(decoded.times_ns), decoded.broken, decoded.events) == (0, 0, [], {})


BROKEN = {
    "empty": b"\n",
    "no stamp": SPOT_BOOK.partition(b" ")[2],
    "stamp is no number": b"x" + SPOT_BOOK,
    "stamp is negative": b"-" + SPOT_BOOK,
    "stamp beyond int64": b"9" * 19 + SPOT_BOOK.lstrip(b"0123456789"),
    "cut short": SPOT_BOOK[:90],
    "not an object": b"1723161254024619568 [1]\n",
    "not UTF-8": SPOT_BOOK.replace(b"ETHUSDT", b"\xff\xfe"),
    "no price": SPOT_BOOK.replace(b'"b":"2683.80000000",', b""),
    "price is no number": SPOT_BOOK.replace(b"2683.80000000", b"cheap"),
    "price is not finite": SPOT_BOOK.replace(b"2683.80000000", b"Infinity"),
    "price is too high": SPOT_BOOK.replace(b"2683.80000000", b"9999999999.0"),
    "price is a number": SPOT_BOOK.replace(b'"2683.80000000"', b"2683.8"),
    "price is null": SPOT_BOOK.replace(b'"2683.80000000"', b"null"),
    "size is no number": SPOT_BOOK.replace(b"3.02920000", b"much"),
    "size has an underscore": SPOT_BOOK.replace(b"3.02920000", b"1_0"),
    "size is in other digits": SPOT_BOOK.replace(b"3.02920000", "१".encode()),
    "size is a number": SPOT_BOOK.replace(b'"3.02920000"', b"3.5"),
    "size is negative": SPOT_BOOK.replace(b"3.02920000", b"-1"),
    "size is NaN": SPOT_BOOK.replace(b"3.02920000", b"nan"),
    "size is infinite": SPOT_BOOK.replace(b"3.02920000", b"1e999"),
    "no symbol": SPOT_BOOK.replace(b'"s":"ETHUSDT",', b""),
    "symbol is a number": SPOT_BOOK.replace(b'"ETHUSDT"', b"5"),
    "symbol is a list": SPOT_BOOK.replace(b'"ETHUSDT"', b"[]"),
    "time beyond int64": FUTURES_BOOK.replace(b'"T":1723161256317', b'"T":9223372036855'),
    "time is no number": FUTURES_BOOK.replace(b'"T":1723161256317', b'"T":"noon"'),
    "time is null": FUTURES_BOOK.replace(b'"T":1723161256317', b'"T":null'),
    "id beyond u64": TRADE.replace(b"5259738261", b'"18446744073709551616"'),
    "id is negative": TRADE.replace(b"5259738261", b"-1"),
    "no maker": TRADE.replace(b',"m":false', b""),
    "maker is a text": TRADE.replace(b'"m":false', b'"m":"false"'),
    "maker is null": TRADE.replace(b'"m":false', b'"m":null'),
    "data is no object": b'1723161254024619568 {"stream":"ethusdt@trade","data":7}\n',
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_told_and_the_others_are_taken(line):
    names = Names()
    decoded = decode(SPOT_BOOK, line, TRADE, symbol=names)
    assert decoded.batch.channels.tolist() == [QUOTES, TRADES]
    if line is BROKEN["data is no object"]:
        assert decoded.events == {"other_frame": 1}
        return
    ((at, what),) = decoded.broken
    assert at == 1
    assert what
    assert "\n" not in what
    assert list(names) == ["ETHUSDT", "BTCUSDT"]


def test_rounded_prices_are_counted_once_a_tick():
    finer = SPOT_BOOK.replace(b"2683.80000000", b"0.12345678901").replace(b"2683.81000000", b"0.12345678999")
    decoded = decode(finer, SPOT_BOOK, TRADE.replace(b"61800.30", b"1.0000000005"))
    assert decoded.events == {"rounded_price": 2}
    assert decoded.batch.quotes["bid_px"][0] == 123_456_789
    assert decoded.batch.quotes["ask_px"][0] == 123_456_790
    assert decoded.batch.trades["price"][0] == 1_000_000_000  # half to even


def test_a_name_that_cannot_be_taken_leaves_its_ticks_out():
    decoded = decode(SPOT_BOOK, TRADE, FUTURES_BOOK, symbol=Names("BTCUSDT"))
    assert decoded.batch.channels.tolist() == [QUOTES]
    assert (decoded.broken, decoded.events) == ([], {})


def test_matches_lines_of_a_timestamp_and_json():
    assert BinanceRaw().matches([b"junk\n", SPOT_BOOK])
    assert not BinanceRaw().matches([b"time,bid,ask\n", b"1,2,3\n"])
    assert not BinanceRaw().matches([])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quotes", "trades"),
    [("usdm_btcusdt_20240808.gz", 66_089, 21_313), ("spot_ethusdt_20240808.gz", 24_077, 6_106)],
)
def test_whole_recordings_to_the_last_decimal(realdata, name, quotes, trades):
    with gzip.open(realdata / "binance_raw_ws" / name) as file:
        lines = file.readlines()
    decoded = BinanceRaw().decode(lines, Names())
    assert (len(decoded.batch.quotes), len(decoded.batch.trades)) == (quotes, trades)
    assert decoded.broken == []
    assert set(decoded.events) == {"other_frame"}
    assert decoded.events["other_frame"] + quotes + trades == len(lines)
    parts = (iter(decoded.batch.quotes.tolist()), iter(decoded.batch.trades.tolist()))
    assert decoded.batch.channels is not None
    ticks = zip(decoded.batch.channels.tolist(), decoded.times_ns.tolist(), strict=True)
    for line in lines:
        stamp, _, text = line.partition(b" ")
        frame = json.loads(text)
        kind = frame.get("stream", "").rpartition("@")[2]
        if kind not in ("bookTicker", "trade"):
            continue
        channel, time_ns = next(ticks)
        data, tick = frame["data"], next(parts[channel])
        assert time_ns == int(stamp)
        if kind == "bookTicker":
            ts_event, _, _, bid, ask, bid_size, ask_size, _, symbol, _, _ = tick
            assert channel == QUOTES
            assert Decimal(bid).scaleb(-9) == Decimal(data["b"])
            assert Decimal(ask).scaleb(-9) == Decimal(data["a"])
            assert (bid_size, ask_size) == (float(data["B"]), float(data["A"]))
            assert ts_event == data.get("T", 0) * 1_000_000
        else:
            ts_event, _, _, price, trade_id, size, side, _, _, _, _, symbol, _, _ = tick
            assert channel == TRADES
            assert Decimal(price).scaleb(-9) == Decimal(data["p"])
            assert (trade_id, size) == (data["t"], float(data["q"]))
            assert side == (SELL if data["m"] else BUY)
            assert ts_event == data["T"] * 1_000_000
        assert symbol == 0
    assert next(ticks, None) is None
    assert np.count_nonzero(decoded.batch.quotes["g"]) == 0
