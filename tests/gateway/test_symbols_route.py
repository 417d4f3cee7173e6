"""``GET /v1/symbols`` over real sockets."""

from __future__ import annotations

import time

import numpy as np
import pytest

from marketfeed.api.answers import SymbolList
from marketfeed.api.schemas import ref
from marketfeed.core.records import QUOTE, TRADE, Batch
from marketfeed.gateway.overview import EngineNow, FeedNow
from tests.support.access import Control, bearer
from tests.support.conformance import validate
from tests.support.live import http, serving
from tests.support.overviews import SetOverview

LIVE, ALSO_LIVE = FeedNow(0, "one", "live", 1), FeedNow(7, "two", "live", 1)


async def symbols(live, headers=()):
    """Return the rows by symbol."""
    status, answer = await http(live, "GET", "/v1/symbols", headers=headers)
    assert status == 200
    validate(answer, ref(SymbolList))
    return {row.pop("S"): row for row in answer["symbols"]}


def records(live, dtype, feed, *names, flags=0):
    """Return ticks of a feed."""
    found = np.zeros(len(names), dtype)
    found["symbol"] = [live.shard.symbols.intern(name) for name in names]
    found["feed"], found["flags"], found["ts_recv"] = feed, flags, time.time_ns()
    return found


def no_records(dtype):
    return np.zeros(0, dtype)


async def test_symbols_are_listed_with_their_first_and_last_tick():
    async with serving() as live:
        live.publish("A", "B")
        first = await symbols(live)
        assert list(first) == ["A", "B"]
        assert first["A"]["first"] == first["A"]["last"] > 1_600_000_000_000_000
        for _ in range(100):  # more than the ring holds
            live.publish("A")
        live.shard.symbols.intern("NEW")
        later = await symbols(live)
        assert later["A"]["first"] == first["A"]["first"]
        assert later["A"]["last"] > first["A"]["last"]
        assert later["NEW"] == {"first": 0, "last": 0}


async def test_the_feed_is_that_of_the_newest_tick_on_either_channel():
    async with serving(overview=SetOverview(LIVE, ALSO_LIVE)) as live:
        live.shard.symbols.intern("NEW")
        live.write(Batch(records(live, QUOTE, 0, "A", "B", "C"), no_records(TRADE)))
        live.write(Batch(no_records(QUOTE), records(live, TRADE, 7, "B", "D")))
        live.write(Batch(records(live, QUOTE, 7, "C"), no_records(TRADE)))
        rows = await symbols(live)
        feeds = {name: row.get("feed") for name, row in rows.items()}
        assert feeds == {"NEW": None, "A": "one", "B": "two", "C": "two", "D": "two"}
        assert not any("flags" in row for row in rows.values())


async def test_flags_are_those_of_the_newest_quote():
    async with serving(overview=SetOverview(LIVE)) as live:
        live.write(Batch(records(live, QUOTE, 0, "A", "B", flags=4), no_records(TRADE)))
        live.write(Batch(records(live, QUOTE, 0, "B", flags=8), records(live, TRADE, 0, "A", flags=8)))
        flags = {name: row["flags"] for name, row in (await symbols(live)).items()}
        assert flags == {"A": 4, "B": 8}


async def test_the_flag_stale_is_set_while_the_feed_is_not_live():
    overview = SetOverview(LIVE, ALSO_LIVE)
    async with serving(overview=overview) as live:
        live.shard.symbols.intern("NEW")
        live.write(Batch(records(live, QUOTE, 0, "A", flags=4), records(live, TRADE, 7, "B")))
        for state in ("starting", "stale", "down", "done", "failed"):
            overview.now = EngineNow((FeedNow(0, "one", state, 1), ALSO_LIVE))
            rows = await symbols(live)
            assert (rows["A"]["feed"], rows["A"]["flags"]) == ("one", 4 | 2)
            assert "flags" not in rows["B"]
        overview.now = EngineNow((LIVE, ALSO_LIVE))
        assert (await symbols(live))["A"]["flags"] == 4
        overview.now = EngineNow((LIVE,))  # the other one was removed
        rows = await symbols(live)
        assert rows["B"] == {"first": rows["B"]["first"], "last": rows["B"]["last"], "flags": 2}
        assert rows["NEW"] == {"first": 0, "last": 0}


async def test_a_token_shows_its_symbols_alone():
    control = Control()
    async with serving(access=control.access, overview=SetOverview(LIVE)) as live:
        live.publish("AAPL", "BTC-EUR", "BTC-USD")
        assert list(await symbols(live, bearer(control.token(["BTC*"])))) == ["BTC-EUR", "BTC-USD"]
        assert (await http(live, "GET", "/v1/symbols"))[0] == 401


@pytest.mark.parametrize("channel", ["quotes", "trades"])
async def test_a_token_shows_ticks_of_its_channels_alone(channel):
    control = Control()
    token = bearer(control.token(["A", "B"], channels=[channel]))
    async with serving(access=control.access, overview=SetOverview(LIVE, ALSO_LIVE)) as live:
        quotes, trades = records(live, QUOTE, 0, "A", flags=4), records(live, TRADE, 7, "A", "B")
        quotes["ts_recv"], trades["ts_recv"] = 2_000_000, 3_000_000
        live.write(Batch(quotes, no_records(TRADE)))
        live.write(Batch(no_records(QUOTE), trades))
        rows = await symbols(live, token)
        if channel == "quotes":
            assert rows["A"] == {"first": 2000, "last": 2000, "feed": "one", "flags": 4}
            assert rows["B"] == {"first": 3000, "last": 0}
        else:
            assert rows["A"] == {"first": 2000, "last": 3000, "feed": "two"}
            assert rows["B"] == {"first": 3000, "last": 3000, "feed": "two"}
