"""Replacement of feeds by their tables: unchanged feeds keep running, and a mistake changes nothing."""

from __future__ import annotations

import gzip

import pytest
import trio
import trio.testing

from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import ConfigError
from marketfeed.ingest.pump import MAX_FEEDS, Pump
from marketfeed.ingest.roster import Roster
from marketfeed.ingest.supervise import FeedState


def table(name, symbol, **keys):
    return {"name": name, "type": "synthetic", "symbols": [symbol], "rate": 100.0} | keys


class OpenRoster(Roster):
    """A Roster that shows what it was made of."""

    rings: Rings
    pump: Pump


@pytest.fixture
def roster(tmp_path):
    async def no_sessions(count):
        raise AssertionError("nobody asked for sessions")

    rings = Rings.private(64, 64)
    pump = Pump(RingWriter(rings), SymbolTable(64), lambda: None)
    made = OpenRoster(pump, tmp_path, no_sessions)
    made.rings, made.pump = rings, pump
    return made


def published(roster):
    return {
        name: int(roster.rings.published(0)[number])
        for number, name in enumerate(roster.pump.symbols.names())
    }


async def exchange(roster, nursery, *tables):
    roster.plan(tables)
    await roster.apply(nursery)
    before = published(roster)
    await trio.sleep(1)
    return {name for name, n in published(roster).items() if n > before.get(name, 0)}


async def test_feeds_come_and_go_and_change_while_others_run_on(roster, autojump_clock):
    async with trio.open_nursery() as nursery:
        assert await exchange(roster, nursery, table("a", "A"), table("b", "B")) == {"A", "B"}
        a = roster.supervisors[0]
        assert await exchange(roster, nursery, table("c", "C"), table("a", "A")) == {"A", "C"}
        assert [s.intake.name for s in roster.supervisors] == ["c", "a"]
        assert roster.supervisors[1] is a
        assert await exchange(roster, nursery, table("a", "A2"), table("c", "C")) == {"A2", "C"}
        assert roster.supervisors[0].feed is not a.feed
        assert roster.supervisors[0].intake is a.intake
        assert roster.supervisors[0].intake.ticks[0] > 250
        assert await exchange(roster, nursery) == set()
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_numbers_of_feeds_that_are_gone_are_given_again(roster, autojump_clock):
    async with trio.open_nursery() as nursery:
        for round_ in range(4):
            await exchange(
                roster, nursery, *(table(f"f{round_}-{i}", f"S{i % 30}", rate=2.0) for i in range(100))
            )
            assert sorted(s.intake.number for s in roster.supervisors) == sorted(
                {s.intake.number for s in roster.supervisors}
            )
            assert max(s.intake.number for s in roster.supervisors) < MAX_FEEDS
        nursery.cancel_scope.cancel()


async def test_a_mistake_or_a_plan_that_is_forgotten_leaves_everything_as_it_is(roster, autojump_clock):
    async with trio.open_nursery() as nursery:
        await exchange(roster, nursery, table("a", "A"))
        (a,) = roster.supervisors
        with pytest.raises(ConfigError, match=r"feeds\.1\.rate"):
            roster.plan([table("b", "B"), table("c", "C", rate=-1)])
        roster.plan([table("b", "B")])
        assert roster.planned == ["b"]
        roster.forget()
        assert roster.supervisors == [a]
        assert len(roster.pump.feeds) == 1
        before = published(roster)["A"]
        await trio.sleep(1)
        assert published(roster)["A"] > before
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rate": "10", "rte": 1, "symbols": ["A B"]}, ["rate", "rte", "symbols.0"]),
        ({"rate": 0, "symbols": ["A", 1]}, ["rate", "symbols.1"]),
        ({"type": "replay", "path": "gone", "speed": -1, "format": "xml"}, ["speed", "format"]),
        ({"type": "replay", "speed": -1, "path": "gone.gz"}, ["speed", "path"]),
        (
            {"type": "replay", "path": "gone", "loop": 1, "format": "dbn", "header": True},
            ["loop", "header", "path"],
        ),
        (
            {
                "type": "replay",
                "path": "gone.csv",
                "format": "csv",
                "zone": "Mars",
                "columns": {"time": 0, "bidd": 1},
                "symbol": "A",
            },
            ["columns.bidd", "zone", "path"],
        ),
        ({"type": "push", "max_publishers": 0, "listen": "no/where.sock"}, ["max_publishers", "listen"]),
        ({"name": 1, "type": "push", "listen": "x"}, ["name", "listen"]),
    ],
)
def test_a_wrong_key_hides_no_other_mistake_of_its_table(roster, wrong, told):
    with pytest.raises(ConfigError) as caught:
        roster.plan([{"name": "a", "type": "synthetic"} | wrong])
    paths = [mistake.partition(": ")[0].removeprefix("feeds.0.") for mistake in caught.value.mistakes]
    assert paths == told


def test_what_a_file_holds_is_not_judged_by_a_table_with_mistakes(roster, tmp_path):
    (tmp_path / "a.csv").write_text("1700000000000,1.5\n")
    right = {"type": "replay", "path": "a.csv", "format": "csv", "symbol": "A"}
    columns = {"time": 0, "price": 1}
    with pytest.raises(ConfigError, match="a time before 1980"):
        roster.plan([right | {"columns": columns}])
    with pytest.raises(ConfigError) as caught:
        roster.plan([right | {"columns": columns, "time": "msec"}])
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("feeds.0.time: must be one of ")


@pytest.mark.slow
async def test_more_feeds_at_a_time_than_a_record_can_name_are_refused(roster, autojump_clock):
    async with trio.open_nursery() as nursery:
        await exchange(roster, nursery, *(table(f"a{i}", "A") for i in range(200)))
        with pytest.raises(ConfigError, match="at most 255 at a time"):
            roster.plan([table(f"b{i}", "B") for i in range(100)])
        assert len(roster.pump.feeds) == 200
        nursery.cancel_scope.cancel()


async def test_a_failed_feed_is_run_again_by_a_reload_once_its_file_is_mended(
    roster, tmp_path, autojump_clock
):
    whole = gzip.compress(b"".join(b"%d,1.25\n" % (10**18 + n) for n in range(100)))
    (tmp_path / "day.csv.gz").write_bytes(whole[:-8])
    feed = {
        "name": "day", "type": "replay", "format": "csv", "path": "day.csv.gz", "symbol": "A",
        "columns": {"time": 0, "price": 1},
    }  # fmt: skip

    def state():
        return {s.intake.name: s.state() for s in roster.supervisors}["day"]

    async with trio.open_nursery() as nursery:
        await exchange(roster, nursery, feed, table("b", "B"))
        assert state() is FeedState.FAILED
        (tmp_path / "day.csv.gz").write_bytes(b"junk")  # it stays failed, and other feeds can be replaced
        assert await exchange(roster, nursery, feed, table("c", "C")) == {"C"}
        assert state() is FeedState.FAILED
        (tmp_path / "day.csv.gz").write_bytes(whole)
        await exchange(roster, nursery, feed, table("c", "C"))
        assert state() is FeedState.DONE
        (day,) = (s.intake for s in roster.supervisors if s.intake.name == "day")
        assert day.ticks == [0, 200]
        await exchange(roster, nursery, feed, table("c", "C"))
        assert day.ticks == [0, 200]  # a finished feed is not run again
        nursery.cancel_scope.cancel()
