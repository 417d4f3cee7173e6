"""Supervision: restarts at exact times, states, and independence of feeds."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
import trio

from marketfeed.core.backoff import Backoff
from marketfeed.core.breaker import BreakerState
from marketfeed.errors import FeedProtocolError, SourceError
from marketfeed.ingest.supervise import (
    FIRST_DELAY_S,
    JITTER,
    MAX_DELAY_S,
    OPENS_AFTER,
    SETTLED_S,
    STALE_S,
    FeedState,
    Supervisor,
)


class Intake:
    """The parts of an intake that supervision uses."""

    def __init__(self, name="f"):
        self.ticks = [0, 0]
        self.log = structlog.get_logger().bind(feed=name)

    def publish(self, count):
        """Count quotes, given as a number in place of a batch."""
        self.ticks[0] += count


class Scripted:
    """Each run performs one step of the script: sleeps, then raises, or returns on None."""

    def __init__(self, *script, start_sessions=0):
        self.start_sessions = start_sessions
        self.started_at = []
        self._script = list(script)

    async def run(self, publish):
        self.started_at.append(trio.current_time())
        sleep_s, error = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        await trio.sleep(sleep_s)
        if error is not None:
            raise error


class Ticking:
    """Publishes at the given times after its start, then waits."""

    start_sessions = 0

    def __init__(self, *at_s):
        self._at_s = at_s

    async def run(self, publish):
        started_s = trio.current_time()
        for at_s in self._at_s:
            await trio.sleep_until(started_s + at_s)
            publish(1)
        await trio.sleep_forever()


async def no_sessions(count):
    raise AssertionError("nobody asked for sessions")


def supervisor(feed, share=0.5, wait_sessions=no_sessions, intake=None):
    """Supervise ``feed``; delays lie at ``share`` between the shortest and the longest."""
    backoff = Backoff(FIRST_DELAY_S, MAX_DELAY_S, (1 - JITTER, 1 + JITTER), lambda a, b: a + share * (b - a))
    stand_in: Any = intake or Intake()
    return Supervisor(feed, stand_in, wait_sessions, backoff)


async def run_for(seconds, *supervisors):
    """Run supervisors for ``seconds``; return their logs."""
    with structlog.testing.capture_logs() as logged, trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for one in supervisors:
                nursery.start_soon(one.run)
    return logged


@pytest.mark.parametrize("error", [OSError("refused"), FeedProtocolError("odd"), ZeroDivisionError()])
async def test_a_failing_feed_is_run_again_with_doubling_delay(autojump_clock, error):
    feed = Scripted((0, error))
    supervised = supervisor(feed)
    await run_for(110, supervised)
    assert feed.started_at == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5]
    assert feed.started_at[-1] - feed.started_at[-2] == MAX_DELAY_S
    assert supervised.failures == 9


@pytest.mark.parametrize(("share", "second_start"), [(1.0, 0.6), (0.0, 0.4)])
async def test_delays_vary_by_a_fifth(autojump_clock, share, second_start):
    feed = Scripted((0, OSError()), (0, None))
    await run_for(5, supervisor(feed, share))
    assert feed.started_at == pytest.approx([0, second_start])


async def test_delays_begin_anew_after_a_feed_ran_long_enough(autojump_clock):
    quick, long = (0, OSError()), (SETTLED_S, OSError())
    feed = Scripted(quick, quick, quick, long, quick, (0, None))
    await run_for(200, supervisor(feed))
    assert feed.started_at == [0, 0.5, 1.5, 3.5, 64.0, 65.0]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
async def test_the_breaker_of_a_venue_that_refuses_opens_and_changes_no_delay(autojump_clock, share):
    """It opens with the first of the longest delays, and every restart is a probe from then on."""
    feed = Scripted((0, OSError("refused")))
    supervised = supervisor(feed, share)
    factor = 1 - JITTER + share * 2 * JITTER
    last_s = factor * 31.5
    states = {}
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervised.run)
            for at_s in (last_s - 0.1, last_s + 0.1, last_s + 3595):
                await trio.sleep_until(at_s)
                states[at_s] = supervised.statistics()
            nursery.cancel_scope.cancel()
    before, opened, later = states.values()
    assert (before.state, before.failed, before.opened) == (BreakerState.CLOSED, OPENS_AFTER - 1, 0)
    assert (opened.state, opened.failed, opened.opened) == (BreakerState.OPEN, OPENS_AFTER, 1)
    assert later.state is not BreakerState.CLOSED
    assert later.failed == later.opened + OPENS_AFTER - 1 == len(feed.started_at)
    assert feed.started_at[OPENS_AFTER:] == pytest.approx(
        [last_s + n * factor * MAX_DELAY_S for n in range(1, len(feed.started_at) - OPENS_AFTER + 1)]
    )
    assert later.refused == 0


async def test_shorter_delays_of_a_backoff_wait_for_the_breaker(autojump_clock):
    feed = Scripted((0, OSError("refused")))
    stand_in: Any = Intake()
    await run_for(60, Supervisor(feed, stand_in, no_sessions, Backoff(1, 1, (1, 1))))
    assert feed.started_at == [0, 1, 2, 3, 4, 5, 6, 30, 54]


class Returns(Scripted):
    """Fails ``times``, then publishes after 2 s, and goes on."""

    def __init__(self, times, error=None):
        super().__init__(*[(0, OSError("refused"))] * times, (0, error))

    async def run(self, publish):
        await super().run(publish)
        await trio.sleep(2)
        publish(1)
        await trio.sleep_forever()


async def test_the_breaker_closes_with_the_first_tick_of_the_probe(autojump_clock):
    supervised = supervisor(Returns(OPENS_AFTER))
    states = []
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervised.run)
            for at_s in (40, 56, 62.5, 64):  # the probe begins at 61.5 s, the breaker is open until 55.5 s
                await trio.sleep_until(at_s)
                states.append(supervised.statistics().state.value)
            nursery.cancel_scope.cancel()
    assert states == ["open", "half-open", "half-open", "closed"]
    assert supervised.statistics().succeeded == 1


@pytest.mark.parametrize(("seconds", "succeeded"), [(SETTLED_S, 1), (SETTLED_S - 1, 0)])
async def test_a_run_without_ticks_succeeds_if_it_lasts(autojump_clock, seconds, succeeded):
    supervised = supervisor(Scripted((seconds, OSError()), (1000, None)))
    await run_for(100, supervised)
    found = supervised.statistics()
    assert (found.succeeded, found.failed) == (succeeded, 1 - succeeded)


async def test_a_source_that_is_broken_for_good_is_a_failed_call_however_late(autojump_clock):
    supervised = supervisor(Scripted((SETTLED_S, SourceError("day.csv:7: damaged"))))
    await run_for(100, supervised)
    assert supervised.statistics().failed == 1


async def test_a_feed_that_returns_is_done(autojump_clock):
    feed = Scripted((3, None))
    supervised = supervisor(feed)
    logged = await run_for(1000, supervised)
    assert feed.started_at == [0]
    assert supervised.state() is FeedState.DONE
    assert trio.current_time() == 3
    assert [line["event"] for line in logged] == ["feed done"]


async def test_a_feed_may_fail_and_then_be_done(autojump_clock):
    feed = Scripted((1, OSError()), (1, None))
    supervised = supervisor(feed)
    await run_for(100, supervised)
    assert feed.started_at == [0, 1.5]
    assert supervised.state() is FeedState.DONE
    assert supervised.failures == 1


async def test_expected_failures_are_warnings_and_unexpected_ones_are_errors_with_a_traceback(autojump_clock):
    feed = Scripted((0, OSError("refused")), (0, FeedProtocolError("odd")), (0, KeyError("k")), (0, None))
    logged = await run_for(60, supervisor(feed))
    assert [(line["event"], line["log_level"]) for line in logged] == [
        ("feed failed", "warning"),
        ("feed failed", "warning"),
        ("feed failed unexpectedly", "error"),
        ("feed done", "info"),
    ]
    assert [line["error"] for line in logged[:2]] == ["OSError: refused", "FeedProtocolError: odd"]
    assert logged[2]["exc_info"]


async def test_a_group_of_errors_from_a_feeds_own_nursery_restarts_it_too(autojump_clock):
    feed = Scripted((0, ExceptionGroup("tasks", [OSError("refused")])), (0, None))
    supervised = supervisor(feed)
    await run_for(60, supervised)
    assert feed.started_at == [0, 0.5]
    assert supervised.state() is FeedState.DONE


@pytest.mark.parametrize(
    "error", [SourceError("day.csv:7: damaged"), ExceptionGroup("tasks", [OSError(), SourceError("x")])]
)
async def test_a_feed_whose_source_is_broken_for_good_is_not_run_again(autojump_clock, error):
    feed = Scripted((1, error))
    supervised = supervisor(feed)
    logged = await run_for(1000, supervised)
    assert trio.current_time() == 1
    assert feed.started_at == [0]
    assert supervised.state() is FeedState.FAILED
    assert supervised.failures == 1
    (line,) = logged
    assert (line["event"], line["log_level"], line["exc_info"]) == ("feed failed for good", "error", None)
    assert str(_last(error)) in line["error"]


def _last(error):
    return error.exceptions[-1] if isinstance(error, ExceptionGroup) else error


async def test_a_fault_of_a_decoder_is_logged_with_its_traceback(autojump_clock):
    error = SourceError("day.csv:7: KeyError")
    error.__cause__ = KeyError("k")
    (line,) = await run_for(9, supervisor(Scripted((0, error))))
    assert line["exc_info"] is error


async def test_other_feeds_go_on(autojump_clock):
    well = Intake("well")
    ill, good = supervisor(Scripted((0, ZeroDivisionError()))), supervisor(Ticking(*range(60)), intake=well)
    await run_for(59.5, ill, good)
    assert well.ticks == [60, 0]
    assert good.failures == 0


async def test_each_state_has_the_time_at_which_it_began(autojump_clock):
    """Ticks at 2 and 4 s, and again from 20 s on; then it fails at 30 s, and once more at once."""

    class Patchy(Ticking):
        async def run(self, publish):
            with trio.move_on_after(30):
                await super().run(publish)
            raise OSError

    supervised = supervisor(Patchy(2, 4, 20, 22))
    seen = []
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervised.run)
            for one_s in (1, 3, 5, 15, 21, 30.25, 31):
                await trio.sleep_until(one_s)
                seen.append((supervised.state().value, supervised.since_s()))
            nursery.cancel_scope.cancel()
    assert seen == [
        ("starting", 0),
        ("live", 2),
        ("live", 2),
        ("stale", 4 + STALE_S),
        ("live", 20),
        ("down", 30),
        ("starting", 30.5),
    ]


async def test_waiting_for_sessions_counts_as_starting_from_the_start(autojump_clock):
    async def wait_sessions(count):
        await trio.sleep(7)

    supervised = supervisor(Scripted((100, None), start_sessions=1), wait_sessions=wait_sessions)
    await trio.sleep(3)
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervised.run)
            await trio.sleep(2)
            assert (supervised.state(), supervised.since_s()) == (FeedState.STARTING, 3)
            nursery.cancel_scope.cancel()


async def state_at(supervised, *at_s):
    """Return the states at the given times, then cancel the feed."""
    seen = []
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervised.run)
            for one_s in at_s:
                await trio.sleep_until(one_s)
                seen.append(supervised.state().value)
            nursery.cancel_scope.cancel()
    return seen


async def test_starting_then_live_then_stale_then_live_again(autojump_clock):
    supervised = supervisor(Ticking(5, 30))
    assert supervised.state() is FeedState.STARTING
    times = [1, 4.5, 5.5, 14, 16, 29, 30.5, 39, 41]
    assert await state_at(supervised, *times) == [
        "starting",
        "starting",
        "live",
        "live",
        "stale",
        "stale",
        "live",
        "live",
        "stale",
    ]


async def test_a_feed_is_stale_though_nobody_looked_between(autojump_clock):
    assert await state_at(supervisor(Ticking(1)), 1 + STALE_S + 100) == ["stale"]


async def test_down_between_two_runs_and_starting_until_the_next_tick(autojump_clock):
    class Drops:
        start_sessions = 0

        async def run(self, publish):
            await trio.sleep(1)
            publish(1)
            await trio.sleep(1)
            raise OSError

    seen = await state_at(supervisor(Drops()), 0.75, 1.25, 2.25, 2.75, 3.75, 4.75)
    assert seen == ["starting", "live", "down", "starting", "live", "down"]


async def test_a_feed_waits_for_its_sessions_and_only_once(autojump_clock):
    asked = []

    async def ten_seconds(count):
        asked.append(count)
        await trio.sleep(10)

    feed = Scripted((0, OSError()), (0, None), start_sessions=3)
    supervised = supervisor(feed, wait_sessions=ten_seconds)
    assert await state_at(supervised, 9) == ["starting"]
    assert feed.started_at == []
    await run_for(60, supervised)
    assert asked == [3, 3]
    assert feed.started_at == [19, 19.5]


async def test_cancellation_ends_a_feed_at_once_and_logs_nothing(autojump_clock):
    logged = await run_for(7, supervisor(Ticking(1)))
    assert trio.current_time() == 7
    assert logged == []
