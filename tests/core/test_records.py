import numpy as np
import pytest

from marketfeed.core.records import (
    CHANNELS,
    DTYPES,
    NO_QUOTES,
    NO_TRADES,
    QUOTE,
    QUOTES,
    RECORD,
    TRADE,
    TRADES,
    Batch,
    stamps_of,
)

# The wire format: a change here breaks every client.
QUOTE_LAYOUT = [
    ("ts_event", 0, "<i8"),
    ("ts_recv", 8, "<i8"),
    ("g", 16, "<u8"),
    ("bid_px", 24, "<i8"),
    ("ask_px", 32, "<i8"),
    ("bid_sz", 40, "<f8"),
    ("ask_sz", 48, "<f8"),
    ("n", 56, "<u4"),
    ("symbol", 60, "<u2"),
    ("feed", 62, "|u1"),
    ("flags", 63, "|u1"),
]
TRADE_LAYOUT = [
    ("ts_event", 0, "<i8"),
    ("ts_recv", 8, "<i8"),
    ("g", 16, "<u8"),
    ("price", 24, "<i8"),
    ("trade_id", 32, "<u8"),
    ("size", 40, "<f8"),
    ("side", 48, "|u1"),
    ("kind", 49, "|u1"),
    ("cond", 50, "|S4"),
    ("unused", 54, "|V2"),
    ("n", 56, "<u4"),
    ("symbol", 60, "<u2"),
    ("feed", 62, "|u1"),
    ("flags", 63, "|u1"),
]


@pytest.mark.parametrize(("dtype", "layout"), [(QUOTE, QUOTE_LAYOUT), (TRADE, TRADE_LAYOUT)])
def test_every_field_lies_where_the_wire_format_says(dtype, layout):
    assert [(name, dtype.fields[name][1], dtype.fields[name][0].str) for name in dtype.names] == layout
    assert dtype.itemsize == 64
    assert dtype.isalignedstruct is False


def test_any_record_is_64_bytes():
    assert RECORD.itemsize == 64
    assert [dtype.itemsize for dtype in DTYPES] == [64, 64]


def test_channel_numbers_index_names_and_dtypes():
    assert (QUOTES, TRADES) == (0, 1)
    assert CHANNELS == ("quotes", "trades")
    assert DTYPES == (QUOTE, TRADE)


def test_a_quote_is_these_64_bytes():
    quote = np.array([(1, 2, 3, 4, -5, 1.0, -2.0, 6, 7, 8, 9)], QUOTE)
    assert quote.tobytes().hex() == (
        "0100000000000000" "0200000000000000" "0300000000000000" "0400000000000000" "fbffffffffffffff"
        "000000000000f03f" "00000000000000c0" "06000000" "0700" "08" "09"
    )  # fmt: skip


def test_a_trade_is_these_64_bytes():
    trade = np.zeros(1, TRADE)
    trade["ts_event"], trade["ts_recv"], trade["g"], trade["price"], trade["trade_id"] = 1, 2, 3, -5, 4
    trade["size"], trade["side"], trade["kind"], trade["cond"] = -2.0, ord("b"), 2, b"@FTI"
    trade["n"], trade["symbol"], trade["feed"], trade["flags"] = 6, 7, 8, 9
    assert trade.tobytes().hex() == (
        "0100000000000000" "0200000000000000" "0300000000000000" "fbffffffffffffff" "0400000000000000"
        "00000000000000c0" "62" "02" "40465449" "0000" "06000000" "0700" "08" "09"
    )  # fmt: skip


def test_a_batch_of_some_ticks_keeps_their_order():
    order = [0, 1, 1, 0, 0, 1]
    batch = Batch(quotes_numbered(0, 3, 4), trades_numbered(1, 2, 5), np.array(order, np.uint8))
    some = batch.only(np.array([True, False, True]), np.array([False, True, True]))
    assert some.quotes["ts_event"].tolist() == [0, 4]
    assert some.trades["ts_event"].tolist() == [2, 5]
    assert some.channels is not None
    assert some.channels.tolist() == [0, 1, 0, 1]
    unordered = Batch(batch.quotes, batch.trades).only(np.zeros(3, bool), np.ones(3, bool))
    assert (len(unordered.quotes), len(unordered.trades), unordered.channels) == (0, 3, None)


def test_stamps_are_a_view():
    trades = np.zeros(3, TRADE)
    stamps_of(trades)[1] = 7
    assert trades["g"].tolist() == [0, 7, 0]


def quotes_numbered(*numbers):
    quotes = np.zeros(len(numbers), QUOTE)
    quotes["ts_event"] = numbers
    return quotes


def trades_numbered(*numbers):
    trades = np.zeros(len(numbers), TRADE)
    trades["ts_event"] = numbers
    return trades


def test_an_empty_batch_has_no_ticks():
    batch = Batch()
    assert len(batch) == 0
    assert batch.quotes.dtype == NO_QUOTES.dtype == QUOTE
    assert batch.trades.dtype == NO_TRADES.dtype == TRADE


def test_length_counts_both_channels():
    assert len(Batch(quotes_numbered(1, 2), trades_numbered(3))) == 3


@pytest.mark.parametrize(
    ("quotes", "trades"),
    [(np.zeros(1, TRADE), NO_TRADES), (NO_QUOTES, np.zeros(1, QUOTE)), (np.zeros(1, "V64"), NO_TRADES)],
)
def test_batch_refuses_records_of_the_wrong_kind(quotes, trades):
    with pytest.raises(ValueError, match="QUOTE and TRADE"):
        Batch(quotes, trades)


@pytest.mark.parametrize("channels", [[], [0], [0, 0, 0], [0, 0, 1, 1], [1, 1, 0], [0, 0, 2]])
def test_batch_refuses_channels_that_do_not_name_each_tick_once(channels):
    with pytest.raises(ValueError, match="does not match the ticks"):
        Batch(quotes_numbered(1, 2), trades_numbered(3), np.array(channels, np.uint8))


def test_cut_gives_every_stretch_of_the_sequence():
    order = [0, 1, 1, 0, 0, 1]
    batch = Batch(quotes_numbered(0, 3, 4), trades_numbered(1, 2, 5), np.array(order, np.uint8))
    for start in range(7):
        for end in range(start, 7):
            part = batch.cut(start, end)
            assert part.quotes["ts_event"].tolist() == [i for i in range(start, end) if order[i] == QUOTES]
            assert part.trades["ts_event"].tolist() == [i for i in range(start, end) if order[i] == TRADES]
            assert part.channels is not None
            assert part.channels.tolist() == order[start:end]


def test_cut_copies_nothing():
    batch = Batch(quotes_numbered(0, 2), trades_numbered(1), np.array([0, 1, 0], np.uint8))
    part = batch.cut(1, 3)
    part.quotes["ts_event"] = 9
    assert batch.quotes["ts_event"].tolist() == [0, 9]


def test_cut_needs_an_order():
    with pytest.raises(ValueError, match="without channels"):
        Batch(quotes_numbered(1)).cut(0, 1)
