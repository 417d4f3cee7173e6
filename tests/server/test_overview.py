"""What the engine's own process tells routes: states of feeds with stable times, where the admin port is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from marketfeed.core.units import S
from marketfeed.errors import SourceError
from marketfeed.fanout.ledger import Ledger
from marketfeed.ingest.supervise import STALE_S, FeedState, Supervisor
from marketfeed.server.overview import FRESH_S, REASONS, EngineOverview

WALL_S = 1_700_000_000


class Clock:
    """A Unix clock that readings move on by a microsecond each, as two clocks are never read at one time."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self) -> int:
        self.read += 1
        return int((WALL_S + trio.current_time()) * S) + self.read * 1000


class Intake:
    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name
        self.ticks = [0, 0]
        self.log = structlog.get_logger()

    def publish(self, batch: object) -> None:
        """Take what a feed publishes."""


class Feed:
    """Publishes once, and ends as told after a time."""

    start_sessions = 0

    def __init__(self, runs_s: float, error: Exception | None = None) -> None:
        self._runs_s, self._error = runs_s, error

    async def run(self, publish: Any) -> None:
        publish(None)
        await trio.sleep(self._runs_s)
        if self._error is not None:
            raise self._error


class Roster:
    def __init__(self, **feeds: Feed) -> None:
        self.supervisors = [
            Supervisor(feed, Intake(number, name), trio.sleep)  # type: ignore[arg-type]
            for number, (name, feed) in enumerate(feeds.items())
        ]


class Aggregator:
    """Has measured the tier vip, each time something else."""

    def __init__(self) -> None:
        self.asked = 0

    def shown(self, unmeasured: Any) -> dict[str, Any]:
        self.asked += 1
        return {"tiers": {tier: {"asked": self.asked} for tier in ("vip", *unmeasured)}}


class Server:
    def __init__(self, **ledgers: Ledger) -> None:
        self._ledgers = ledgers

    async def ledgers(self) -> dict[str, Ledger]:
        await trio.sleep(0.25)
        return self._ledgers


@pytest.fixture
def overview():
    return EngineOverview(aggregator=Aggregator(), wall_ns=Clock())  # type: ignore[arg-type]


async def test_states_have_the_unix_time_of_their_beginning_and_keep_it(autojump_clock, overview):
    secret = Path("/srv/secret/day.csv")
    overview.roster = Roster(
        good=Feed(9.0), quiet=Feed(1000), ill=Feed(2.0, OSError(f"{secret}: refused")),
        broken=Feed(3.0, SourceError(f"{secret}:7: damaged")),
    )  # fmt: skip
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            for one in overview.roster.supervisors:
                nursery.start_soon(one.run)
            await trio.sleep(2.25)
            first = await overview.engine()
            assert [(one.number, one.feed, one.state) for one in first.feeds] == [
                (0, "good", "live"),
                (1, "quiet", "live"),
                (2, "ill", "down"),
                (3, "broken", "live"),
            ]
            assert [one.since // 1_000_000 - WALL_S for one in first.feeds] == [0, 0, 2, 0]
            assert (await overview.engine()) == first
            await trio.sleep_until(STALE_S + 1)
            later = await overview.engine()
            assert [one.state for one in later.feeds][:2] == ["done", "stale"]
            assert [one.since // 1_000_000 - WALL_S for one in later.feeds][:2] == [9, STALE_S]
            assert (later.feeds[3].state, later.feeds[3].since // 1_000_000) == ("failed", WALL_S + 3)
            assert [one.reason for one in first.feeds] == [None, None, REASONS[FeedState.DOWN], None]
            assert not any(str(secret) in str(one) for one in (*first.feeds, *later.feeds))
            nursery.cancel_scope.cancel()


async def test_a_feed_that_is_gone_is_forgotten(overview):
    assert (await overview.engine()).feeds == ()  # before the roster is there
    overview.roster = Roster(a=Feed(1), b=Feed(1))
    assert [one.feed for one in (await overview.engine()).feeds] == ["a", "b"]
    overview.roster = Roster(b=Feed(1))
    assert [one.feed for one in (await overview.engine()).feeds] == ["b"]
    assert overview._since.keys() == {"b"}


@pytest.mark.parametrize(
    ("host", "token", "shown"),
    [
        ("127.0.0.1", False, ("127.0.0.1", 8766)),
        ("::1", False, ("::1", 8766)),
        ("localhost", False, ("localhost", 8766)),
        ("127.0.0.1", True, None),
        ("0.0.0.0", False, None),
        ("10.1.2.3", False, None),
        ("feed.example.com", False, None),
    ],
)
async def test_the_admin_port_is_shown_on_loopback_and_without_token(overview, host, token, shown):
    assert (await overview.engine()).admin is None
    overview.serve_admin(host, 8766, lambda: token)
    assert (await overview.engine()).admin == shown


def test_each_state_but_live_has_a_reason():
    assert REASONS.keys() == set(FeedState) - {FeedState.LIVE}


async def test_latencies_come_with_ledgers_and_are_collected_once_a_second(autojump_clock, overview):
    overview.server = Server(basic=Ledger(matched=9, delivered=4, conflated=3, lost=1, pending=1))
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await overview.latency())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert trio.current_time() == 0.25
    await trio.sleep(FRESH_S - 0.01)
    await ask()
    assert [one["tiers"]["vip"]["asked"] for one in answers] == [1, 1, 1, 1]
    await trio.sleep(0.01)
    await ask()
    zeros = dict.fromkeys(("matched", "delivered", "conflated", "lost", "pending", "abandoned"), 0)
    counts = {"matched": 9, "delivered": 4, "conflated": 3, "lost": 1, "pending": 1}
    assert answers[-1]["tiers"] == {
        "vip": {"asked": 2, "ledger": zeros},
        "basic": {"asked": 2, "ledger": zeros | counts},
    }
