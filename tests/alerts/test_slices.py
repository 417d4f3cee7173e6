"""However many symbols are raised at once, work comes in slices, and alerts do not depend on their size."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from marketfeed import clock
from marketfeed.alerts.alert import alert_id
from marketfeed.alerts.log import matches
from marketfeed.alerts.patterns import Patterns
from marketfeed.alerts.rules import SLICE, RuleSet, rule_specs
from marketfeed.alerts.rules.deadlines import SPARE, Deadlines
from marketfeed.alerts.rules.episodes import Episodes
from marketfeed.alerts.watcher import STEP_TICKS
from marketfeed.core.records import NO_TRADES, QUOTE
from tests.alerts.test_watcher import START_NS, Bench
from tests.support.alert_ticks import S

COUNT = 700
NAMES = [f"S{number:04d}" for number in range(COUNT)]


def quotes(at_ns, ask=101):
    found = np.zeros(COUNT, QUOTE)
    found["symbol"], found["g"] = np.arange(COUNT), 1 + np.arange(COUNT)
    found["ts_recv"] = at_ns
    found["bid_px"], found["ask_px"], found["bid_sz"], found["ask_sz"] = 100 * S, ask * S, 1, 1
    return found


def made(table, ask, slice_size):
    """Return a rule set that has seen a quote of each symbol, and the slices that come of it and of time."""
    rules = RuleSet(rule_specs([table]), COUNT, slice_size=slice_size)
    rules.learn(NAMES)
    yield from rules.evaluate_in_slices(quotes(START_NS, ask), NO_TRADES)
    yield from rules.tick_in_slices(START_NS + 5 * S)
    again = quotes(START_NS + 6 * S, 101)
    again["g"] += COUNT
    yield from rules.evaluate_in_slices(again, NO_TRADES)
    yield from rules.tick_in_slices(START_NS + 6 * S)


ALL_AT_ONCE = {
    "stale": ({"type": "stale", "after_s": 3.0}, 101, 2),
    "crossed": ({"type": "crossed"}, 99, 2),
    "crossed for a while": ({"type": "crossed", "min_duration_s": 1.0}, 99, 2),
    "spread": ({"type": "spread", "absolute": 5.0}, 120, 2),
    "rate": ({"type": "rate", "below": 0.9, "window_s": 3.2}, 101, 1),
}


@pytest.mark.parametrize("case", ALL_AT_ONCE)
def test_each_slice_has_a_bounded_number_of_measurements_and_alerts(case, monkeypatch):
    table, ask, states = ALL_AT_ONCE[case]
    work: Counter[str] = Counter()
    step, alert = Episodes._step, Episodes.alert

    def counted_step(self, *args):
        work["measurements"] += 1
        return step(self, *args)

    def counted_alert(self, found):
        work["alerts"] += 1
        return alert(self, found)

    monkeypatch.setattr(Episodes, "_step", counted_step)
    monkeypatch.setattr(Episodes, "alert", counted_alert)
    found = []
    for part in made(table, ask, SLICE):
        found += part
        assert work.total() <= SLICE
        work.clear()
    raised = [one for one, _ in found if one.state == "raised"]
    assert sorted(one.symbol for one in raised) == NAMES
    assert len(found) == states * COUNT
    assert all(one.id == one.key == alert_id(one.rule, one.symbol, "raised", 0, one.r_ns) for one in raised)


@pytest.mark.parametrize("case", ALL_AT_ONCE)
def test_alerts_do_not_depend_on_the_size_of_slices(case):
    table, ask, _ = ALL_AT_ONCE[case]
    whole = [one for part in made(table, ask, 10 * COUNT) for one in part]
    assert [one for part in made(table, ask, 97) for one in part] == whole


def test_a_rule_that_looks_at_its_state_sees_all_measurements():
    rules = RuleSet(rule_specs([{"type": "crossed"}]), COUNT, slice_size=1)
    rules.learn(NAMES)
    (crossed, *_) = rules._members
    slices = rules.evaluate_in_slices(quotes(START_NS, 99)[:4], NO_TRADES)
    next(slices)
    assert crossed.episodes.active == 4
    assert len([one for part in slices for one in part]) == 4


async def crowded():
    """Return a bench whose rule finds each of COUNT symbols silent after three seconds, with their ticks."""
    bench = Bench({"type": "stale", "after_s": 3.0}, max_symbols=COUNT)
    bench.publish(*[(name, 10) for name in NAMES])
    return bench


async def test_other_tasks_run_between_slices(mock_clock, monkeypatch):
    monkeypatch.setattr(clock, "TURN_NS", 0)
    bench = await crowded()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.01)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.watcher.ticks == COUNT
        mock_clock.jump(4)
        grown, before = [], 0
        while before < COUNT:
            await trio.lowlevel.checkpoint()
            count = bench.watcher.held + len(bench.log.alerts)
            grown.append(count - before)
            before = count
        # Within one turn of this task, the watcher has two at most.
        assert max(grown) <= 2 * SLICE
        await trio.testing.wait_all_tasks_blocked()
        assert [alert.symbol for alert in bench.log.alerts] == NAMES
        nursery.cancel_scope.cancel()


async def test_what_takes_no_time_takes_no_turns(mock_clock, monkeypatch):
    """A turn of a busy event loop takes 10 ms: one per rule and step, and the watcher would fall behind."""
    monkeypatch.setattr(clock, "TURN_NS", 3600 * S)
    tables = [{"name": f"r{number}", "type": "rate", "above": 1e6, "window_s": 0.1} for number in range(8)]
    bench = Bench(*tables, max_symbols=COUNT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        await trio.testing.wait_all_tasks_blocked()
        bench.publish(*[(name, 10) for name in NAMES])
        await trio.testing.wait_all_tasks_blocked()
        assert bench.watcher.ticks == 0
        mock_clock.jump(0.01)  # for which the watcher lets ticks collect
        turns = 0
        while bench.watcher.position < COUNT and turns < 100:
            await trio.lowlevel.checkpoint()
            turns += 1
        assert bench.watcher.ticks == COUNT
        # All tasks of a batch run in random order: one turn to wake it up, and one per step.
        assert turns <= 2 + -(-COUNT // STEP_TICKS)
        nursery.cancel_scope.cancel()


async def test_alerts_that_are_being_made_at_the_end_are_logged(mock_clock, monkeypatch):
    monkeypatch.setattr(clock, "TURN_NS", 0)
    bench = await crowded()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.01)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(4)
        while not bench.watcher.held:
            await trio.lowlevel.checkpoint()
        assert bench.watcher.held < COUNT
        nursery.cancel_scope.cancel()
    assert [alert.symbol for alert in bench.log.alerts] == NAMES
    assert len({alert.id for alert in bench.log.alerts}) == COUNT


@given(st.lists(st.sampled_from(["A", "AB", "B", "A*", "AB*", "*", "ABC*"])), st.text("ABC", max_size=4))
def test_many_patterns_match_what_one_after_the_other_does(patterns, name):
    assert Patterns(patterns).match(name) == matches(patterns, name)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.booleans()), max_size=60))
def test_the_earliest_deadline_is_that_of_all(changes):
    deadlines = Deadlines()
    model: dict[int, int] = {}
    for number, due_ns, remove in changes:
        if number in model:
            assert deadlines[number] == model.pop(number)
            del deadlines[number]
        if not remove:
            deadlines[number] = model[number] = due_ns
        earliest = min(model.values(), default=None)
        assert deadlines.next_ns == earliest
        due = deadlines.due(10)
        assert (due is None) == (earliest is None or earliest > 10)
        assert due is None or model[due] == earliest


def test_removed_deadlines_do_not_pile_up():
    deadlines = Deadlines()
    deadlines[0] = 1
    for due_ns in range(2, 3 * SPARE):
        deadlines[1] = due_ns
        del deadlines[1]
    assert len(deadlines._heap) <= SPARE + 4
    assert deadlines.next_ns == 1
