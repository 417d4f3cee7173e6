"""Checks that every rule type has to pass; :mod:`marketfeed.testing` has them for third parties.

    def test_my_rule():
        check_rule(MyRule, {"level": 5.0})

A failed check raises an AssertionError that begins with the number of the check:

 1. ``Config`` accepts the settings.
 2. ``Config`` refuses a key it does not know.
 3. ``problems()``, if there is one, has no objection to the settings.
 4. The rule can be constructed.
 5. It evaluates batches of any size, an empty one too, without an exception.
 6. It leaves the ticks as they are.
 7. Per symbol, alerts are raised and cleared in turn, and both of an episode have one ``key``.
 8. Values and thresholds are finite.
 9. Another rule of the type has a state of its own: the same ticks give the same alerts.
10. The alerts do not depend on how ticks are cut into batches.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from marketfeed.alerts.rules.registry import Common, RuleSpec
from marketfeed.alerts.rules.ruleset import RuleSet
from marketfeed.core.records import NO_QUOTES, NO_TRADES, QUOTE, TRADE
from marketfeed.core.units import MS, S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.rules.rule import RuleType
    from marketfeed.core.records import Records

RULE_CHECKS: Final = {
    1: "config accepts the settings",
    2: "config refuses an unknown key",
    3: "the settings have no problems",
    4: "the rule can be made",
    5: "it evaluates any batch",
    6: "ticks are left as they are",
    7: "alerts are raised and cleared in turn",
    8: "values are finite",
    9: "rules have their own state",
    10: "the cut of batches does not matter",
}

_NAMES: Final = ["AAA", "BBB", "CCC", "DDD", "EEE"]
_START_NS: Final = 1_790_000_000 * S
_CUTS: Final = (1, 7, 64)  # ticks per batch

Drawn = tuple["Records", "Records", "NDArray[np.bool_]"]


def check_rule(
    rule_type: RuleType,
    settings: dict[str, Any],
    *,
    ticks: tuple[Records, Records] | None = None,
    count: int = 2000,
) -> list[Alert]:
    """Run the numbered checks in this module's docstring on a rule type.

    ``settings`` is its ``[[alerts.rules]]`` table without the common keys. ``ticks`` are QUOTE and TRADE
    records to evaluate, each in order of ``g``, with symbols below 5; None: ``count`` random ones, with
    missing sides and prices that jump. Returns the alerts, to check that there are some. Raises
    AssertionError.
    """
    spec = _spec(rule_type, settings)
    drawn = _interleaved(*ticks) if ticks is not None else _random(count)
    whole = _alerts(spec, drawn, len(drawn[2]))
    _check_episodes(whole)
    _require(9, _alerts(spec, drawn, len(drawn[2])) == whole, "another run gave other alerts")
    for size in _CUTS:
        _require(10, _alerts(spec, drawn, size) == whole, f"batches of {size} gave other alerts")
    return whole


def _spec(rule_type: RuleType, settings: dict[str, Any]) -> RuleSpec:
    try:
        config = msgspec.convert(settings, rule_type.Config)
    except msgspec.ValidationError as error:
        raise AssertionError(_text(1, str(error))) from None
    try:
        msgspec.convert({**settings, "no_such_key": True}, rule_type.Config)
    except msgspec.ValidationError:
        pass
    else:
        raise AssertionError(_text(2, "no_such_key was accepted; set forbid_unknown_fields=True"))
    problems = list(getattr(config, "problems", tuple)())
    _require(3, not problems, str(problems))
    return RuleSpec(Common(name="checked", type="checked"), rule_type, config, "alerts.rules.0")


def _alerts(spec: RuleSpec, drawn: Drawn, size: int) -> list[Alert]:
    """Evaluate the ticks in batches of ``size``, each after an empty one; return the alerts."""
    try:
        rules = RuleSet([spec], len(_NAMES))
    except Exception as error:
        raise AssertionError(_text(4, f"raised {error!r}")) from error
    rules.learn(_NAMES)
    quotes, trades, is_quote = drawn
    found = []
    for start in range(0, len(is_quote), max(size, 1)):
        part = slice(start, start + size)
        batch = quotes[part][is_quote[part]], trades[part][~is_quote[part]]
        before = [records.tobytes() for records in batch]
        try:
            found += rules.evaluate(NO_QUOTES, NO_TRADES)
            found += rules.evaluate(*batch)
        except Exception as error:
            raise AssertionError(_text(5, f"raised {error!r}")) from error
        _require(5, not rules.failed, f"raised {', '.join(rules.failed.values())}")
        _require(6, before == [records.tobytes() for records in batch], "it wrote to records")
    return [alert for alert, _ in found]


def _check_episodes(alerts: Sequence[Alert]) -> None:
    raised: dict[str, str] = {}
    for alert in alerts:
        if alert.state == "raised":
            _require(7, alert.symbol not in raised, f"{alert.symbol} was raised twice")
            raised[alert.symbol] = alert.id
        key = raised.get(alert.symbol) if alert.state == "raised" else raised.pop(alert.symbol, None)
        _require(7, key == alert.key, f"{alert.symbol} was cleared under another key")
        for value in (alert.value, alert.threshold):
            _require(8, value is not None and math.isfinite(value), f"{alert.symbol}: {value}")


def _interleaved(quotes: Records, trades: Records) -> Drawn:
    """Return quotes, trades and a mask of the quotes, one entry per tick in order of ``g``."""
    order = np.concatenate([quotes["g"], trades["g"]]).argsort(kind="stable")
    is_quote = order < len(quotes)
    all_quotes, all_trades = np.zeros(len(order), QUOTE), np.zeros(len(order), TRADE)
    all_quotes[is_quote], all_trades[~is_quote] = quotes, trades
    return all_quotes, all_trades, is_quote


def _random(count: int) -> Drawn:
    rng = np.random.default_rng(count)
    quotes, trades = np.zeros(count, QUOTE), np.zeros(count, TRADE)
    times = _START_NS + np.cumsum(rng.exponential(5 * MS, count)).astype(np.int64)
    mids = 100 * S + np.cumsum(rng.normal(0, S // 10, count)).astype(np.int64)
    mids[rng.random(count) < 0.02] *= 2
    for records in (quotes, trades):
        records["g"] = 1 + np.arange(count)
        records["symbol"] = rng.integers(0, len(_NAMES), count)
        records["ts_recv"], records["ts_event"] = times, times - MS
    spreads = rng.choice([-S // 10, 0, S // 10, S], count, p=[0.05, 0.05, 0.8, 0.1])
    quotes["bid_px"], quotes["ask_px"] = mids - spreads // 2, mids + spreads - spreads // 2
    quotes["bid_sz"], quotes["ask_sz"] = rng.integers(1, 100, (2, count))
    gone = rng.random(count) < 0.05
    quotes["bid_px"][gone] = quotes["bid_sz"][gone] = 0
    trades["price"], trades["trade_id"] = mids, 1 + np.arange(count)
    trades["size"] = rng.integers(1, 10, count) * rng.choice([1, 100], count, p=[0.98, 0.02])
    return quotes, trades, rng.random(count) < 0.7


def _require(check: int, good: bool, detail: str) -> None:
    if not good:
        raise AssertionError(_text(check, detail))


def _text(check: int, detail: str) -> str:
    return f"check {check}, {RULE_CHECKS[check]}: {detail}"
