"""Ready is whether subscribers can be served; whatever else is wrong is a warning."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from marketfeed.admin.health import KINDS, Health, Phase
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.ingest.pump import Pump
from marketfeed.ingest.roster import Roster
from marketfeed.ingest.supervise import STALE_S
from marketfeed.latency.aggregator import Aggregator
from marketfeed.latency.log import IntervalLog
from marketfeed.server.conditions import Condition
from marketfeed.server.tap_listener import Taps


class Server:
    """A server that has these problems and warnings."""

    def __init__(self):
        self.found: tuple[list[str], list[str]] = ([], [])
        self.roster: Any = None
        self.symbols: Any = None

    def problems(self):
        return self.found[0]

    def warnings(self):
        return self.found[1]


class Bench:
    """A Health over real parts, and what they are made of."""

    def __init__(self, folder, tap=None, max_symbols=4):
        self.folder = folder
        self.rings = Rings.private(max_symbols, 8)
        self.symbols = SymbolTable(max_symbols)
        self.server = Server()
        self.taps = Taps(self.rings, tap, 1)
        self.log = IntervalLog(folder / "var" / "latency.hlog", 1 << 20, 1)
        self.roster = Roster(
            Pump(RingWriter(self.rings), self.symbols, lambda: None), folder, self.wait_sessions
        )
        aggregator = Aggregator(self.log, {})
        self.server.roster, self.server.symbols = self.roster, self.symbols
        self.alert_problem: str | None = None
        self.failed_rules: dict[str, str] = {}
        self.failing_escalations: dict[str, str] = {}
        alerting: Any = SimpleNamespace(
            problem=lambda: self.alert_problem,
            failed_rules=lambda: self.failed_rules,
            failing_escalations=lambda: self.failing_escalations,
        )
        self.access_troubles: dict[str, str] = {}
        access: Any = SimpleNamespace(troubles=lambda: self.access_troubles)
        self.metering = SimpleNamespace(problem=None)
        metering: Any = self.metering
        lives: Any = self.server
        self.health = Health(lives, aggregator, self.taps, alerting, metering, access)
        self.health.phase = Phase.SERVING

    async def wait_sessions(self, count):
        await trio.sleep_forever()

    async def apply(self, nursery, *tables):
        self.roster.plan(tables)
        await self.roster.apply(nursery)

    @property
    def told(self):
        health = self.health
        return health.status(), [c.kind for c in health.problems()], [c.kind for c in health.warnings()]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


PUSH = {"type": "push", "listen": "./push.sock"}


def test_with_nothing_wrong_it_is_ready(bench):
    assert bench.told == ("ready", [], [])


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING])
def test_before_and_after_it_serves_it_is_not_ready(bench, phase):
    bench.health.phase = phase
    assert bench.health.status() == phase.value


def test_a_log_that_cannot_be_written_is_a_warning_and_the_engine_stays_ready(bench):
    (bench.folder / "var").write_text("a file where a folder should be")
    bench.log.write([], 0)
    assert bench.told == ("ready", [], ["latency_log"])
    assert "latency.hlog: " in bench.health.warnings()[0].text


async def test_a_push_feed_without_publishers_is_a_warning(bench, nursery, autojump_clock):
    await bench.apply(nursery, PUSH)
    await trio.sleep(STALE_S / 2)
    assert bench.told == ("ready", [], [])
    await trio.sleep(STALE_S)
    assert bench.told == ("ready", [], ["feed_stale"])
    assert bench.health.warnings()[0].subject == "push"


async def test_a_required_feed_that_is_stale_makes_the_engine_not_ready(bench, nursery, autojump_clock):
    await bench.apply(nursery, PUSH | {"required": True}, {"type": "synthetic", "symbols": 2, "rate": 10.0})
    await trio.sleep(STALE_S / 2)
    assert bench.told == ("ready", [], [])
    await trio.sleep(STALE_S)
    assert bench.told == ("not ready", ["feed_stale"], [])
    assert bench.health.feeds() == {"push": "stale", "synthetic": "live"}


async def test_a_feed_that_is_down_is_a_problem_only_where_it_is_required(bench, nursery, autojump_clock):
    (bench.folder / "push.sock").write_text("no socket")
    for required in (True, False, True):
        await bench.apply(nursery, PUSH | {"required": required})
        await trio.sleep(1)
        assert bench.told == (("not ready", ["feed_down"], []) if required else ("ready", [], ["feed_down"]))


async def test_a_change_of_required_alone_lets_the_feed_run_on(bench, nursery, autojump_clock):
    feed = {"type": "synthetic", "symbols": 2, "rate": 10.0}
    await bench.apply(nursery, feed)
    (before,) = bench.roster.supervisors
    await bench.apply(nursery, feed | {"required": True})
    assert bench.roster.supervisors == [before]
    assert bench.roster.required == {"synthetic"}


async def test_a_required_feed_that_waits_for_sessions_is_no_problem(bench, nursery, autojump_clock):
    await bench.apply(nursery, {"type": "synthetic", "symbols": 2, "start_sessions": 1, "required": True})
    await trio.sleep(10 * STALE_S)
    assert bench.told == ("ready", [], [])


def test_a_full_symbol_table_and_a_failed_reload_are_warnings(bench):
    for name in "ABCD":
        bench.symbols.intern(name)
    bench.health.reload_failure = "c.toml: gateway.port: cannot change without a restart"
    assert bench.told == ("ready", [], ["symbols_full", "reload"])
    assert bench.health.warnings()[1].text == f"reload: {bench.health.reload_failure}"


async def test_a_tap_whose_socket_is_gone_or_anothers_is_a_warning(tmp_path):
    bench = Bench(tmp_path, tap=tmp_path / "tap.sock")
    with bench.taps.open():
        assert bench.told == ("ready", [], [])
        (tmp_path / "tap.sock").unlink()
        assert bench.told == ("ready", [], ["tap"])
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.bind(str(tmp_path / "tap.sock"))
            assert bench.health.warnings()[0].text.endswith("tap.sock is another process's now")


def test_without_a_worker_it_is_not_ready_and_with_one_of_two_it_is(bench):
    bench.server.found = ([], [Condition("worker_down", "1", "worker 1 is down")])
    assert bench.told == ("ready", [], ["worker_down"])
    bench.server.found = ([Condition("no_worker", "", "no worker takes connections")], [])
    assert bench.told == ("not ready", ["no_worker"], [])
    assert {"worker_down", "no_worker"} <= set(KINDS)


def test_an_alert_log_that_cannot_be_written_makes_the_engine_not_ready(bench):
    bench.alert_problem = "var/alerts.db: the disk is full"
    assert bench.told == ("not ready", ["alert_log"], [])
    (problem,) = bench.health.problems()
    assert problem.text == "alert log: var/alerts.db: the disk is full"
    bench.alert_problem = None
    assert bench.told == ("ready", [], [])


def test_an_alert_rule_that_failed_is_a_warning(bench):
    bench.failed_rules = {"mine": "KeyError: 3"}
    assert bench.told == ("ready", [], ["alert_rule"])
    (warning,) = bench.health.warnings()
    assert warning == ("alert_rule", "mine", "alert rule mine failed, and is off: KeyError: 3")


def test_an_escalation_that_fails_is_a_warning(bench):
    bench.failing_escalations = {"desk": "fails: HTTP status 500"}
    assert bench.told == ("ready", [], ["escalation"])
    (warning,) = bench.health.warnings()
    assert warning == ("escalation", "desk", "escalation desk fails: HTTP status 500")


def test_keys_that_cannot_be_fetched_and_revocations_that_cannot_be_kept_are_warnings(bench):
    bench.access_troubles = {"jwks": "login.example.com: HTTP status 500", "revocations": "the disk is full"}
    assert bench.told == ("ready", [], ["jwks", "revocations"])
    assert bench.health.warnings()[0].text == "jwks: login.example.com: HTTP status 500"
    assert set(bench.access_troubles) <= set(KINDS)
