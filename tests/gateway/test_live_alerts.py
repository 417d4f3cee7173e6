"""Live views read the log in pages, other tasks run between what is encoded, and each has its symbols."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest
import trio

from marketfeed.alerts import messages
from marketfeed.core.symbol_set import SymbolSet
from marketfeed.gateway import live_alerts
from marketfeed.testing_alert_log import example
from tests.gateway.test_alert_sessions import alert, subscribed
from tests.support.live import connected, serving_alerts


async def test_views_get_all_pages_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(live_alerts, "READ", 3)
    raised = [example(number, "wide" if number % 2 else "stale") for number in range(1, 11)]
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as one, connected(live) as two:
        await subscribed(one, alerts=["wide"])
        await subscribed(two, alerts=["*"], encoding="binary")
        await dispatch.append(raised, time.time_ns())
        with trio.fail_after(10):
            assert [(await alert(one))["id"] for _ in range(5)] == [each.id for each in raised[::2]]
            assert [(await two.next("a"))["id"] for _ in range(10)] == [each.id for each in raised]


@pytest.fixture
def encoded(monkeypatch):
    """The numbers of alerts in the frames that were encoded."""
    numbers: list[int] = []

    def arrays(wanted):
        numbers.append(len(wanted))
        return messages.arrays(wanted)

    monkeypatch.setattr(live_alerts, "arrays", arrays)
    return numbers


async def test_views_get_alerts_about_their_symbols_or_none_encoded_once_per_set(tmp_path, encoded):
    symbols = ("AAPL", "BTC-USD", "MSFT", "")
    alerts = [example(number, symbol=symbol, state="notice") for number, symbol in enumerate(symbols)]
    directed = example(9, symbol="AAPL", state="notice", to="risk")
    async with serving_alerts(tmp_path) as (live, dispatch), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(live)) for _ in range(4)]
        for client in clients:
            await subscribed(client, alerts=["*"])
        assert live.service.views is not None
        views = list(live.service.views._views)
        for view in views[:2]:
            view.symbols = SymbolSet(["BTC*", "AAPL"])
        assert views[0].symbols is views[1].symbols
        views[2].symbols = SymbolSet()
        views[3].symbols = SymbolSet(["*"])
        assert [view.symbols for view in views[2:]] == [SymbolSet(), None]
        await dispatch.append([directed, *alerts], time.time_ns())
        with trio.fail_after(10):
            for client, wanted in zip(clients, ([0, 1, 3], [0, 1, 3], [3], [0, 1, 2, 3]), strict=True):
                assert [(await alert(client))["id"] for _ in wanted] == [alerts[n].id for n in wanted]
        assert sorted(encoded) == [1, 3, 4]


async def test_other_symbols_of_a_view_apply_to_the_next_alert(tmp_path):
    first, second, third = (example(n, symbol=symbol) for n, symbol in enumerate(("AAPL", "AAPL", "MSFT")))
    async with serving_alerts(tmp_path) as (live, dispatch), connected(live) as client:
        await subscribed(client, alerts=["*"])
        assert live.service.views is not None
        (view,) = live.service.views._views
        await dispatch.append([first], time.time_ns())
        with trio.fail_after(10):
            assert (await alert(client))["id"] == first.id
            view.symbols = SymbolSet(["MSFT"])
            await dispatch.append([second, third], time.time_ns())
            assert (await alert(client))["id"] == third.id
            view.symbols = None
            await dispatch.append([example(3, symbol="AAPL")], time.time_ns())
            assert (await alert(client))["id"] == example(3, symbol="AAPL").id
