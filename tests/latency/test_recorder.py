"""Latencies of flushes: every delivery counts once per hop, in the right histogram, for any batching."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.histogram import Histogram
from marketfeed.core.stamps import STAMPS_BYTES, Stamps
from marketfeed.latency.intervals import Tag
from marketfeed.latency.recorder import MAX_PARTS, Flush, FlushedTicks, LatencyRecorder, Marks

SYMBOLS = 8
T = 1_790_000_000_000_000_000


class Shelf:
    """A recorder with the stamps of its batches."""

    def __init__(self, top_symbols=0):
        self.stamps = Stamps(np.zeros(STAMPS_BYTES, np.uint8), np.zeros(1, np.uint64))
        self.recorder = LatencyRecorder(self.stamps, SYMBOLS, top_symbols, worker=3)
        self.tier = self.recorder.tier("vip")
        self.g = 0

    def taken(self, symbols, recv, event=None, published=None, channel=0):
        """Return the ticks of one batch."""
        count = len(symbols)
        gs = np.arange(self.g + 1, self.g + count + 1, dtype=np.uint64)
        self.g += count
        self.stamps.note(self.g, published if published is not None else max(recv))
        event = recv if event is None else event
        return FlushedTicks(
            channel, np.array(symbols), gs, np.array(event, np.int64), np.array(recv, np.int64)
        )

    def rotated(self, names=(), ticks=()):
        found = self.recorder.rotate([*names], np.array([*ticks], np.int64))
        return dict(found)


def members(**by_symbol):
    counts = [np.zeros(SYMBOLS, np.int32), np.zeros(SYMBOLS, np.int32)]
    for key, count in by_symbol.items():
        counts["qt".index(key[0])][int(key[1:])] = count
    return counts


def only(histogram: Histogram) -> list[tuple[int, int]]:
    """Return the values in microseconds with their counts."""
    return [(round(v.value_iterated_to / 1000), v.count_added_in_this_iter_step) for v in histogram.hdr]


def test_each_hop_is_the_time_between_its_two_moments_once_per_session():
    shelf = Shelf()
    taken = shelf.taken([1], [T], event=[T - 5_000_000], published=T + 1_000_000)
    flush = Flush(T + 3_000_000, T + 7_000_000, 2_000_000, [(T + 23_000_000, 4)], 4)
    shelf.tier.flush([taken], members(q1=4), flush)
    found = {tag.hop: (h.total, h.max_ns) for tag, h in shelf.rotated().items() if h.total}
    assert found == {
        "venue": (4, 5_000_000),
        "ring": (4, 1_000_000),
        "wait": (4, 2_000_000),
        "late": (4, 2_000_000),
        "encode": (4, 4_000_000),
        "send": (4, 20_000_000),
        "total": (4, 23_000_000),
    }


def test_a_venue_that_sent_no_time_has_no_venue_latency_and_one_whose_clock_is_ahead_a_negative_one():
    shelf = Shelf()
    taken = shelf.taken([1, 2, 3], [T, T, T], event=[0, T + 1_270_000_000, T - 1_000_000])
    shelf.tier.flush([taken], members(q1=1, q2=1, q3=1), Flush(T, T, -1, [(T, 3)], 3))
    venue = shelf.rotated()[Tag("venue", "vip", "3")]
    assert (venue.total, venue.max_ns) == (1, 1_000_000)
    assert venue.negative is not None
    assert (venue.negative.total, venue.negative.max_ns) == (1, 1_270_000_000)


def test_a_tick_whose_batch_is_forgotten_is_counted_and_has_the_other_hops():
    shelf = Shelf()
    taken = shelf.taken([1], [T])
    forgotten = taken._replace(gs=taken.gs + np.uint64(9))
    shelf.tier.flush([forgotten], members(q1=2), Flush(T, T, -1, [(T + 1000, 2)], 2))
    found = {tag.hop: h.total for tag, h in shelf.rotated().items()}
    assert (found["ring"], found["wait"], found["total"]) == (0, 0, 2)
    assert shelf.recorder.unplaced == {"vip": 2}


def test_a_tick_that_nobody_could_be_sent_is_in_no_hop():
    shelf = Shelf()
    taken = shelf.taken([1, 2], [T, T - 9_000_000])
    shelf.tier.flush([taken], members(q1=3), Flush(T, T, -1, [(T + 1_000_000, 4)], 3))
    assert {h.total for h in shelf.rotated().values() if h.total} == {3}


@given(st.lists(st.tuples(st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=12),
                          st.lists(st.integers(1, 50), min_size=1, max_size=9)), min_size=1, max_size=20),
       st.lists(st.integers(0, 7), min_size=SYMBOLS, max_size=SYMBOLS))  # fmt: skip
def test_all_hops_hold_every_delivery_exactly_once_however_a_flush_is_cut(flushes, counts):
    shelf, expected = Shelf(), 0
    got = members(**{f"q{symbol}": count for symbol, count in enumerate(counts)})
    for symbols, steps in flushes:
        times = sum(counts[symbol] for symbol in symbols)
        if not times:
            continue
        expected += times
        ends = np.cumsum(steps)
        marks = Marks()
        for number, end in enumerate(ends.tolist()):
            marks.deliveries = -(-times * end // int(ends[-1]))
            marks.through(T + 1000 * (number + 1))
        assert len(marks.parts()) <= MAX_PARTS
        shelf.tier.flush(
            [shelf.taken(symbols, [T] * len(symbols))], got, Flush(T, T, 0, marks.parts(), times)
        )
    assert {
        hop: h.total for hop, h in ((tag.hop, h) for tag, h in shelf.rotated().items() if tag.hop != "client")
    } == dict.fromkeys(("venue", "ring", "wait", "late", "encode", "send", "total"), expected)


def test_a_long_flush_counts_ticks_at_the_times_its_sends_were_through_by_their_shares():
    shelf, marks = Shelf(), Marks()
    for number in range(1, 9):
        marks.deliveries += 10
        marks.through(T + number * 1_000_000)
    assert marks.parts() == [
        (T + 2_000_000, 20),
        (T + 4_000_000, 40),
        (T + 6_000_000, 60),
        (T + 8_000_000, 80),
    ]
    uneven = [(T + 2_000_000, 20), (T + 4_000_000, 80)]
    shelf.tier.flush([shelf.taken([1] * 4000, [T] * 4000)], members(q1=3), Flush(T, T, -1, uneven, 12_000))
    found = shelf.rotated()
    send, total = found[Tag("send", "vip", "3")], found[Tag("total", "vip", "3")]
    assert only(send) == [(2001, 3000), (4002, 9000)]
    (_, early), (_, late) = only(total)
    assert early + late == 12_000
    assert early == pytest.approx(3000, abs=30)


@pytest.mark.slow
def test_many_ticks_are_recorded_as_a_few_are():
    rng = np.random.default_rng(0)
    recv = (T + rng.integers(0, 50_000_000, 20_000)).tolist()
    symbols = rng.integers(0, SYMBOLS, 20_000).tolist()
    got = members(**{f"q{s}": s + 1 for s in range(SYMBOLS)})
    whole, pieces = Shelf(), Shelf()
    end = [(T + 60_000_000, 1)]
    whole.tier.flush([whole.taken(symbols, recv)], got, Flush(T + 55_000_000, T, -1, end, 1))
    for start in range(0, 20_000, 7):
        part = slice(start, start + 7)
        taken = pieces.taken(symbols[part], recv[part], published=max(recv))
        pieces.tier.flush([taken], got, Flush(T + 55_000_000, T, -1, end, 1))
    one, many = whole.rotated(), pieces.rotated()
    for hop in ("ring", "wait", "total"):
        tag = Tag(hop, "vip", "3")
        assert np.array_equal(one[tag].counts, many[tag].counts)


def test_the_busiest_symbols_of_the_last_interval_have_histograms_of_their_own():
    shelf = Shelf(top_symbols=2)
    names = [f"S{i}" for i in range(SYMBOLS)]
    got = members(q1=2, q4=1, q5=1)
    end = Flush(T, T, -1, [(T + 1_000_000, 1)], 1)
    shelf.tier.flush([shelf.taken([1, 4, 5], [T] * 3)], got, end)
    assert {tag.symbol for tag in shelf.rotated(names, [0, 9, 0, 0, 5, 1, 0, 0])} == {
        ""
    }  # no symbol followed yet
    shelf.tier.flush([shelf.taken([1, 1, 4, 5], [T] * 4)], got, end)
    found = shelf.rotated(names, [0, 9, 0, 0, 6, 50, 0, 0])
    assert {tag.symbol: h.total for tag, h in found.items() if tag.symbol} == {"S1": 4, "S4": 1}
    assert found[Tag("total", "vip", "3", "S1")].max_ns == pytest.approx(1_000_000, rel=1e-3)
    shelf.tier.flush([shelf.taken([5], [T])], got, end)
    found = shelf.rotated(names, [0, 9, 0, 0, 6, 51, 0, 0])
    assert {tag.symbol: h.total for tag, h in found.items() if tag.symbol} == {"S5": 1, "S4": 0}


def test_an_interval_begins_empty():
    shelf = Shelf()
    shelf.tier.flush([shelf.taken([1], [T])], members(q1=1), Flush(T, T, -1, [(T, 1)], 1))
    assert sum(h.total for h in shelf.rotated().values())
    assert not sum(h.total for h in shelf.rotated().values())


def test_a_flush_without_deliveries_leaves_nothing():
    shelf = Shelf()
    shelf.tier.flush([], members(), Flush(T, T, -1, Marks().parts(), 0))
    assert not sum(h.total for h in shelf.rotated().values())
