"""Episodes: raised once, cleared once, one key, cool-down, durations, inhibition, reference files."""

from __future__ import annotations

import numpy as np
import pytest

from marketfeed.alerts.rules import FeedState
from marketfeed.core.fixed import SCALE
from marketfeed.core.records import NO_QUOTES, NO_TRADES, QUOTE, TRADE
from marketfeed.errors import ConfigError
from tests.support.alert_ticks import S, ruleset

T0 = 1_790_000_000 * S


class Ticks:
    """Feeds single ticks to a rule set; times are in seconds after T0."""

    def __init__(self, *tables, base=None, names=("A", "B", "C"), max_symbols=8):
        self.rules = ruleset(tables, names, base, max_symbols)
        self.g = 0

    def quote(self, at_s, bid, ask, symbol=0, **columns):
        quotes = np.zeros(1, QUOTE)
        self.g += 1
        quotes["ts_recv"] = quotes["ts_event"] = T0 + round(at_s * S)
        quotes["g"], quotes["symbol"] = self.g, symbol
        quotes["bid_px"], quotes["ask_px"] = round(bid * SCALE), round(ask * SCALE)
        quotes["bid_sz"], quotes["ask_sz"] = bid != 0, ask != 0
        for name, value in columns.items():
            quotes[name] = value
        return self.rules.evaluate(quotes, NO_TRADES)

    def trade(self, at_s, price, size=1.0, symbol=0):
        trades = np.zeros(1, TRADE)
        self.g += 1
        trades["ts_recv"] = trades["ts_event"] = T0 + round(at_s * S)
        trades["g"], trades["symbol"], trades["trade_id"] = self.g, symbol, self.g
        trades["price"], trades["size"] = round(price * SCALE), size
        return self.rules.evaluate(NO_QUOTES, trades)

    def tick(self, at_s):
        return self.rules.tick(T0 + round(at_s * S))


def states(found):
    return [alert.state for alert, _ in found]


def test_an_episode_is_raised_once_and_cleared_once_under_one_key():
    ticks = Ticks({"type": "spread", "bps": 100, "name": "wide", "severity": "critical"})
    assert ticks.quote(0, 100, 100.5) == []
    ((raised, inhibited),) = ticks.quote(1, 100, 102)
    assert ticks.quote(2, 100, 103) == []
    ((cleared, _),) = ticks.quote(3, 100, 101)
    assert not inhibited
    assert (raised.state, raised.key, raised.rule, raised.symbol) == ("raised", raised.id, "wide", "A")
    assert (raised.value, raised.threshold) == (pytest.approx(198.0198), 100)
    assert (raised.t_ns, raised.r_ns, raised.severity) == (T0 + S, T0 + S, "critical")
    assert (cleared.state, cleared.key) == ("cleared", raised.id)
    assert cleared.id != raised.id
    assert raised.message == "A: spread 198.02 bps, threshold 100 bps"
    assert cleared.message == "A: over, spread 99.5025 bps, threshold 100 bps"


def test_hysteresis_keeps_an_episode_up_to_clear_at():
    ticks = Ticks({"type": "spread", "absolute": 2.0, "clear_at": 1.0})
    assert states(ticks.quote(0, 100, 103)) == ["raised"]
    assert ticks.quote(1, 100, 101.5) == []
    assert ticks.quote(2, 0, 101) == []  # one side is missing: no measurement
    assert states(ticks.quote(3, 100, 101)) == ["cleared"]


def test_a_cool_down_keeps_back_episodes_and_counts_them():
    ticks = Ticks({"type": "crossed", "cooldown_s": 10.0})
    assert states(ticks.quote(0, 101, 100)) == ["raised"]
    assert states(ticks.quote(1, 100, 101)) == ["cleared"]
    for at_s in (2, 4):
        assert ticks.quote(at_s, 101, 100) == []
        assert ticks.quote(at_s + 1, 100, 101) == []
    ((raised, _),) = ticks.quote(11, 101, 100)
    assert (raised.state, raised.suppressed) == ("raised", 2)
    ((cleared, _),) = ticks.quote(12, 100, 101)
    assert cleared.suppressed == 0


def test_what_still_holds_when_the_cool_down_ends_is_raised_then():
    ticks = Ticks({"type": "crossed", "cooldown_s": 10.0})
    ticks.quote(0, 101, 100)
    ticks.quote(1, 100, 101)
    assert ticks.quote(5, 101, 100) == []
    assert ticks.rules.next_ns == T0 + 11 * S
    assert ticks.tick(10.9) == []
    ((raised, _),) = ticks.tick(11)
    assert (raised.r_ns, raised.t_ns, raised.suppressed) == (T0 + 11 * S, 0, 0)
    assert ticks.rules.next_ns is None


def test_a_minimum_duration_ends_at_its_time_and_not_with_a_tick():
    ticks = Ticks({"type": "locked", "min_duration_s": 2.0})
    assert ticks.quote(0, 100, 100) == []
    assert ticks.quote(1, 100, 101) == []  # too short
    assert ticks.quote(2, 100, 100) == []
    found = ticks.quote(7, 100, 101)
    assert [(alert.state, alert.r_ns - T0) for alert, _ in found] == [("raised", 4 * S), ("cleared", 7 * S)]


def test_alerts_of_one_venue_time_have_different_ids():
    ticks = Ticks({"type": "crossed"})
    found = []
    for number in range(6):
        found += ticks.quote(number, 101 - number % 2, 100 + number % 2, ts_event=T0)
    assert states(found) == ["raised", "cleared"] * 3
    assert len({alert.id for alert, _ in found}) == 6
    assert len({alert.key for alert, _ in found}) == 3


def test_the_same_ticks_give_the_same_ids():
    one, other = Ticks({"type": "crossed"}), Ticks({"type": "crossed"})
    assert one.quote(0, 101, 100) == other.quote(0, 101, 100)


def test_prices_beyond_the_range_are_no_prices():
    ticks = Ticks({"type": "spread", "absolute": 1.0}, {"type": "price_band", "low": 0.0})
    assert ticks.quote(0, 1, 1, bid_px=-(2**63), ask_px=2**63 - 1) == []


def test_stale_symbols_are_raised_by_time_and_cleared_by_their_tick():
    ticks = Ticks({"type": "stale", "after_s": 5.0})
    ticks.quote(0, 100, 101)
    ticks.quote(3, 100, 101, symbol=1)
    ((raised, _),) = ticks.tick(5)
    assert (raised.symbol, raised.value, raised.r_ns) == ("A", 5.0, T0 + 5 * S)
    ((cleared, _),) = ticks.quote(6.5, 100, 101)
    assert (cleared.symbol, cleared.value) == ("A", 6.5)
    assert ticks.rules.next_ns == T0 + 8 * S


def test_what_goes_stale_in_a_feed_that_is_down_is_not_raised():
    ticks = Ticks({"type": "stale", "after_s": 5.0}, {"type": "feed_down", "after_s": 2.0})
    ticks.quote(0, 100, 101, feed=3)
    assert ticks.rules.feeds({3: FeedState("demo", False)}, T0 + S) == []
    ((down, _),) = ticks.tick(100)
    assert (down.rule, down.symbol, down.r_ns - T0) == ("feed_down", "demo", 3 * S)
    ((up, _),) = ticks.rules.feeds({3: FeedState("demo", True)}, T0 + 101 * S)
    assert (up.state, up.key, up.value) == ("cleared", down.id, 100.0)
    ((stale, _),) = ticks.tick(106)
    assert (stale.rule, stale.r_ns - T0) == ("stale", 106 * S)


def test_a_feed_that_is_removed_is_no_longer_down():
    ticks = Ticks({"type": "feed_down", "after_s": 0.0})
    assert states(ticks.rules.feeds({0: FeedState("demo", False)}, T0)) == ["raised"]
    assert states(ticks.rules.feeds({}, T0 + S)) == ["cleared"]


def test_inhibited_alerts_are_marked_and_so_is_what_clears_them():
    ticks = Ticks(
        {"type": "feed_down", "after_s": 0.0},
        {"type": "crossed", "inhibited_by": ["feed_down"]},
        {"type": "spread", "absolute": 5.0},
        {"type": "locked", "inhibited_by": ["spread"]},
    )
    ticks.quote(0, 100, 101, feed=3)
    ticks.rules.feeds({3: FeedState("demo", False)}, T0)
    ((_, inhibited),) = ticks.quote(1, 101, 100)
    assert inhibited
    ticks.rules.feeds({3: FeedState("demo", True)}, T0 + 2 * S)
    ((cleared, inhibited),) = ticks.quote(3, 100, 101)
    assert (cleared.state, inhibited) == ("cleared", True)
    ((_, inhibited),) = ticks.quote(4, 101, 100)
    assert not inhibited


def test_reference_prices_come_from_a_file(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_text("symbol,price\nA,100\nB, 50.5\n", "utf-8")
    ticks = Ticks(
        {"type": "price_band", "percent": 10, "reference": "prices.csv", "of": "trade"}, base=tmp_path
    )
    assert ticks.trade(0, 105) == []
    assert ticks.trade(0, 1000, symbol=2) == []  # not in the file
    ((raised, _),) = ticks.trade(1, 112)
    assert raised.value == pytest.approx(12)
    file.write_text("A,110\n", "utf-8")
    ticks.rules.reload()
    assert states(ticks.trade(2, 112)) == ["cleared"]
    assert ticks.trade(3, 1, symbol=1) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "No such file or directory"),
        ("", "no line with a symbol and a price"),
        ("A,1\nB\n", ":2: must be a symbol and a price above 0, each symbol once"),
        ("A,1\nA,2\n", ":2: must be a symbol and a price above 0, each symbol once"),
        ("A,1\nB,-2\n", ":2: must be a symbol and a price above 0, each symbol once"),
    ],
)
def test_mistakes_in_a_reference_file_name_rule_and_line(tmp_path, text, line):
    file = tmp_path / "prices.csv"
    if text is not None:
        file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        Ticks({"type": "crossed"}, {"type": "price_band", "percent": 1, "reference": str(file)})
    (found,) = caught.value.mistakes
    assert found.startswith(f"alerts.rules.1.reference: {file}")
    assert found.endswith(line)


def test_a_reference_file_that_became_wrong_changes_nothing(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_text("A,100\n", "utf-8")
    ticks = Ticks({"type": "price_band", "percent": 10, "reference": str(file), "of": "trade"})
    file.unlink()
    with pytest.raises(ConfigError, match=r"^alerts\.rules\.0\.reference: "):
        ticks.rules.reload()
    assert states(ticks.trade(0, 120)) == ["raised"]


def test_every_symbol_may_be_raised_at_once():
    count = 8192
    ticks = Ticks({"type": "crossed"}, names=[f"S{n}" for n in range(count)], max_symbols=count)
    quotes = np.zeros(count, QUOTE)
    quotes["symbol"] = np.arange(count)
    quotes["g"], quotes["ts_recv"] = 1 + np.arange(count), T0
    quotes["bid_px"], quotes["bid_sz"], quotes["ask_px"], quotes["ask_sz"] = 2, 1, 1, 1
    found = ticks.rules.evaluate(quotes, NO_TRADES)
    assert [alert.symbol for alert, _ in found] == [f"S{n}" for n in range(count)]
    assert len({alert.id for alert, _ in found}) == count


def test_no_tick_is_no_work():
    ticks = Ticks({"type": "crossed"}, {"type": "rate", "above": 1.0, "window_s": 1.0})
    assert ticks.rules.evaluate(NO_QUOTES, NO_TRADES) == []
    assert ticks.tick(1) == []
    assert ticks.rules.next_ns is None


def test_rates_are_left_alone_once_all_windows_are_empty():
    ticks = Ticks({"type": "rate", "below": 1.0, "window_s": 3.2})
    ticks.quote(0, 1, 2)
    assert ticks.rules.next_ns == T0 + S // 10
    ((raised, _),) = ticks.tick(10**6)
    assert (raised.value, raised.r_ns - T0) == (0.3125, 32 * S // 10)
    assert ticks.rules.next_ns is None
