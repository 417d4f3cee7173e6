"""The conformance suite passes good feeds, and names the check that a bad one fails."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import trio

from marketfeed.core.records import BUY, QUOTE, TRADE, Batch
from marketfeed.feeds.replay import ReplayFeed
from marketfeed.feeds.synthetic import SyntheticFeed
from marketfeed.testing import CHECKS, RecordingIntake, check_feed

if TYPE_CHECKING:
    from marketfeed.ingest.feed import Intake, Publish

NOW_NS = 1_725_000_000 * 10**9
LINE = b'%d {"stream":"x@bookTicker","data":{"s":"X","b":"1.5","B":"2","a":"1.6","A":"0"}}\n'


def quotes(**columns):
    made = np.zeros(1, QUOTE)
    made["bid_px"], made["ask_px"], made["bid_sz"], made["ask_sz"] = 10, 11, 1, 1
    made["ts_event"] = NOW_NS
    for name, value in columns.items():
        made[name] = value
    return made


def trades(**columns):
    made = np.zeros(1, TRADE)
    made["price"], made["size"], made["side"] = 10, 1, BUY
    for name, value in columns.items():
        made[name] = value
    return made


class GoodConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: int = 1


class GoodFeed:
    """Publishes a quote and a trade a second; the broken ones differ in one thing."""

    Config = GoodConfig
    start_sessions = 0

    def __init__(self, config: GoodConfig, intake: Intake) -> None:
        self.intake = intake

    def ticks(self):
        return Batch(quotes(), trades())

    async def run(self, publish: Publish) -> None:
        assert self.intake.symbol("A") == 0
        self.intake.symbol("B")
        while True:
            publish(self.ticks())
            await trio.sleep(1)


async def test_synthetic_passes(autojump_clock):
    intake = await check_feed(SyntheticFeed, {"symbols": 10, "rate": 1000})
    assert len(intake.quotes) + len(intake.trades) >= 1000
    assert len(intake.symbols) == 10


@pytest.mark.parametrize("speed", [0, 1])
async def test_replay_passes(autojump_clock, tmp_path, speed):
    with gzip.open(tmp_path / "day.gz", "wb") as file:
        file.writelines(LINE % (NOW_NS + second * 10**9) for second in range(30))
    intake = await check_feed(ReplayFeed, {"path": "day.gz", "speed": speed}, base=tmp_path)
    assert len(intake.quotes) == 30


async def test_a_good_feed_passes(autojump_clock):
    intake = await check_feed(GoodFeed, {"key": 3}, ticks=20)
    assert len(intake.batches) == 10
    assert intake.published_at_s == [float(second) for second in range(10)]


async def test_a_feed_that_publishes_what_it_was_granted_passes(autojump_clock):
    intake = await check_feed(Modest, {}, ticks=100)
    assert len(intake.quotes) >= 100


class LooseConfig(GoodFeed):
    class Config(msgspec.Struct, frozen=True):
        pass


class CannotBeMade(GoodFeed):
    def __init__(self, config, intake):
        raise RuntimeError("no")


class NegativeSessions(GoodFeed):
    start_sessions = -1


class Raises(GoodFeed):
    async def run(self, publish):
        raise OSError("refused")


class Silent(GoodFeed):
    async def run(self, publish):
        await trio.sleep_forever()


class NothingAtAll(GoodFeed):
    async def run(self, publish):
        return


class NoBatch(GoodFeed):
    def ticks(self):
        return quotes()


class CannotTakeNone(GoodFeed):
    async def run(self, publish):
        symbols: list[Any] = [self.intake.symbol("A"), self.intake.symbol("B")]
        while True:
            publish(Batch(quotes(symbol=symbols[1] + 0)))
            await trio.sleep(1)


class CannotBeMadeWithOne(GoodFeed):
    def __init__(self, config, intake):
        self.intake = intake
        if intake.symbol("A") is None or intake.symbol("B") is None:
            raise ValueError("B")


class SlowToEnd(GoodFeed):
    async def run(self, publish):
        try:
            await super().run(publish)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)


class RaisesWhenCancelled(GoodFeed):
    async def run(self, publish):
        try:
            await super().run(publish)
        except trio.Cancelled:
            assert isinstance(self.intake, RecordingIntake)
            if len(self.intake.symbols) and len(self.intake.batches) == 1:
                raise RuntimeError("interrupted") from None
            raise


class NeverYields(GoodFeed):
    async def run(self, publish):
        self.intake.symbol("A")
        while True:
            publish(self.ticks())


class NotDone(GoodFeed):
    async def run(self, publish):
        self.intake.symbol("A")
        publish(self.ticks())
        trio.lowlevel.spawn_system_task(self.later, publish)

    async def later(self, publish):
        publish(self.ticks())


class Reuses(GoodFeed):
    def __init__(self, config, intake):
        super().__init__(config, intake)
        self.buffer = quotes()

    def ticks(self):
        self.buffer["g"] = self.buffer["n"] = 0
        self.buffer["bid_px"] += 1
        return Batch(self.buffer)


class Greedy(GoodFeed):
    async def run(self, publish):
        self.intake.symbol("A")
        while True:
            room = await self.intake.wait_room()
            publish(Batch(np.concatenate([quotes()] * (room + 1))))


class AsksOnce(GoodFeed):
    async def run(self, publish):
        self.intake.symbol("A")
        await self.intake.wait_room()
        while True:
            publish(Batch(quotes()))
            await trio.sleep(1)


class Modest(GoodFeed):
    async def run(self, publish):
        self.intake.symbol("A")
        while True:
            room = await self.intake.wait_room()
            publish(Batch(np.concatenate([quotes()] * room)))


def giving(batch):
    """A feed whose every batch is like ``batch``."""

    class Gives(GoodFeed):
        def ticks(self):
            return Batch(batch.quotes.copy(), batch.trades.copy())

    return Gives


BROKEN = [
    (2, LooseConfig),
    (3, CannotBeMade),
    (3, NegativeSessions),
    (4, Raises),
    (4, Silent),
    (4, NothingAtAll),
    (4, NoBatch),
    (5, giving(Batch(quotes(symbol=2)))),
    (5, giving(Batch(trades=trades(symbol=2)))),
    (6, giving(Batch(quotes(bid_sz=-1)))),
    (6, giving(Batch(quotes(ask_sz=float("nan"))))),
    (6, giving(Batch(trades=trades(size=float("inf"))))),
    (7, giving(Batch(quotes(ask_sz=0)))),
    (7, giving(Batch(quotes(bid_sz=-0.0, bid_px=-5)))),
    (8, giving(Batch(quotes(ts_event=NOW_NS // 1000)))),
    (8, giving(Batch(trades=trades(ts_recv=NOW_NS * 3)))),
    (9, giving(Batch(trades=trades(side=0)))),
    (16, giving(Batch(trades=trades(kind=3)))),
    (16, giving(Batch(trades=trades(cond=b'"')))),
    (10, giving(Batch(quotes(g=1)))),
    (10, giving(Batch(trades=trades(n=1)))),
    (11, CannotTakeNone),
    (11, CannotBeMadeWithOne),
    (12, SlowToEnd),
    (12, RaisesWhenCancelled),
    (12, NeverYields),
    (13, NotDone),
    (14, Reuses),
    (15, Greedy),
    (15, AsksOnce),
]


@pytest.mark.parametrize(("check", "feed_type"), BROKEN)
async def test_a_broken_feed_fails_the_check_with_its_number(autojump_clock, check, feed_type):
    with pytest.raises(AssertionError, match=rf"^check {check}, {CHECKS[check]}: ."):
        await check_feed(feed_type, {}, ticks=20)


async def test_settings_that_config_refuses_fail_check_1():
    with pytest.raises(AssertionError, match=r"^check 1, "):
        await check_feed(GoodFeed, {"key": "text"})


def test_every_check_has_a_broken_feed():
    assert {1} | {check for check, _ in BROKEN} == set(CHECKS)


async def test_a_missing_side_needs_no_price(autojump_clock):
    await check_feed(giving(Batch(quotes(bid_sz=0, bid_px=0), trades(ts_event=0))), {}, ticks=2)


async def test_negative_and_zero_prices_are_prices(autojump_clock):
    await check_feed(giving(Batch(quotes(bid_px=-37_630_000_000, ask_px=0), trades(price=-1))), {}, ticks=2)


async def test_a_recording_intake_keeps_copies_logs_and_counts():
    intake = RecordingIntake("mine", max_symbols=1)
    assert (intake.symbol("A"), intake.symbol("A"), intake.symbol("B")) == (0, 0, None)
    assert intake.symbol("not a symbol") is None
    intake.count("odd", 3)
    assert intake.events == {"symbols_full": 1, "invalid_symbol": 1, "odd": 3}
    batch = Batch(quotes(), trades(), np.array([1, 0], np.uint8))
    intake.publish(batch)
    batch.quotes["bid_px"] = 99
    assert intake.quotes["bid_px"].tolist() == [10]
    assert intake.trades["price"].tolist() == [10]
    channels = intake.batches[0].channels
    assert channels is not None
    assert channels.tolist() == [1, 0]
    intake.log.warning("something", at=3)
    assert intake.logged == [{"event": "something", "at": 3, "feed": "mine", "log_level": "warning"}]
