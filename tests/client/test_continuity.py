"""Numbers of ticks: one rule, for messages and for arrays."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.client.continuity import NamedNumbers, RecordNumbers, verdict
from marketfeed.client.messages import Gap, Quote
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTE, QUOTES

TOP = 2**32 - 1
SYMBOLS = ("A", "B")


@pytest.mark.parametrize(
    ("last", "n", "kept", "lost"),
    [
        (None, 1, True, 0),
        (None, 5, True, 4),
        (4, 5, True, 0),
        (4, 8, True, 3),
        (4, 4, False, 0),
        (4, 3, False, 0),
        (TOP, 0, True, 0),  # numbers are modulo 2^32
        (TOP, 2, True, 2),
        (0, TOP, False, 0),
    ],
)
def test_the_next_number_continues_a_higher_one_is_a_hole_and_others_are_dropped(last, n, kept, lost):
    assert verdict(last, n, snap=False, excused=False, every=True) == (kept, lost)
    assert verdict(last, n, snap=False, excused=True, every=True) == (kept, 0)
    assert verdict(last, n, snap=False, excused=False, every=False) == (kept, 0)


def test_a_snapshot_repeats_the_newest_tick_after_a_reset_only():
    assert verdict(4, 4, snap=True, excused=True, every=True).keep
    assert not verdict(4, 4, snap=True, excused=False, every=True).keep


ticks = st.lists(st.tuples(st.sampled_from(SYMBOLS), st.integers(1, 9), st.booleans()), max_size=8)
steps = st.one_of(
    st.tuples(st.just("ticks"), ticks),
    st.tuples(st.just("gap"), st.tuples(st.sampled_from(SYMBOLS), st.integers(1, 4), st.integers(2, 10))),
    st.tuples(st.just("excuse"), st.sampled_from(["A", "B", "*"])),
    st.tuples(st.just("retain"), st.sampled_from(["A", "B", "*"])),
    st.tuples(st.just("lag"), st.booleans()),
    st.tuples(st.just("every"), st.booleans()),
    st.tuples(st.just("cut"), st.none()),
)


class Both:
    """The same steps for messages and for arrays."""

    def __init__(self):
        self.named, self.records = NamedNumbers(), RecordNumbers()
        self.records.announce({"A": 3, "B": 500})
        self.named.every = self.records.every = True

    def ticks(self, ticks):
        said: list[Any] = []
        told: list[Any] = []
        for symbol, n, snap in ticks:
            more: Any = {"snap": 1} if snap else {}
            quote = Quote(S=symbol, bp=None, bs=0.0, ap=None, as_=0.0, t=0, r=0, n=n, g=1, **more)
            self.named.take(quote, said)
        records = np.zeros(len(ticks), QUOTE)
        records["symbol"] = [self.records.ids[symbol] for symbol, _, _ in ticks]
        records["n"] = [n for _, n, _ in ticks]
        records["flags"] = [FLAG_SNAPSHOT * snap for _, _, snap in ticks]
        kept = self.records.take(QUOTES, records, told)
        numbers = [(self.records.names[row["symbol"]], int(row["n"])) for row in kept]
        assert [(one.S, one.n) for one in said if isinstance(one, Quote)] == numbers
        assert sorted((one.S, one.n, one.lost) for one in said if isinstance(one, Gap)) == sorted(
            (one.S, one.n, one.lost) for one in told
        )

    def gap(self, detail):
        symbol, lost, n = detail
        gap = Gap(S=symbol, channel="quotes", lost=lost, n=n)
        assert self.named.gap(gap) == self.records.gap(gap)

    def excuse(self, name):
        self.named.excuse([name])
        self.records.excuse([name])

    def retain(self, name):
        self.named.retain(QUOTES, [name])
        self.records.retain(QUOTES, [name])

    def lag(self, on):
        self.named.lagging = self.records.lagging = on

    def every(self, every):
        self.named.every = self.records.every = every

    def cut(self, _):
        self.named.cut()
        self.records.cut()


@given(st.lists(steps, max_size=15))
def test_arrays_and_messages_are_judged_alike(script):
    both = Both()
    for action, detail in script:
        getattr(both, action)(detail)
    assert (both.named.duplicates, both.named.lost) == (both.records.duplicates, both.records.lost)


def test_a_gap_that_comes_again_after_a_cut_is_told_once():
    numbers = NamedNumbers()
    numbers.every = True
    numbers.take(Quote(S="A", bp=None, bs=0.0, ap=None, as_=0.0, t=0, r=0, n=1, g=1), [])
    first = Gap(S="A", channel="quotes", lost=2, n=4)
    assert numbers.gap(first) == [first]
    numbers.cut()
    assert numbers.gap(first) == []
    (rest,) = numbers.gap(Gap(S="A", channel="quotes", lost=4, n=6))
    assert (rest.lost, rest.n) == (2, 6)
    both = numbers.gap(Gap(S="A", channel="quotes", lost=1, n=9))
    assert [(one.lost, one.announced) for one in both] == [(1, True), (2, False)]


@pytest.mark.parametrize("kind", [NamedNumbers, RecordNumbers])
def test_a_reset_excuses_symbols_of_which_only_a_gap_has_come(kind):
    numbers = kind()
    numbers.every = True
    gap = Gap(S="A", channel="quotes", lost=1, n=2)
    assert numbers.gap(gap) == [gap]
    assert numbers.gap(gap) == []  # again, after a cut
    numbers.excuse(["A"])
    into: list[Any] = []
    if kind is NamedNumbers:
        tick = {"T": "q", "S": "A", "bp": 1.5, "bs": 1.0, "ap": None, "as": 0.0, "t": 0, "r": 1}
        assert numbers.take(msgspec.convert(tick | {"n": 16, "g": 20}, Quote), into)
        assert len(into) == 1
        return
    numbers.announce({"A": 3})
    records = np.zeros(1, QUOTE)
    records["symbol"], records["n"] = 3, 16
    assert len(numbers.take(QUOTES, records, into)) == 1
    assert into == []
