"""A slow, obvious evaluator of alert rules: plain Python, one tick after the other, from docs/alerts.md.

It shares the identifier of an alert with the product, and nothing else. alert_formulas.py has what is
measured on ticks; here are the measures that depend on time, and the episodes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from marketfeed.alerts.alert import Alert, alert_id
from tests.support.alert_formulas import (
    Anomaly,
    Crossed,
    Locked,
    Luld,
    Move,
    OffMarket,
    PriceBand,
    Reading,
    S,
    SizeSpike,
    Spread,
)


class Rate:
    def __init__(self, window_s, above=None, below=None, clear_at=None):
        self.above, self.below = above, below
        self.clear_at = (above if below is None else below) if clear_at is None else clear_at
        self.bucket_ns = max(round(window_s * S) // 32, 1)
        self.bucket: int | None = None
        self.last = 0
        self.first: dict[str, int] = {}
        self.ticks: dict[str, list[int]] = defaultdict(list)

    def measure(self, tick):
        bucket = tick.at // self.bucket_ns
        self.bucket = self.last = bucket
        self.first.setdefault(tick.symbol, bucket)
        self.ticks[tick.symbol].append(bucket)

    def next_time(self):
        # Two windows after the last tick everything has been judged with a rate of 0: only for speed.
        if self.bucket is None or self.bucket > self.last + 64:
            return None
        return (self.bucket + 1) * self.bucket_ns

    def pass_time(self, symbols):
        """Go to the next bucket; return the readings of all symbols at its begin."""
        assert self.bucket is not None
        self.bucket += 1
        readings = {}
        for symbol in sorted(self.first, key=symbols.index):
            self.ticks[symbol] = [b for b in self.ticks[symbol] if b >= self.bucket - 32]
            rate = len(self.ticks[symbol]) / (32 * self.bucket_ns / S)
            if self.below is None:
                readings[symbol] = Reading(rate > self.above, rate <= self.clear_at, rate, self.above)
            else:
                grown = self.bucket - 32 >= self.first[symbol]
                readings[symbol] = Reading(
                    grown and rate < self.below, rate >= self.clear_at, rate, self.below
                )
        return readings


class Stale:
    def __init__(self, after_s):
        self.after_s, self.after_ns = after_s, round(after_s * S)
        self.last: dict[str, int] = {}
        self.due: dict[str, int] = {}
        self.feed: dict[str, int] = {}
        self.down: set[int] = set()

    def measure(self, tick):
        last = self.last.get(tick.symbol, tick.at)
        self.last[tick.symbol] = tick.at
        feed = self.feed.setdefault(tick.symbol, tick.feed)
        self.due.pop(tick.symbol, None)
        if feed not in self.down:
            self.due[tick.symbol] = tick.at + self.after_ns
        return Reading(False, True, (tick.at - last) / S, self.after_s)

    def feeds(self, live, now):
        for number, is_live in live.items():
            own = [symbol for symbol, feed in self.feed.items() if feed == number]
            for symbol in own:
                if not is_live:
                    self.due.pop(symbol, None)
                elif number in self.down:
                    self.due[symbol] = max(now, self.last[symbol]) + self.after_ns
            (self.down.discard if is_live else self.down.add)(number)

    def next_time(self):
        return min(self.due.values(), default=None)

    def pass_time(self, symbols):
        time = self.next_time()
        ended = [symbol for symbol, due in self.due.items() if due == time]
        for symbol in ended:
            del self.due[symbol]
        return {
            symbol: Reading(True, False, self.after_s, self.after_s)
            for symbol in sorted(ended, key=symbols.index)
        }


class FeedDown:
    def __init__(self, after_s):
        self.after_s = self.min_duration_s = after_s
        self.since: dict[int, int] = {}

    def measure(self, tick):
        return None

    def reading(self, number, is_live, now):
        since = self.since.setdefault(number, now)
        if is_live:
            del self.since[number]
        return Reading(not is_live, is_live, (now - since) / S if is_live else self.after_s, self.after_s)


TYPES: dict[str, Any] = {
    "spread": Spread,
    "crossed": Crossed,
    "locked": Locked,
    "price_band": PriceBand,
    "off_market": OffMarket,
    "move": Move,
    "luld": Luld,
    "size_spike": SizeSpike,
    "anomaly": Anomaly,
    "rate": Rate,
    "stale": Stale,
    "feed_down": FeedDown,
}
COMMON = ("name", "type", "symbols", "severity", "cooldown_s", "inhibited_by")


@dataclass
class Case:
    """One rule and one symbol."""

    state: str = "clear"
    since: int = 0
    due: int = 0
    ready: int = 0
    reading: Reading | None = None
    suppressed: int = 0
    key: str = ""
    inhibited: bool = False
    last: dict[str, tuple[int, int]] = field(default_factory=dict)


class Oracle:
    """Evaluates rules, given as tables of a configuration, tick by tick; ``found`` has the alerts."""

    def __init__(self, tables, names, feeds=(), prices=None):
        self.names, self.feed_names = list(names), dict(feeds)
        self.clock = 0
        self.found: list[tuple[Alert, bool]] = []
        self.feed: dict[str, int] = {}
        self.rules: list[tuple[dict[str, Any], Any, dict[str, Case]]] = []
        for table in tables:
            settings = {key: value for key, value in table.items() if key not in COMMON}
            if table["type"] == "price_band":
                settings["prices"] = prices
            common = {"name": table["type"], "symbols": "*", "severity": "warning", "cooldown_s": 0.0} | table
            self.rules.append((common, TYPES[table["type"]](**settings), defaultdict(Case)))

    def tick(self, tick):
        """Take a tick; its ``at`` is ignored: the clock gives it."""
        self.pass_time(max(self.clock, tick.r))
        self.feed.setdefault(tick.symbol, tick.feed)
        tick = tick._replace(at=self.clock)
        for common, rule, cases in self.rules:
            reading = rule.measure(tick)
            if reading is not None:
                self.step(common, rule, cases, tick.symbol, reading, tick)

    def feeds(self, live, now):
        """Take whether feeds are live, by number."""
        self.pass_time(max(self.clock, now))
        for common, rule, cases in self.rules:
            if isinstance(rule, Stale):
                rule.feeds(live, self.clock)
            if isinstance(rule, FeedDown):
                for number, is_live in sorted(live.items()):
                    reading = rule.reading(number, is_live, self.clock)
                    self.step(common, rule, cases, self.feed_names[number], reading, None)
        self.pass_time(self.clock)

    def pass_time(self, now):
        """Let everything happen that is due up to ``now``, in order of time and rules."""
        while (due := self.next_due()) is not None and due[0] <= now:
            time, index, symbol = due
            self.clock = time
            common, rule, cases = self.rules[index]
            if symbol is None:
                for one, reading in rule.pass_time(self.names).items():
                    self.step(common, rule, cases, one, reading, None)
            else:
                self.raise_now(common, cases[symbol], symbol, cases[symbol].reading, None)
        self.clock = now

    def next_due(self):
        """Return time, index of the rule, and symbol of what is due next; symbol None: the rule itself."""
        found: list[tuple[int, int, int, str | None]] = []
        for index, (common, rule, cases) in enumerate(self.rules):
            order = self.names if common["type"] != "feed_down" else list(self.feed_names.values())
            for symbol, case in cases.items():
                if case.state == "pending":
                    found.append((case.due, index, order.index(symbol), symbol))
            if hasattr(rule, "next_time") and (time := rule.next_time()) is not None:
                found.append((time, index, -1, None))
        if not found:
            return None
        time, index, _, name = min(found, key=lambda one: one[:3])
        return time, index, name

    def step(self, common, rule, cases, symbol, reading, tick):
        patterns = common["symbols"]
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not any(symbol.startswith(p[:-1]) if p.endswith("*") else symbol == p for p in patterns):
            return
        case, now = cases[symbol], self.clock
        duration = round(getattr(rule, "min_duration_s", 0) * S)
        if case.state == "pending" and case.due <= now:
            self.raise_now(common, case, symbol, case.reading, None)
        if case.state == "clear" and reading.hot:
            due = max(now + duration, case.ready)
            if due <= now:
                self.raise_now(common, case, symbol, reading, tick)
            else:
                case.state, case.since, case.due, case.reading = "pending", now, due, reading
        elif case.state == "pending":
            if reading.hot:
                case.reading = reading
            else:
                case.state = "clear"
                case.suppressed += now >= case.since + duration
        elif case.state == "raised" and reading.cool:
            case.state = "clear"
            case.ready = now + round(common["cooldown_s"] * S)
            self.emit(common, case, symbol, "cleared", reading, tick)

    def raise_now(self, common, case, symbol, reading, tick):
        case.state = "raised"
        self.emit(common, case, symbol, "raised", reading, tick)

    def emit(self, common, case, symbol, state, reading, tick):
        t, r, venue_id = (tick.t, tick.r, tick.trade_id) if tick else (0, self.clock, 0)
        if not venue_id:
            last, count = case.last.get(state, (0, 0))
            venue_id = count + 1 if last == (t or r) else 0
            case.last[state] = (t or r, venue_id)
        name = alert_id(common["name"], symbol, state, t, r, venue_id)
        if state == "raised":
            case.key = name
            case.inhibited = any(
                self.inhibits(other, symbol, common["type"] == "feed_down")
                for other in common.get("inhibited_by", ())
            )
        alert = Alert(
            id=name,
            key=case.key,
            rule=common["name"],
            symbol=symbol,
            severity=common["severity"],
            state=state,
            value=reading.value,
            threshold=reading.threshold,
            t_ns=t,
            r_ns=r,
            suppressed=case.suppressed,
        )
        case.suppressed = 0
        self.found.append((alert, case.inhibited))

    def inhibits(self, name, symbol, is_feed):
        ((common, _, cases),) = (rule for rule in self.rules if rule[0]["name"] == name)
        if common["type"] == "feed_down" and not is_feed:
            symbol = self.feed_names.get(self.feed.get(symbol))
        return symbol in cases and cases[symbol].state == "raised"
