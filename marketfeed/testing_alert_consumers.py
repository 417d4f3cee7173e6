"""Checks of alert logs: which entries are a consumer's, by symbols and patterns that change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.alerts.log import FORMER, Progress, Retention
from marketfeed.core.units import DAY_NS
from marketfeed.testing_alert_examples import NOW_NS, example, pruned, same

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from marketfeed.alerts.log import AlertLog

    _Open = Callable[[], AbstractAsyncContextManager[AlertLog]]


async def entitling(opened: _Open) -> None:
    """What is about other symbols is not this consumer's."""
    symbols = ("AAPL", "BTC-USD", "MSFT", "", "MSFT", "AAPL", "AAPL")
    *alerts, newest = [example(n, state="notice", symbol=symbol, to="a" if n == 4 else None)
                       for n, symbol in enumerate(symbols)]  # fmt: skip
    ids = [alert.id for alert in alerts[:5]]
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        await log.append(alerts, NOW_NS)
        await log.park("a", {1: 9, 3: 9, 5: 9}, NOW_NS)
        await log.use_consumer("a", NOW_NS + 1, "all", ["*"], ["AAPL", "BTC*"])
        same([entry.position for entry in await log.requeue("a", ids, NOW_NS, "ann")], [1, 5])
    async with opened() as log:
        same([letter.entry.position for letter in await log.dead_letters("a")], [3])
        await log.use_consumer("b", NOW_NS, "all", ["*"], ["AAPL", "BTC*"])
        same((await log.acknowledge("b", ids, NOW_NS)).positions, (1, 2, 4))
        await log.use_consumer("b", NOW_NS, "all", ["*"], ["MSFT"])
        await log.drop_consumer("a", NOW_NS)
        await log.append([newest], NOW_NS)
        await pruned(log, NOW_NS + 9 * DAY_NS, Retention(2, 1000))
        same([entry.position for entry in await log.read(0, 20)], [3, 7])


async def patterns_by_position(opened: _Open) -> None:
    """Patterns decide about what is appended from when they are set on."""
    rules = ("wide", "stale", "wide", "wide", "wide", "stale", "stale")
    *alerts, newest = [example(n, rule, "notice") for n, rule in enumerate(rules)]
    ids = [alert.id for alert in alerts]
    async with opened() as log:
        await log.use_consumer("a", NOW_NS, "all", ["wide"])
        await log.append(alerts[:4], NOW_NS)
        await log.park("a", {3: 9}, NOW_NS)
        log.record_attempts("a", {1: 2})
        await log.use_consumer("a", NOW_NS, "all", ["stale"])
        await log.append(alerts[4:], NOW_NS)
    async with opened() as log:
        await log.use_consumer("a", NOW_NS, "all", ["none"])
        same(await log.progress("a"), Progress(0, frozenset({3}), (), {1: 2}))
        (consumer,) = await log.consumers()
        same([entry.position for entry in await log.read(0, 9) if consumer.wants(entry)], [1, 3, 4, 6])
        same([entry.position for entry in await log.requeue("a", ids, NOW_NS)], [3])
        await log.append([newest], NOW_NS)
        same(await pruned(log, NOW_NS + 9 * DAY_NS, Retention(2, 1)), 2)
        same([entry.position for entry in await log.read(0, 9)], [1, 3, 4, 6, 7])
        same((await log.acknowledge("a", [*ids, newest.id], NOW_NS)).positions, (1, 3, 4, 6))
    async with opened() as log:
        for n in range(2 * FORMER):  # however often they change, nothing is lost
            await log.use_consumer("a", NOW_NS, "all", [f"rule-{n}"])
            await log.append([example(100 + n, f"rule-{n}", "notice")], NOW_NS)
        await log.use_consumer("a", NOW_NS, "all", ["wide"])
        (consumer,) = await log.consumers()
        same(len(consumer.former), FORMER)
        wanted = [entry.position for entry in await log.read(7, 99) if consumer.wants(entry)]
        same(wanted, list(range(8, 8 + 2 * FORMER)))
        log.advance("a", 7 + 2 * FORMER)
        same((await log.use_consumer("a", NOW_NS, "all", ["stale"])).former, ())
