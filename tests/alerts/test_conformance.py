"""The conformance suite passes good rule types, and names the check that a bad one fails."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
import pytest

from marketfeed.alerts.rules.bands import PriceBand
from marketfeed.alerts.rules.levels import Crossed, Locked, OffMarket, Spread
from marketfeed.alerts.rules.rates import TickRate
from marketfeed.alerts.rules.silence import FeedDown, Stale
from marketfeed.alerts.rules.statistics import Anomaly, SizeSpike
from marketfeed.alerts.rules.windows import Luld, Move
from marketfeed.core.records import NO_TRADES, QUOTE
from marketfeed.testing import RULE_CHECKS, check_rule


@pytest.mark.parametrize(
    ("rule_type", "settings"),
    [
        (Spread, {"bps": 20.0}),
        (Crossed, {}),
        (Locked, {"min_duration_s": 0.01}),
        (PriceBand, {"percent": 5}),
        (OffMarket, {"percent": 2}),
        (Move, {"percent": 2, "window_s": 1}),
        (Luld, {"percent": 5}),
        (SizeSpike, {"factor": 5, "half_life_s": 1}),
        (Anomaly, {"field": "return", "z": 3, "half_life_s": 1}),
        (TickRate, {"above": 45, "window_s": 1}),
        (Stale, {"after_s": 0.1}),
    ],
)
def test_built_in_types_pass(rule_type, settings):
    assert check_rule(rule_type, settings)


def test_a_rule_that_finds_nothing_passes():
    assert check_rule(FeedDown, {"after_s": 1.0}) == []


class ThickConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: float

    def problems(self):
        if self.size <= 0:
            yield "size", "must be above 0"


class Thick:
    """Quotes of which both sides are large; the broken ones differ in one thing."""

    Config = ThickConfig

    def __init__(self, config, episodes):
        self.config, self.episodes = config, episodes

    def evaluate(self, ticks):
        records = ticks.quotes.records
        sizes = np.minimum(records["bid_sz"], records["ask_sz"])
        self.episodes.above(
            ticks.quotes, self.changed(sizes, records), self.config.size, self.config.size / 2
        )

    def changed(self, sizes, records):
        return sizes


def failing(rule_type, settings=None):
    with pytest.raises(AssertionError) as caught:
        check_rule(rule_type, {"size": 50.0} if settings is None else settings)
    number = int(str(caught.value).split()[1].rstrip(","))
    assert str(caught.value).startswith(f"check {number}, {RULE_CHECKS[number]}: ")
    return number


def test_a_third_partys_rule_passes():
    assert check_rule(Thick, {"size": 50.0})


def test_a_rule_is_checked_with_ticks_of_ones_own():
    quotes = np.zeros(3, QUOTE)
    quotes["g"], quotes["ts_recv"] = [1, 2, 3], 10**18
    quotes["bid_sz"] = quotes["ask_sz"] = [1, 60, 1]
    assert [alert.state for alert in check_rule(Thick, {"size": 50.0}, ticks=(quotes, NO_TRADES))] == [
        "raised",
        "cleared",
    ]


def test_settings_have_to_be_valid():
    assert failing(Thick, {}) == 1
    assert failing(Thick, {"size": -1.0}) == 3


def test_unknown_keys_have_to_be_refused():
    class LaxConfig(msgspec.Struct, frozen=True):
        size: float

    class Lax(Thick):
        Config = LaxConfig  # type: ignore[assignment]

    assert failing(Lax) == 2


def test_a_constructor_must_not_raise():
    class Broken(Thick):
        def __init__(self, config, episodes):
            raise KeyError

    assert failing(Broken) == 4


def test_batches_of_any_size_have_to_be_evaluated():
    class OnlyLarge(Thick):
        def changed(self, sizes, records):
            return sizes[[0, -1]]

    assert failing(OnlyLarge) == 5


def test_ticks_must_not_be_changed():
    class Writes(Thick):
        def changed(self, sizes, records):
            records["bid_px"] = 0
            return sizes

    assert failing(Writes) == 6


def test_values_have_to_be_finite():
    class Infinite(Thick):
        def changed(self, sizes, records):
            return np.where(sizes > 90, np.inf, sizes)

    assert failing(Infinite) == 8


def test_the_cut_of_batches_must_not_matter():
    class Ranks(Thick):
        def changed(self, sizes, records):
            return sizes * min(len(sizes), 100) / 100

    assert failing(Ranks) == 10


def test_state_must_not_be_shared():
    class Shares(Thick):
        seen: ClassVar[list[int]] = [0]

        def changed(self, sizes, records):
            self.seen[0] += len(sizes)
            return sizes + 100 * (self.seen[0] > 2000)

    assert failing(Shares) == 9
