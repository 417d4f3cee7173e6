"""The synthetic feed: the same ticks for the same seed, at exactly the configured rate."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import trio

from marketfeed.core.records import BUY, SELL, TRADES, Batch
from marketfeed.errors import ConfigError
from marketfeed.feeds.synthetic import BLOCK, MAX_BEHIND_S, SyntheticConfig, SyntheticFeed
from marketfeed.testing import RecordingIntake

NOW_NS = 1_725_000_000 * 10**9


def make(intake=None, **settings):
    config = msgspec.convert(settings, SyntheticConfig)
    return SyntheticFeed(config, intake or RecordingIntake(), lambda: NOW_NS)


def ticks_of(batches):
    """Return both channels of consecutive batches as one sequence, without times."""
    sequence = []
    for batch in batches:
        channels = iter(batch.channels.tolist())
        parts = (iter(batch.quotes.tolist()), iter(batch.trades.tolist()))
        sequence += [(channel, next(parts[channel])[3:]) for channel in channels]
    return sequence


async def run_for(feed, seconds, publish):
    with trio.move_on_after(seconds):
        await feed.run(publish)


def some_blocks(count, **settings):
    blocks = make(**settings).blocks()
    return [next(blocks) for _ in range(count)]


@pytest.mark.slow
async def test_the_same_seed_gives_the_same_ticks_in_whatever_batches(autojump_clock):
    sequences = []
    for rate, seconds in ((500, 30), (5000, 3), (50_000, 0.3)):
        intake = RecordingIntake()
        await run_for(make(intake, rate=rate, symbols=20, seed=7), seconds, intake.publish)
        sequences.append(ticks_of(intake.batches))
    shortest = min(map(len, sequences))
    assert shortest > BLOCK  # across blocks
    assert sequences[0][:shortest] == sequences[1][:shortest] == sequences[2][:shortest]
    assert (
        sequences[0][:shortest] == ticks_of(some_blocks(shortest // BLOCK + 1, symbols=20, seed=7))[:shortest]
    )


def test_another_seed_gives_other_ticks():
    assert ticks_of(some_blocks(1, seed=1)) == ticks_of(some_blocks(1, seed=1))
    assert ticks_of(some_blocks(1, seed=1)) != ticks_of(some_blocks(1, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "seconds"), [(100, 60), (10_000, 20), (1_000_000, 2), (0.5, 60), (333.3, 60)]
)
@pytest.mark.parametrize("trades", [0, 0.1])
async def test_the_rate_is_held_without_drift(autojump_clock, rate, seconds, trades):
    intake = RecordingIntake()
    feed = make(intake, rate=rate, trades=trades)
    per_s = rate * (1 + trades)
    start_s, published = trio.current_time(), 0

    def publish(batch):
        nonlocal published
        published += len(batch)
        # The first tick is due at once, and no tick is early.
        assert published <= (trio.current_time() - start_s) * per_s + 1 + 1e-6

    await run_for(feed, seconds, publish)
    assert abs(published - seconds * per_s) <= max(1, per_s * 0.001) + 1
    assert not intake.events


async def test_a_quiet_feed_publishes_tick_by_tick(autojump_clock):
    intake = RecordingIntake()
    await run_for(make(intake, rate=4, trades=0), 2.1, intake.publish)
    assert intake.published_at_s == pytest.approx([0.25 * tick for tick in range(9)])
    assert [len(batch) for batch in intake.batches] == [1] * 9


@pytest.mark.slow
async def test_what_the_machine_could_not_do_is_given_up_and_counted(autojump_clock):
    intake = RecordingIntake()
    feed = make(intake, rate=1000, trades=0)
    stalls = iter([True])

    def publish(batch):
        intake.publish(batch)
        if trio.current_time() >= 1 and next(stalls, False):
            autojump_clock.jump(5)

    await run_for(feed, 10, publish)
    assert intake.events["behind"] == pytest.approx((5 - MAX_BEHIND_S) * 1000, abs=5)
    assert len(intake.quotes) + intake.events["behind"] == pytest.approx(10_000, abs=5)


@pytest.mark.slow
async def test_a_short_stall_is_made_up_for(autojump_clock):
    intake = RecordingIntake()
    stalls = iter([True])

    def publish(batch):
        intake.publish(batch)
        if trio.current_time() >= 1 and next(stalls, False):
            autojump_clock.jump(MAX_BEHIND_S / 2)

    await run_for(make(intake, rate=1000, trades=0), 10, publish)
    assert not intake.events
    assert len(intake.quotes) == pytest.approx(10_000, abs=3)


def test_ticks_are_stamped_with_the_time_of_publishing():
    batch = some_blocks(1)[0]
    published: list[int] = []
    make()._publish(batch, published.append)
    assert set(batch.quotes["ts_event"]) == set(batch.quotes["ts_recv"]) == {NOW_NS}
    assert set(batch.trades["ts_event"]) == set(batch.trades["ts_recv"]) == {NOW_NS}
    assert published == [batch]


def joined(blocks):
    return Batch(np.concatenate([b.quotes for b in blocks]), np.concatenate([b.trades for b in blocks]))


def test_uniform_activity_is_even_and_zipf_is_not():
    for activity, shares in (("uniform", [0.1] * 10), ("zipf", 1 / np.arange(1, 11))):
        quotes = joined(some_blocks(20, symbols=10, activity=activity)).quotes
        seen = np.bincount(quotes["symbol"], minlength=10) / len(quotes)
        assert seen == pytest.approx(np.array(shares) / np.sum(shares), rel=0.05)


@pytest.mark.parametrize("symbols", [1, 30])
def test_spreads_are_positive_prices_whole_cents_and_both_sides_there(symbols):
    # Enough ticks of few symbols for the walk to reach its lowest price.
    quotes = joined(some_blocks(60, symbols=symbols, seed=3)).quotes
    assert (quotes["ask_px"] > quotes["bid_px"]).all()
    assert (quotes["bid_px"] >= 10**9).all()
    assert not (quotes["bid_px"] % 10**7).any()
    assert (quotes["bid_sz"] > 0).all()
    assert (quotes["ask_sz"] > 0).all()


def test_each_symbol_walks_a_cent_at_a_time_over_the_edges_of_blocks():
    quotes = joined(some_blocks(10, symbols=5, trades=0)).quotes
    for symbol in range(5):
        steps = np.diff(quotes["bid_px"][quotes["symbol"] == symbol]) // 10**7
        assert set(steps.tolist()) == {-1, 0, 1}


def test_trades_are_at_the_touch_and_numbered():
    batch = joined(some_blocks(5, symbols=1, trades=1))
    trades = batch.trades
    assert trades["trade_id"].tolist() == list(range(1, len(trades) + 1))
    assert set(trades["side"].tolist()) == {BUY, SELL}
    (block,) = some_blocks(1, symbols=1, trades=1)
    touch, parts = None, (iter(block.quotes), iter(block.trades))
    for channel in block.channels.tolist():
        tick = next(parts[channel])
        if channel != TRADES:
            touch = tick
        elif touch is not None:
            assert tick["price"] == touch["ask_px" if tick["side"] == BUY else "bid_px"]


@pytest.mark.parametrize("share", [0, 0.1, 1, 10])
def test_the_share_of_trades(share):
    batch = joined(some_blocks(30, trades=share))
    assert len(batch.trades) / len(batch.quotes) == pytest.approx(share, rel=0.03)


def test_names():
    for settings, names in (
        ({"symbols": 2}, ["SY0000", "SY0001"]),
        ({"symbols": 2, "prefix": "X"}, ["X0000", "X0001"]),
        ({"symbols": ["AAPL", "BTC-USD"]}, ["AAPL", "BTC-USD"]),
    ):
        intake = RecordingIntake()
        make(intake, **settings)
        assert intake.symbols.names() == names


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"symbols": []}, ["symbols: at least one name, or a number"]),
        (
            {"symbols": ["A", "A B", "", "A" * 25, "B", "A"]},
            [
                'symbols.1: "A B" is no symbol: 1 to 24 printable ASCII characters without space',
                'symbols.2: "" is no symbol: ',
                f'symbols.3: "{"A" * 25}" is no symbol: ',
                "symbols.5: A is symbols.0 too",
            ],
        ),
        ({"symbols": 5}, ["symbols: 5 are too many: engine.max_symbols leaves room for 4"]),
        ({"symbols": [*"ABCDE"]}, ["symbols: 5 are too many: engine.max_symbols leaves room for 4"]),
        ({"prefix": "S,"}, ['prefix: "S," is no valid start of a symbol: 1 to 24']),
    ],
)
def test_symbols_that_cannot_be_are_a_configuration_error(settings, told):
    with pytest.raises(ConfigError) as caught:
        make(RecordingIntake(max_symbols=4), **settings)
    assert len(caught.value.mistakes) == len(told)
    assert all(line.startswith(text) for line, text in zip(caught.value.mistakes, told, strict=True))


def test_of_many_wrong_names_the_first_ten_are_named_and_the_others_counted():
    with pytest.raises(ConfigError) as caught:
        make(symbols=[f"no {number}" for number in range(1000)])
    assert len(caught.value.mistakes) == 11
    assert caught.value.mistakes[-1] == "symbols: and 990 further mistakes like these"


def test_it_can_be_told_to_wait_for_sessions():
    assert make().start_sessions == 0
    assert make(start_sessions=3).start_sessions == 3
