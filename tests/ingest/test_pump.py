"""Validation, stamps and counters of the pump."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.records import FLAG_CROSSED, QUOTE, QUOTES, TRADE, TRADES, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import ConfigError
from marketfeed.ingest.plain import MAX_EVENT_NS, MAX_RECEIPT_AGE_NS, MAX_RECEIPT_AHEAD_NS
from marketfeed.ingest.pump import MAX_FEEDS, Pump

NOW_NS = 1_725_000_000_000_000_000
NAN, INF = float("nan"), float("inf")


class Bench:
    """A pump over small rings, with a fixed clock and a counting doorbell."""

    def __init__(self, max_symbols: int = 4) -> None:
        self.rings = Rings.private(max_symbols, 64)
        self.symbols = SymbolTable(max_symbols)
        self.bells = 0
        self.pump = Pump(RingWriter(self.rings), self.symbols, self.ring, lambda: NOW_NS)

    def ring(self) -> None:
        self.bells += 1

    def intake(self, tmp_path, name="f"):
        with structlog.testing.capture_logs():
            return self.pump.intake(name, tmp_path)

    def written(self, channel: int):
        """Return all ticks of a channel in order of ``g``."""
        symbols = np.arange(self.rings.max_symbols)
        upto = self.rings.published(channel)
        head = self.rings.head()
        ticks = self.rings.read(channel, symbols, np.zeros_like(upto), upto, head)
        return ticks.records[np.argsort(ticks.records["g"])]


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def intake(bench, tmp_path):
    intake = bench.intake(tmp_path)
    intake.symbol("A")
    intake.symbol("B")
    return intake


def quotes(*rows, symbol=0):
    """Return quotes of ``(bid, bid size, ask, ask size)``."""
    made = np.zeros(len(rows), QUOTE)
    for record, (bid, bid_size, ask, ask_size) in zip(made, rows, strict=True):
        record["bid_px"], record["bid_sz"], record["ask_px"], record["ask_sz"] = bid, bid_size, ask, ask_size
    made["symbol"] = symbol
    return made


def trades(*sizes, symbol=0):
    made = np.zeros(len(sizes), TRADE)
    made["price"], made["size"], made["symbol"] = 5, sizes, symbol
    return made


GOOD = (10, 1.0, 11, 1.0)


def test_records_are_stamped_with_feed_and_time_of_receipt(bench, tmp_path):
    bench.intake(tmp_path, "first")
    second = bench.intake(tmp_path, "second")
    second.symbol("A")
    batch = Batch(quotes(GOOD, GOOD), trades(1.0))
    batch.quotes["ts_recv"][1] = NOW_NS - 77  # the feed's own time
    batch.quotes["flags"] = 255
    batch.trades["feed"] = 9
    second.publish(batch)
    written = bench.written(QUOTES)
    assert written["ts_recv"].tolist() == [NOW_NS, NOW_NS - 77]
    assert written["flags"].tolist() == [0, 0]
    assert written["feed"].tolist() == [1, 1]
    assert bench.written(TRADES)["ts_recv"].tolist() == [NOW_NS]
    assert bench.written(TRADES)["feed"].tolist() == [1]
    assert second.ticks == [2, 1]
    assert second.last_tick_ns == NOW_NS
    assert [intake.ticks for intake in bench.pump.feeds] == [[0, 0], [2, 1]]


def test_the_doorbell_rings_once_a_batch_and_not_for_nothing(bench, intake):
    intake.publish(Batch())
    assert bench.bells == 0
    assert intake.last_tick_ns == 0
    intake.publish(Batch(quotes(GOOD, GOOD), trades(1.0)))
    assert bench.bells == 1
    intake.publish(Batch(quotes((10, -1.0, 11, 1.0))))
    assert bench.bells == 1


def test_crossed_and_locked_quotes_are_flagged_only_with_both_sides(bench, intake):
    intake.publish(
        Batch(quotes(GOOD, (11, 1.0, 11, 1.0), (12, 1.0, 11, 1.0), (12, 0.0, 11, 1.0), (12, 1.0, 0, 0.0)))
    )
    assert bench.written(QUOTES)["flags"].tolist() == [0, FLAG_CROSSED, FLAG_CROSSED, 0, 0]


def test_conditions_are_kept_and_invalid_ones_taken_out_and_counted(bench, intake):
    batch = Batch(trades=trades(1.0, 2.0, 3.0))
    batch.trades["cond"] = [b"@", b'F"T\n', b""]
    batch.trades["unused"] = b"\1\2"
    intake.publish(batch)
    written = bench.written(TRADES)
    assert written["cond"].tolist() == [b"@", b"F\0T", b""]
    assert set(written["unused"].tolist()) == {b"\0\0"}
    assert intake.events == {"condition_invalid": 1}


def test_cancels_and_corrections_are_left_out_and_counted(bench, intake):
    """Subscribers would mistake them for trades."""
    order = np.array([TRADES, QUOTES, TRADES, TRADES, QUOTES], np.uint8)
    batch = Batch(quotes(GOOD, GOOD), trades(1.0, 2.0, 3.0), order)
    batch.trades["kind"] = [1, 0, 2]
    intake.publish(batch)
    assert bench.written(TRADES)["size"].tolist() == [2.0]
    assert bench.written(TRADES)["g"].tolist() == [2]
    assert len(bench.written(QUOTES)) == 2
    assert intake.ticks == [2, 1]
    assert intake.events == {"not_a_trade": 2}


def test_a_batch_of_cancels_alone_publishes_nothing(bench, intake):
    batch = Batch(trades=trades(1.0))
    batch.trades["kind"] = 1
    intake.publish(batch)
    assert (bench.rings.head(), bench.bells) == (0, 0)


@pytest.mark.parametrize("size", [NAN, -NAN, INF, -INF, -1.0, -1e-300])
def test_impossible_sizes_are_screened_on_every_column(bench, intake, size):
    intake.publish(Batch(quotes(GOOD, (10, size, 11, 1.0), (10, 1.0, 11, size), GOOD), trades(size, 2.0)))
    assert len(bench.written(QUOTES)) == 2
    assert bench.written(TRADES)["size"].tolist() == [2.0]
    assert intake.events == {"screened": 3}
    assert intake.ticks == [2, 1]


def test_a_missing_side_and_negative_zero_are_no_fault(bench, intake):
    intake.publish(Batch(quotes((0, 0.0, 11, 1.0), (10, 1.0, 0, -0.0), (0, 0.0, 0, 0.0))))
    assert intake.ticks == [3, 0]
    assert not intake.events


def test_a_missing_side_is_written_in_one_way_whatever_the_feed_sent(bench, intake):
    intake.publish(Batch(quotes((9, -0.0, 11, 1.0), (10, 1.0, -3, 0.0), (7, -0.0, 8, -0.0)), trades(-0.0)))
    written = bench.written(QUOTES)
    assert written[["bid_px", "ask_px"]].tolist() == [(0, 11), (10, 0), (0, 0)]
    for sizes in (written["bid_sz"], written["ask_sz"], bench.written(TRADES)["size"]):
        assert not np.signbit(sizes).any()
    assert written["flags"].tolist() == [0, 0, 0]


def test_negative_and_zero_prices_are_prices(bench, intake):
    batch = Batch(quotes((-5, 1.0, 0, 1.0), (0, 1.0, -5, 1.0)), trades(1.0, 1.0))
    batch.trades["price"] = [-37_630_000_000, 0]
    intake.publish(batch)
    assert bench.written(QUOTES)[["bid_px", "ask_px", "flags"]].tolist() == [
        (-5, 0, 0),
        (0, -5, FLAG_CROSSED),
    ]
    assert bench.written(TRADES)["price"].tolist() == [-37_630_000_000, 0]
    assert not intake.events


NS_OF_2262 = 9_214_646_400 * 10**9
RECEIPTS = {
    NOW_NS: NOW_NS, NOW_NS - MAX_RECEIPT_AGE_NS: NOW_NS - MAX_RECEIPT_AGE_NS,
    NOW_NS + MAX_RECEIPT_AHEAD_NS: NOW_NS + MAX_RECEIPT_AHEAD_NS, NOW_NS - MAX_RECEIPT_AGE_NS - 1: NOW_NS,
    NOW_NS + MAX_RECEIPT_AHEAD_NS + 1: NOW_NS, NS_OF_2262: NOW_NS, 2**63 - 1: NOW_NS, -(2**63): NOW_NS,
    -1: NOW_NS, 1: NOW_NS, NOW_NS // 1000: NOW_NS,
}  # fmt: skip


@pytest.mark.parametrize(("sent", "kept"), RECEIPTS.items())
def test_a_time_of_receipt_is_believed_only_near_our_clock(bench, intake, sent, kept):
    batch = Batch(quotes(GOOD, GOOD), trades(1.0))
    batch.quotes["ts_recv"][1] = batch.trades["ts_recv"] = sent
    intake.publish(batch)
    assert bench.written(QUOTES)["ts_recv"].tolist() == [NOW_NS, kept]
    assert bench.written(TRADES)["ts_recv"].tolist() == [kept]
    assert intake.events == ({} if kept == sent else {"receipt_time_replaced": 2})


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(0, 0), (1, 1), (NOW_NS * 2, NOW_NS * 2), (MAX_EVENT_NS, MAX_EVENT_NS), (MAX_EVENT_NS + 1, 0),
     (NS_OF_2262, 0), (2**63 - 1, 0), (-1, 0), (-(2**63), 0)],
)  # fmt: skip
def test_a_venues_time_is_kept_as_sent_unless_no_clock_can_have_said_it(bench, intake, sent, kept):
    batch = Batch(quotes(GOOD), trades(1.0))
    batch.quotes["ts_event"] = batch.trades["ts_event"] = sent
    intake.publish(batch)
    assert bench.written(QUOTES)["ts_event"].tolist() == bench.written(TRADES)["ts_event"].tolist() == [kept]
    assert intake.events == ({} if kept == sent else {"event_time_impossible": 2})


def test_unknown_symbols_are_screened(bench, intake):
    batch = Batch(quotes(GOOD, GOOD, GOOD), trades(1.0, 2.0))
    batch.quotes["symbol"] = [0, 2, 65535]
    batch.trades["symbol"] = [1, 2]
    intake.publish(batch)
    assert bench.written(QUOTES)["symbol"].tolist() == [0]
    assert bench.written(TRADES)["symbol"].tolist() == [1]
    assert intake.events == {"screened": 3}


@given(st.lists(st.tuples(st.sampled_from([QUOTES, TRADES]), st.booleans()), max_size=30))
def test_screening_keeps_the_order_of_quotes_and_trades(ticks):
    bench = Bench()
    intake = bench.pump.intake("f", Path())
    intake.symbol("A")
    parts: tuple[list[tuple[int, float]], list[tuple[int, float]]] = ([], [])
    for number, (channel, good) in enumerate(ticks, 1):
        parts[channel].append((number, 1.0 if good else NAN))
    batch = Batch(
        quotes(*((number, size, number, 1.0) for number, size in parts[QUOTES])),
        trades(*(size for _, size in parts[TRADES])),
        np.array([channel for channel, _ in ticks], np.uint8),
    )
    batch.trades["trade_id"] = [number for number, _ in parts[TRADES]]
    intake.publish(batch)
    order = {int(q["g"]): (QUOTES, int(q["bid_px"])) for q in bench.written(QUOTES)}
    order |= {int(t["g"]): (TRADES, int(t["trade_id"])) for t in bench.written(TRADES)}
    kept = [(channel, number) for number, (channel, good) in enumerate(ticks, 1) if good]
    assert [order[g] for g in sorted(order)] == kept
    assert sorted(order) == list(range(1, len(kept) + 1))
    assert intake.events["screened"] == len(ticks) - len(kept)


def test_symbols_are_shared_between_feeds(bench, tmp_path):
    first, second = bench.intake(tmp_path, "first"), bench.intake(tmp_path, "second")
    assert [first.symbol("A"), second.symbol("B"), second.symbol("A"), first.symbol("B")] == [0, 1, 0, 1]


def test_the_number_of_a_removed_feed_is_the_last_to_be_used_again(bench, tmp_path):
    first, second = bench.intake(tmp_path, "first"), bench.intake(tmp_path, "second")
    bench.pump.dismiss(first)
    later = [bench.intake(tmp_path, f"f{n}") for n in range(MAX_FEEDS - 1)]
    assert [one.number for one in later] == [*range(2, MAX_FEEDS), first.number]
    assert second.number == 1
    with pytest.raises(ConfigError, match="at most 255"):
        bench.intake(tmp_path, "one too many")


def test_a_full_symbol_table_gives_none_and_is_logged_once(tmp_path):
    bench = Bench(max_symbols=1)
    with structlog.testing.capture_logs() as logged:
        intake = bench.pump.intake("f", tmp_path)
        assert [intake.symbol(name) for name in ("A", "B", "C", "A")] == [0, None, None, 0]
    assert intake.events == {"symbols_full": 2}
    (line,) = logged
    assert line["log_level"] == "error"
    assert line["feed"] == "f"
    assert "engine.max_symbols" in line["reason"]


def test_what_is_no_symbol_gives_none_and_is_logged_once(bench, tmp_path):
    with structlog.testing.capture_logs() as logged:
        intake = bench.pump.intake("f", tmp_path)
        assert [intake.symbol(name) for name in ("", "A B", "é", "x" * 25)] == [None] * 4
    assert intake.events == {"invalid_symbol": 4}
    assert len(logged) == 1


def test_events_are_counted(intake):
    intake.count("broken_line")
    intake.count("broken_line", 4)
    assert intake.events == {"broken_line": 5}
