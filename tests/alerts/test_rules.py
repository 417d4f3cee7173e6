"""Rules agree with a slow evaluator in plain Python, however the ticks are cut into batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.alerts.rules import SLICE
from tests.support.alert_ticks import FEEDS, S, evaluated, expected, plain, random_ticks, ruleset

TABLES: dict[str, list[dict[str, Any]]] = {
    "spread": [
        {"bps": 20.0},
        {"bps": 50.0, "clear_at": 15.0, "min_duration_s": 0.01},
        {"absolute": 0.1},
        {"absolute": 0.2, "clear_at": 0.1},
    ],
    "crossed": [{}, {"min_duration_s": 0.001}],
    "locked": [{}, {"min_duration_s": 0.0001}],
    "price_band": [
        {"low": 99.0, "high": 101.0, "clear_at": 0.25},
        {"high": 105.0, "of": "trade"},
        {"low": 95.0},
        {"percent": 5.0},
        {"percent": 3.0, "of": "trade", "clear_at": 1.0},
    ],
    "move": [
        {"percent": 2.0, "window_s": 0.1},
        {"percent": 10.0, "window_s": 1.0, "of": "trade", "clear_at": 5.0},
    ],
    "off_market": [{"percent": 1.0}, {"percent": 5.0, "clear_at": 0.5}],
    "luld": [{"percent": 5}, {"percent": 10, "clear_at": 2.0}],
    "size_spike": [
        {"factor": 4.0, "half_life_s": 0.1},
        {"factor": 20.0, "half_life_s": 5.0, "clear_at": 2.0},
    ],
    "anomaly": [
        {"field": "size", "z": 2.0, "half_life_s": 0.1},
        {"field": "spread", "z": 1.5, "half_life_s": 0.2, "clear_at": 1.0},
        {"field": "return", "z": 3.0, "half_life_s": 1.0},
    ],
    "rate": [
        {"above": 200.0, "window_s": 0.1},
        {"below": 50.0, "window_s": 0.1, "clear_at": 80.0},
        {"above": 100.0, "window_s": 0.5, "clear_at": 90.0},
    ],
    "stale": [{"after_s": 0.02}, {"after_s": 0.001}, {"after_s": 0.005}],
    "feed_down": [{"after_s": 0.01}, {"after_s": 0.0}],
}


@st.composite
def rule(draw, kinds):
    """Draw the table of one rule, without name."""
    kind = draw(st.sampled_from(kinds))
    return {
        "type": kind,
        **draw(st.sampled_from(TABLES[kind])),
        "cooldown_s": draw(st.sampled_from([0.0, 0.0, 0.001, 0.1])),
        "symbols": draw(st.sampled_from(["*", "*", "BTC*", ["AAA", "ZZZ"]])) if kind != "feed_down" else "*",
    }


@st.composite
def rules(draw, kinds=tuple(TABLES)):
    """Draw one to six rules, some of which inhibit others."""
    tables = draw(st.lists(rule(kinds), min_size=1, max_size=6))
    for number, table in enumerate(tables):
        table["name"] = f"rule-{number}"
        others = [f"rule-{other}" for other in range(len(tables)) if other != number]
        if others and draw(st.booleans()):
            table["inhibited_by"] = [draw(st.sampled_from(others))]
    return tables


counts = st.sampled_from([1, 20, 200, 400])
cuts = st.lists(st.integers(1, 400), max_size=12)
changes = st.lists(
    st.tuples(
        st.integers(1, 400), st.dictionaries(st.sampled_from(sorted(FEEDS)), st.booleans(), min_size=2)
    ),
    max_size=4,
)


@given(st.integers(0, 2**32), counts, rules(), cuts, changes, st.sampled_from([1, 2, 7, SLICE]))
def test_rules_find_what_the_oracle_finds(seed, count, tables, cut, feeds, slice_size):
    drawn = random_ticks(seed, count)
    feeds = [(at, live) for at, live in feeds if at <= count]
    evaluator = ruleset(tables, slice_size=slice_size)
    found, clock_ns = evaluated(
        evaluator, drawn, [c for c in cut if c < count], np.random.default_rng(seed), feeds
    )
    end_ns = clock_ns + S
    found += plain(evaluator.tick(end_ns))
    assert found == expected(tables, drawn, end_ns, feeds=feeds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
@given(st.data(), st.integers(0, 2**32), cuts)
def test_each_type_agrees_with_the_oracle(kind, data, seed, cut):
    table = {**data.draw(rule((kind,))), "name": "only"}
    drawn = random_ticks(seed, 400)
    feeds = [(100, {0: False, 1: True}), (300, {0: True, 1: True})]
    evaluator = ruleset([table])
    found, clock_ns = evaluated(evaluator, drawn, [c for c in cut if c < 400], None, feeds)
    found += plain(evaluator.tick(clock_ns + S))
    assert found == expected([table], drawn, clock_ns + S, feeds=feeds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
def test_each_type_fires_in_the_random_ticks(kind):
    for number, table in enumerate(TABLES[kind]):
        fired = set()
        for seed in range(20):
            found, _ = evaluated(
                ruleset([{"type": kind, **table}]),
                random_ticks(seed, 400),
                [],
                None,
                [(200, {0: False, 1: True}), (300, {0: True, 1: True})],
            )
            fired |= {alert.state for alert, _ in found}
            if fired == {"raised", "cleared"}:
                break
        assert fired == {"raised", "cleared"}, number
