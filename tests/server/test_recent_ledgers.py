"""Sums of ledgers are as old as their cost allows, and never made twice at a time."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio

from marketfeed.fanout.ledger import Ledger
from marketfeed.server.recent_ledgers import LEAST_S, MOST_S, SHARE, RecentLedgers, rest_s


class Figures:
    def __init__(self, cpu_s: float = 0.0) -> None:
        self.sums = 0
        self._cpu_s = cpu_s

    async def totals(self, unhurried: bool) -> dict[str, Ledger]:
        assert unhurried
        await trio.sleep(0.5)
        self.sums += 1
        until_s = time.thread_time() + self._cpu_s
        while time.thread_time() < until_s:
            pass
        return {"vip": Ledger(matched=self.sums)}


async def matched(ledgers: RecentLedgers) -> int:
    return (await ledgers.get())["vip"].matched


async def test_who_asks_meanwhile_or_soon_gets_the_same_sums(autojump_clock):
    ledgers = RecentLedgers(Figures())  # type: ignore[arg-type]
    seen: list[tuple[float, int]] = []

    async def ask(at_s: float) -> None:
        await trio.sleep(at_s)
        seen.append((at_s, await matched(ledgers)))

    async with trio.open_nursery() as nursery:
        for at_s in (0, 0.25, 1.25, 2.0):
            nursery.start_soon(ask, at_s)
    assert seen == [(0, 1), (0.25, 1), (1.25, 1), (2.0, 2)]


async def test_sums_that_cost_much_are_made_rarely(autojump_clock):
    ledgers = RecentLedgers(Figures(cpu_s=0.03))  # type: ignore[arg-type]
    assert await matched(ledgers) == 1
    await trio.sleep(0.03 / SHARE - 0.001)
    assert await matched(ledgers) == 1
    await trio.sleep(MOST_S)
    assert await matched(ledgers) == 2


async def test_a_request_that_is_cancelled_leaves_the_sum_to_the_next(autojump_clock):
    figures: Any = Figures()
    ledgers = RecentLedgers(figures)
    with trio.move_on_after(0.1):
        await ledgers.get()
    assert await matched(ledgers) == figures.sums == 1


@pytest.mark.parametrize(("took_s", "rest"), [(0, LEAST_S), (0.05, 5.0), (3.0, MOST_S)])
def test_the_rest_grows_with_the_cost_within_bounds(took_s, rest):
    assert rest_s(took_s) == pytest.approx(rest)
