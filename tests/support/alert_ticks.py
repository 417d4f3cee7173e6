"""Random ticks for tests of alert rules, and both evaluators over the same ticks."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from marketfeed.alerts.rules import SLICE, FeedState, RuleSet, rule_specs
from marketfeed.core.records import FLAG_SNAPSHOT, FLAG_STALE, FLAG_TIME_BACK, QUOTE, TRADE
from tests.support.alert_formulas import Tick
from tests.support.alert_oracle import Oracle

S = 10**9
START_NS = 1_790_000_000 * S - 2 * S  # two seconds before a multiple of all windows
NAMES = ["AAA", "BTC-EUR", "BTC-USD", "ZZZ"]
FEEDS = {0: "one", 1: "two"}
_PAST = FLAG_SNAPSHOT | FLAG_STALE


def random_ticks(seed, count, first_g=1):
    """Return quotes, trades and the channel of each tick: with missing sides, odd prices and late times."""
    rng = np.random.default_rng(seed)
    quotes, trades = np.zeros(count, QUOTE), np.zeros(count, TRADE)
    scale = rng.choice([10**4, 10**6, 10**8])  # mean time between ticks
    gaps = rng.exponential(scale, count) * rng.choice([0, 1, 20, 1000], count, p=[0.3, 0.6, 0.09, 0.01])
    # Times on a grid now and then: ticks and deadlines at the same nanosecond.
    times = START_NS + (np.cumsum(gaps).astype(np.int64) // 100_000) * 100_000
    late = rng.random(count) < 0.05
    symbols = rng.choice(len(NAMES), count, p=[0.5, 0.3, 0.19, 0.01])
    walk = 10**11 + np.cumsum(rng.normal(0, 10**9, count)).astype(np.int64)
    walk[rng.random(count) < 0.03] *= 2
    for records in (quotes, trades):
        records["symbol"], records["feed"] = symbols, symbols % 2
        records["ts_recv"] = times - late * rng.integers(0, 10**9, count)
        records["ts_event"] = np.where(rng.random(count) < 0.1, 0, times // 10**6 * 10**6)
        records["flags"] = rng.choice(
            [0, FLAG_SNAPSHOT, FLAG_STALE, FLAG_TIME_BACK], count, p=[0.9, 0.03, 0.03, 0.04]
        )
        records["g"] = first_g + np.arange(count)
    spread = rng.choice([-(10**8), 0, 10**8, 3 * 10**8, 10**10], count, p=[0.1, 0.1, 0.5, 0.2, 0.1])
    quotes["bid_px"], quotes["ask_px"] = walk, walk + spread
    quotes["bid_sz"], quotes["ask_sz"] = rng.integers(1, 100, (2, count))
    for side in ("bid", "ask"):
        gone = rng.random(count) < 0.05
        quotes[f"{side}_px"][gone] = quotes[f"{side}_sz"][gone] = 0
    odd = rng.random(count) < 0.03
    for records, names in ((quotes, ("bid_px", "ask_px")), (trades, ("price",))):
        for name in names:
            records[name] = walk if name == "price" else records[name]
            records[name][odd] = rng.choice([0, -(10**9), 10**7], np.count_nonzero(odd))
    trades["size"] = rng.integers(1, 10, count) * rng.choice([1, 1, 1, 50], count)
    trades["trade_id"] = np.where(rng.random(count) < 0.3, 0, 1 + np.arange(count))
    trades["kind"] = rng.choice([0, 1], count, p=[0.97, 0.03])
    is_quote = rng.random(count) < rng.choice([0.1, 0.6, 1.0])
    return quotes, trades, is_quote


def ticks_of(quotes, trades, is_quote, names=NAMES):
    """Return the ticks for the oracle, in order; those that rules leave out as None."""
    found: list[Tick | None] = []
    for quote, trade, of_quotes in zip(quotes, trades, is_quote.tolist(), strict=True):
        record = quote if of_quotes else trade
        common: dict[str, Any] = {
            "symbol": names[int(record["symbol"])],
            "at": 0,
            "t": int(record["ts_event"]),
            "r": int(record["ts_recv"]),
            "g": int(record["g"]),
            "feed": int(record["feed"]),
        }
        if int(record["flags"]) & _PAST or (not of_quotes and record["kind"]):
            found.append(None)
        elif of_quotes:
            bid, ask = int(quote["bid_px"]), int(quote["ask_px"])
            found.append(
                Tick(**common, bid=bid, ask=ask, bid_sz=float(quote["bid_sz"]), ask_sz=float(quote["ask_sz"]))
            )
        else:
            more: dict[str, Any] = {"price": int(trade["price"]), "trade_id": int(trade["trade_id"])}
            found.append(Tick(**common, size=float(trade["size"]), **more))
    return found


def arrivals(quotes, trades, is_quote):
    """Return the times of arrival of the ticks that rules evaluate."""
    alive = np.where(
        is_quote, quotes["flags"] & _PAST == 0, (trades["flags"] & _PAST == 0) & (trades["kind"] == 0)
    )
    return np.where(is_quote, quotes["ts_recv"], trades["ts_recv"])[alive].tolist()


def ruleset(tables, names=NAMES, base=None, max_symbols=16, slice_size=SLICE):
    rules = RuleSet(rule_specs(tables), max_symbols, base, slice_size)
    rules.learn(names)
    return rules


def plain(found):
    """Return alerts without their message, and whether they are inhibited."""
    return [(msgspec.structs.replace(alert, message=""), inhibited) for alert, inhibited in found]


def evaluated(rules, drawn, cuts, ticking=None, feeds=()):
    """Evaluate ticks in batches that end at ``cuts``; ``feeds`` are (position, live by number) of changes.

    ``ticking``, a random generator, calls tick() at times between the ticks.
    """
    quotes, trades, is_quote = drawn
    found, clock_ns, start = [], 0, 0
    changes = dict(feeds)
    for end in sorted({*cuts, *changes, len(quotes)}):
        part = slice(start, end)
        found += rules.evaluate(quotes[part][is_quote[part]], trades[part][~is_quote[part]])
        clock_ns = max([clock_ns, *arrivals(quotes[part], trades[part], is_quote[part])])
        if end in changes:
            states = {number: FeedState(FEEDS[number], live) for number, live in changes[end].items()}
            found += rules.feeds(states, clock_ns)
        if ticking is not None and end < len(quotes):
            following = arrivals(quotes[end:], trades[end:], is_quote[end:])
            until_ns = max([clock_ns, *following[:1]])
            found += rules.tick(int(ticking.integers(clock_ns, until_ns + 1)))
        start = end
    return plain(found), clock_ns


def expected(tables, drawn, end_ns, names=NAMES, feeds=(), prices=None):
    """Return what the oracle finds in the same ticks."""
    oracle = Oracle(tables, names, FEEDS, prices)
    changes = dict(feeds)
    quotes, trades, is_quote = drawn
    for number, tick in enumerate(ticks_of(quotes, trades, is_quote, names), 1):
        if tick is not None:
            oracle.tick(tick)
        if number in changes:
            oracle.feeds(changes[number], oracle.clock)
    oracle.pass_time(end_ns)
    return oracle.found
