"""Rule tables: every mistake at once, one line each, with the rule, the key and what is allowed."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint, entry_points

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.alerts.rules import RuleSet, read_specs, registry, rule_specs, unmatched
from marketfeed.errors import ConfigError

TYPES = {
    "anomaly", "crossed", "feed_down", "locked", "luld", "move",
    "off_market", "price_band", "rate", "size_spike", "spread", "stale",
}  # fmt: skip


def mistakes(*tables):
    with pytest.raises(ConfigError) as caught:
        rule_specs(tables)
    return list(caught.value.mistakes)


def mistake(table):
    (line,) = mistakes(table)
    return line


def test_the_built_in_types_are_registered():
    assert {point.name for point in entry_points(group="marketfeed.rules")} >= TYPES


def test_a_rule_has_defaults():
    (spec,) = rule_specs([{"type": "spread", "bps": 50}])
    common = spec.common
    assert (common.name, common.severity, common.symbols) == ("spread", "warning", "*")
    assert (common.cooldown_s, common.inhibited_by, spec.where) == (0.0, [], "alerts.rules.0")


def test_integers_are_numbers():
    rules = RuleSet(rule_specs([{"type": "move", "percent": 5, "window_s": 60, "cooldown_s": 1}]), 4)
    assert rules.next_ns is None


def test_an_unknown_type_is_refused_with_a_suggestion():
    line = mistake({"type": "spraed", "bps": 1.0})
    assert line.startswith(
        'alerts.rules.0.type: unknown rule type "spraed"; did you mean spread? one of anomaly,'
    )
    assert mistake({"name": "a"}).startswith("alerts.rules.0.type: missing; one of anomaly, crossed,")


def test_an_unknown_key_is_refused_with_a_suggestion():
    line = mistake({"type": "spread", "bps": 1.0, "cooldwon_s": 1})
    assert line.startswith("alerts.rules.0.cooldwon_s: unknown key; did you mean cooldown_s? allowed: name,")


def test_all_mistakes_are_found_at_once():
    found = mistakes(
        {"type": "spread", "bps": -1, "severity": "loud", "clear": 1},
        {"type": "move", "name": "jump", "percent": 1},
        {"type": "move", "name": "jump", "percent": 1, "window_s": 1e9, "symbols": ["A B"]},
        {"type": "nope"},
    )
    assert [line.partition(": ")[0] for line in found] == [
        "alerts.rules.0.severity",
        "alerts.rules.0.bps",
        "alerts.rules.0.clear",
        "alerts.rules.1.window_s",
        "alerts.rules.2.window_s",
        "alerts.rules.2.symbols.0",
        "alerts.rules.2.name",
        "alerts.rules.3.type",
    ]


def test_rules_without_mistakes_are_kept_beside_those_with():
    specs, found = read_specs([{"type": "crossed"}, {"type": "spread"}])
    assert [spec.common.name for spec in specs] == ["crossed"]
    assert found == ["alerts.rules.1.bps: give either bps or absolute"]


def test_the_table_is_left_as_it_was():
    table = {"type": "spread", "bps": 1.0, "symbols": ["A"]}
    rule_specs([table])
    assert table == {"type": "spread", "bps": 1.0, "symbols": ["A"]}


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"type": "spread", "bps": 1.0, "absolute": 1.0}, "bps: give either bps or absolute"),
        (
            {"type": "spread", "bps": 1.0, "clear_at": 2.0},
            "clear_at: must be at most the threshold (1), not 2",
        ),
        (
            {"type": "move", "percent": 1, "window_s": 90_000},
            "window_s: must be a number from 0.1 to 86400, not 90000",
        ),
        (
            {"type": "price_band"},
            "percent: give either low and high (one of them or both), or percent",
        ),
        (
            {"type": "price_band", "low": 1.0, "reference": "x.csv"},
            "reference: belongs to percent, and this rule has low or high",
        ),
        ({"type": "price_band", "low": 2.0, "high": 1.0}, "high: must be at least low (2), not 1"),
        (
            {"type": "price_band", "low": 1.0, "high": 2.0, "clear_at": 0.75},
            "clear_at: must be at most half of high - low, not 0.75",
        ),
        ({"type": "rate", "window_s": 1.0}, "above: give either above or below"),
        (
            {"type": "rate", "window_s": 1.0, "below": 5.0, "clear_at": 4.0},
            "clear_at: must be at least the threshold (5), not 4",
        ),
        (
            {"type": "rate", "window_s": 1.0, "above": 5.0, "clear_at": 6.0},
            "clear_at: must be at most the threshold (5), not 6",
        ),
        ({"type": "crossed", "symbols": []}, "symbols: must have at least one name or pattern"),
        (
            {"type": "crossed", "symbols": "A*B"},
            'symbols: must be a symbol, a prefix with * at its end, or *, not "A*B"',
        ),
        ({"type": "crossed", "name": "watcher"}, 'name: "watcher" is reserved'),
        ({"type": "crossed", "name": "escalation"}, 'name: "escalation" is reserved'),
        (
            {"type": "crossed", "inhibited_by": ["feed_down"]},
            'inhibited_by.0: must be the name of another rule, not "feed_down"; one of (there are none)',
        ),
        (
            {"type": "crossed", "inhibited_by": ["crossed"]},
            'inhibited_by.0: must be the name of another rule, not "crossed"; one of (there are none)',
        ),
    ],
)
def test_a_mistake_names_rule_and_key(table, line):
    assert mistake(table) == f"alerts.rules.0.{line}"


def test_inhibitors_are_rules_by_name():
    tables = [{"type": "feed_down", "after_s": 1.0}, {"type": "stale", "after_s": 1.0}]
    tables[1]["inhibited_by"] = ["feed_down"]
    assert len(rule_specs(tables)) == 2
    tables[1]["inhibited_by"] = ["feed_dwon"]
    (line,) = mistakes(*tables)
    assert line.endswith('not "feed_dwon"; did you mean feed_down? one of feed_down')


def test_there_is_a_limit_to_rules():
    assert mistakes(*[{"type": "crossed", "name": f"r{n}"} for n in range(257)]) == [
        "alerts.rules: at most 256, not 257"
    ]


def test_a_pattern_that_matches_nothing_yet_is_a_warning():
    specs = rule_specs(
        [
            {"type": "crossed", "symbols": ["BTC*", "DOGE*", "AAPL"]},
            {"type": "locked"},
            {"type": "feed_down", "after_s": 1.0, "symbols": "demo"},
        ]
    )
    assert unmatched(specs, ["AAPL", "BTC-USD"]) == [
        'alerts.rules.0.symbols: "DOGE*" matches no symbol yet (rule "crossed")'
    ]


class NoStruct:
    Config = dict


class OtherRule:
    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        level: float

    def __init__(self, config, episodes):
        self.config = config

    def evaluate(self, ticks):
        pass


def test_third_party_types_are_found_like_any_other(monkeypatch):
    points = [
        EntryPoint("other", f"{__name__}:OtherRule", registry.GROUP),
        EntryPoint("missing", "no.such.module:Rule", registry.GROUP),
        EntryPoint("odd", f"{__name__}:NoStruct", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(
        EntryPoint, "load", lambda self: globals()[self.attr] if self.module == __name__ else 1 / 0
    )
    (spec,) = rule_specs([{"type": "other", "level": 2}])
    assert spec.settings == OtherRule.Config(level=2)
    assert RuleSet([spec], 4).tick(1) == []
    assert "cannot be loaded: ZeroDivisionError" in mistake({"type": "missing"})
    assert mistake({"type": "odd"}).endswith("has a Config that is not a msgspec.Struct")


@pytest.mark.parametrize(
    "table",
    [
        {"type": "spread", "bps": 1.0},
        {"type": "price_band", "low": 1.0, "high": 2.0, "clear_at": 0.0},
        {"type": "move", "percent": 1.0, "window_s": 1.0, "clear_at": 0.5, "cooldown_s": 1.0},
        {"type": "rate", "below": 1.0, "window_s": 1.0, "clear_at": 2.0},
        {"type": "size_spike", "factor": 2.0, "half_life_s": 1.0},
        {"type": "anomaly", "field": "size", "z": 2.0, "half_life_s": 1.0},
        {"type": "stale", "after_s": 1.0},
        {"type": "crossed", "min_duration_s": 1.0},
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_have_to_be_finite(table, value):
    for key in [key for key, number in table.items() if isinstance(number, float)]:
        assert mistake({**table, key: value}).startswith(f"alerts.rules.0.{key}: ")


plain_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
values = st.recursive(
    plain_values | st.sampled_from(sorted(TYPES)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
KEYS = """
    name symbols severity cooldown_s inhibited_by bps absolute clear_at low high percent reference of window_s
    factor half_life_s field z above below after_s min_duration_s other
"""
keys = st.sampled_from(KEYS.split())


@given(
    st.lists(st.tuples(st.sampled_from(sorted(TYPES)), st.dictionaries(keys, values, max_size=5)), max_size=3)
)
def test_any_table_is_a_rule_or_has_mistakes_of_one_line(drawn):
    tables = [{"type": kind, **table} for kind, table in drawn]
    specs, found = read_specs(tables)
    assert all(line.startswith("alerts.rules.") and line.isprintable() for line in found)
    if not found:
        assert len(specs) == len(tables)
    wrong = {int(line.split(".")[2].partition(":")[0]) for line in found}
    assert {int(spec.where.rpartition(".")[2]) for spec in specs} == set(range(len(tables))) - wrong
