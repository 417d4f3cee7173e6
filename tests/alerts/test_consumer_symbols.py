"""Symbols of a durable consumer: what its sessions may see, and who may use it at the same time."""

from __future__ import annotations

import os
import random
from itertools import count

import msgspec
import pytest
import trio

from marketfeed.alerts.active import POLL_GONE_S, POLLING
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.log import Consumer, Entry
from marketfeed.alerts.patterns import symbol_set
from marketfeed.alerts.service import AlertRefusedError
from marketfeed.errors import AlertLogError
from marketfeed.testing_alert_log import NOW_NS, example
from tests.support.dispatching import Failing, dispatching, ids, notice

RUNS = 300 if os.environ.get("MARKETFEED_PROVE") else 6
IN_USE = "consumer risk is in use by a holder of other symbols"
LIMITS = DeliveryLimits(max_tries=3, in_flight=5)
NAMES = ("AAPL", "AMZN", "BTC-USD", "BTC-EUR", "MSFT", "")
SYMBOLS: tuple[list[str], ...] = (
    ["*"],
    ["AAPL"],
    ["A*"],
    ["A*", "BTC*"],
    ["BTC-USD", "MSFT"],
    ["MSFT", "BTC-USD"],
    [],
)


def about(number, symbol, **fields):
    return example(number, symbol=symbol, state="notice", **fields)


@pytest.mark.parametrize(
    ("symbol", "to", "wanted"),
    [
        ("AAPL", None, True), ("BTC-USD", None, True), ("BTC", None, True), ("AAP", None, False),
        ("MSFT", None, False), ("", None, True), ("MSFT", "risk", True), ("AAPL", "other", False),
    ],
)  # fmt: skip
def test_a_consumer_wants_what_is_about_its_symbols_or_none_or_for_it(symbol, to, wanted):
    consumer = Consumer("risk", "all", ("*",), 0, 0, ("AAPL", "BTC*"))
    assert consumer.wants(Entry(1, about(1, symbol, to=to), 0)) == wanted
    assert not consumer.wants(Entry(1, about(1, symbol, to=to), 0, "silenced"))
    assert not msgspec.structs.replace(consumer, patterns=("x",)).wants(Entry(1, about(1, "AAPL"), 0))


def test_sets_of_symbols_are_made_once():
    many = tuple(f"SYM{number}" for number in range(10_000))
    one, other = (Consumer("a", "all", ("*",), 0, floor, many) for floor in (0, 1))
    assert one.symbol_set is other.symbol_set
    again = msgspec.json.decode(msgspec.json.encode(one), type=Consumer)
    assert (again, again.symbol_set) == (one, one.symbol_set)


async def test_alerts_about_other_symbols_are_settled(tmp_path):
    alerts = [about(number, symbol) for number, symbol in enumerate(NAMES)]
    directed = about(9, "MSFT", to="risk")
    async with dispatching(tmp_path, DeliveryLimits(max_tries=3, in_flight=9)) as dispatch:
        consumer = await dispatch.join("s", "risk", "all", ["*"], ["BTC*", "AAPL", "BTC-USD"])
        assert consumer.symbols == ("BTC*", "AAPL")  # in canonical form
        await dispatch.append([*alerts, directed], NOW_NS)
        taken = ids(await dispatch.take("s", 9))
        assert taken == [alerts[0].id, alerts[2].id, alerts[3].id, alerts[5].id, directed.id]
        found = await dispatch.acknowledge("risk", [*taken, alerts[1].id])
        assert (found.ids, found.unknown) == (tuple(taken), (alerts[1].id,))
        assert dispatch.statistics()["risk"].floor == 7
        assert not await dispatch.dead_letters()


async def test_sessions_of_a_consumer_have_the_same_symbols(tmp_path):
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s", "risk", "all", ["*"], ["AAPL", "BTC*"])
        await dispatch.join("t", "risk", "all", ["*"], ["BTC*", "AAPL", "BTC-USD"])  # the same set
        for session in ("s", "t", "u"):
            with pytest.raises(AlertRefusedError, match=IN_USE):
                await dispatch.join(session, "risk", "all", ["x"])
        (consumer,) = dispatch.consumers()
        assert (consumer.symbols, consumer.patterns) == (("BTC*", "AAPL"), ("*",))
        with pytest.raises(AlertRefusedError, match="of no consumer"):
            await dispatch.take("u", 1)
        dispatch.leave("t")
        assert (await dispatch.join("s", "risk", "all", ["*"], ["MSFT"])).symbols == ("MSFT",)
        dispatch.leave("s")
        assert (await dispatch.join("u", "risk", "all", ["*"])).symbols == ("*",)


async def test_other_symbols_settle_what_is_held_and_what_was_delivered(tmp_path):
    alerts = [about(number, symbol) for number, symbol in enumerate(("AAPL", "BTC-USD", "AAPL", "BTC-EUR"))]
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join("s", "risk", "all", ["*"])
        await dispatch.append(alerts, NOW_NS)
        assert ids(await dispatch.take("s", 2)) == ids_of(alerts[:2])
        await dispatch.join("s", "risk", "all", ["*"], ["BTC*"])
        assert ids(await dispatch.take("s", 9)) == [alerts[3].id]
        statistics = dispatch.statistics()["risk"]
        assert (statistics.unacknowledged, statistics.floor) == (2, 1)
        await dispatch.join("s", "risk", "all", ["*"], ["AAPL"])
        assert dispatch.statistics()["risk"].floor == 4
    async with dispatching(tmp_path) as dispatch:
        assert dispatch.consumers()[0].floor == 4  # which the log knows without another change


def ids_of(alerts):
    return [alert.id for alert in alerts]


async def test_dead_letters_about_other_symbols_stay_dead_letters(tmp_path, mock_clock):
    mine, other = about(1, "AAPL"), about(2, "MSFT")
    async with dispatching(tmp_path, DeliveryLimits(max_tries=1, in_flight=4)) as dispatch:
        await dispatch.join("s", "risk", "all", ["*"])
        await dispatch.append([mine, other], NOW_NS)
        await dispatch.take("s", 9)
        mock_clock.jump(2)
        while len(await dispatch.dead_letters()) < 2:
            await trio.testing.wait_all_tasks_blocked()
        await dispatch.join("s", "risk", "all", ["*"], ["AAPL"])
        requeued = await dispatch.requeue("risk", [mine.id, other.id], "ann")
        assert [entry.alert.id for entry in requeued] == [mine.id]
        assert ids(await dispatch.take("s", 9)) == [mine.id]
        assert [letter.entry.alert.id for letter in await dispatch.dead_letters()] == [other.id]


@pytest.mark.parametrize("symbols", [["A B"], ["AAPL", ""], ["*A"]])
async def test_invalid_symbols_are_refused_and_leave_nothing(tmp_path, symbols):
    async with dispatching(tmp_path) as dispatch:
        with pytest.raises(AlertRefusedError, match="not a symbol, nor the beginning of one"):
            await dispatch.join("s", "risk", "all", ["*"], symbols)
        assert dispatch.statistics() == {}


async def test_clients_that_poll_with_other_symbols_wait_until_the_first_have_gone(tmp_path, mock_clock):
    session = f"{POLLING}risk"
    async with dispatching(tmp_path) as dispatch:
        await dispatch.join(session, "risk", "all", ["*"], ["AAPL"])
        await dispatch.join(session, "risk", "all", ["*"], ["AAPL"])
        for other in (session, "s"):
            with pytest.raises(AlertRefusedError, match=IN_USE):
                await dispatch.join(other, "risk", "all", ["*"], ["MSFT"])
        mock_clock.jump(POLL_GONE_S + 1)
        while dispatch.statistics()["risk"].sessions:
            await trio.testing.wait_all_tasks_blocked()
        assert (await dispatch.join(session, "risk", "all", ["*"], ["MSFT"])).symbols == ("MSFT",)


async def test_of_two_that_join_at_once_with_different_symbols_one_is_refused(tmp_path):
    for created in (False, True):  # before they join
        async with dispatching(tmp_path / str(created)) as dispatch, trio.open_nursery() as nursery:
            if created:
                await dispatch.join("s", "risk", "all", ["*"], ["MSFT"])
                dispatch.leave("s")
            outcomes: dict[str, object] = {}

            async def join(session, symbols, dispatch=dispatch, outcomes=outcomes):
                try:
                    consumer = await dispatch.join(session, "risk", "all", ["*"], symbols)
                    outcomes[session] = consumer.symbols == tuple(symbols)
                except AlertRefusedError as error:
                    outcomes[session] = str(error)

            for session, symbols in (("a", ["AAPL"]), ("b", ["BTC*"]), ("a2", ["AAPL"]), ("b2", ["BTC*"])):
                nursery.start_soon(join, session, symbols)
            while len(outcomes) < 4:
                await trio.testing.wait_all_tasks_blocked()
        assert sorted(map(str, outcomes.values())) == ["True", "True", IN_USE, IN_USE]
        assert outcomes["a"] == outcomes["a2"]


class Slow(Failing):
    """The log, whose method ``slow`` waits until the test lets it go."""

    def __init__(self):
        super().__init__()
        self.slow = ""
        self.waits, self.go = trio.Event(), trio.Event()

    def __getattr__(self, name):
        method = super().__getattr__(name)
        if name != self.slow:
            return method

        async def slowly(*args, **fields):
            self.waits.set()
            await self.go.wait()
            return await method(*args, **fields)

        return slowly


@pytest.mark.parametrize("broken", ["", "use_consumer"])
async def test_nothing_is_taken_while_the_log_keeps_other_symbols(tmp_path, broken):
    log = Slow()
    async with dispatching(tmp_path, failing=log) as dispatch, trio.open_nursery() as nursery:
        await dispatch.join("s", "risk", "all", ["*"])
        log.slow, log.broken = "use_consumer", broken
        taken, errors = [], []

        async def take():
            taken.extend(ids(await dispatch.take("s", 9)))

        async def narrow():
            try:
                await dispatch.join("s", "risk", "all", ["*"], ["MSFT"])
            except AlertLogError as error:
                errors.append(error)

        nursery.start_soon(take)
        nursery.start_soon(narrow)
        await log.waits.wait()
        await dispatch.append([about(1, "AAPL"), about(2, "MSFT")], NOW_NS)
        early = []
        with trio.move_on_after(0):
            early = await dispatch.take("s", 9)
        await trio.testing.wait_all_tasks_blocked()
        log.go.set()
        assert (early, taken) == ([], [])
        while not taken:
            await trio.testing.wait_all_tasks_blocked()
        if broken:  # it has all symbols still
            assert (taken, len(errors)) == (ids_of([about(1, "AAPL"), about(2, "MSFT")]), 1)
        else:
            assert (taken, errors) == (ids_of([about(2, "MSFT")]), [])


async def test_a_session_that_joins_a_consumer_that_is_being_dropped_creates_it_again(tmp_path):
    log = Slow()
    async with dispatching(tmp_path, failing=log) as dispatch, trio.open_nursery() as nursery:
        await dispatch.join("s", "risk", "all", ["*"], ["AAPL"])
        log.slow = "drop_consumer"
        dropped = []

        async def drop():
            dropped.append(await dispatch.drop_consumer("risk", "ann"))

        nursery.start_soon(drop)
        await log.waits.wait()
        nursery.start_soon(dispatch.join, "s", "risk", "all", ["*"], ["MSFT"])
        nursery.start_soon(drop)
        await trio.testing.wait_all_tasks_blocked()
        log.go.set()
        while len(dropped) < 2 or not dispatch.statistics():
            await trio.testing.wait_all_tasks_blocked()
        assert dropped == [True, False]
        await dispatch.publish(notice("1", to="risk"))
        assert len(await dispatch.take("s", 1)) == 1
        assert [consumer.symbols for consumer in await log.log.consumers()] == [("MSFT",)]


class Model:
    """One consumer, its sessions, and what it is owed: what all its symbols since the append matched."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.numbers = count(1)
        self.symbols = symbol_set(("*",))  # of the consumer
        self.sessions = set()
        self.alerts = {}
        self.owed = set()
        self.held = set()  # taken and not acknowledged
        self.deliveries = {}
        self.acknowledged = set()

    def sees(self, alert):
        if alert.to is not None:
            return alert.to == "risk"
        return not alert.symbol or alert.symbol in self.symbols

    async def join(self, dispatch):
        session, symbols = self.rng.choice("stu"), self.rng.choice(SYMBOLS)
        wanted = symbol_set(tuple(symbols))
        try:
            await dispatch.join(session, "risk", "all", ["*"], symbols)
        except AlertRefusedError:
            assert wanted != self.symbols
            assert self.sessions - {session}
            return
        assert wanted == self.symbols or not self.sessions - {session}
        self.sessions.add(session)
        self.symbols = wanted
        self.owed = {one for one in self.owed if self.sees(self.alerts[one])}

    async def leave(self, dispatch):
        for session in [one for one in self.sessions if self.rng.random() < 0.7]:
            self.sessions.discard(session)
            dispatch.leave(session)

    async def append(self, dispatch):
        alerts = [
            about(
                next(self.numbers),
                self.rng.choice(NAMES),
                to=self.rng.choice((None, None, None, "risk", "x")),
            )
            for _ in range(self.rng.randrange(4))
        ]
        self.alerts |= {alert.id: alert for alert in alerts}
        self.owed |= {alert.id for alert in alerts if self.sees(alert)}
        await dispatch.append(alerts, NOW_NS)

    async def take(self, dispatch, patience=0.4):
        for session in sorted(self.sessions):
            with trio.move_on_after(0):
                for alert in ids(await dispatch.take(session, self.rng.randrange(1, 6))):
                    assert self.sees(self.alerts[alert])
                    self.deliveries[alert] = self.deliveries.get(alert, 0) + 1
                    self.held.add(alert)
        given = [alert for alert in sorted(self.held) if self.rng.random() < patience]
        self.acknowledged |= set((await dispatch.acknowledge("risk", given)).ids)
        self.held -= set(given)

    async def check_dead_letters(self, dispatch):
        for letter in await dispatch.dead_letters("risk"):
            assert self.deliveries[letter.entry.alert.id] >= LIMITS.max_tries

    async def requeue(self, dispatch):
        dead = [letter.entry.alert.id for letter in await dispatch.dead_letters("risk")]
        entries = await dispatch.requeue("risk", dead, "ann")
        assert {entry.alert.id for entry in entries} == {one for one in dead if self.sees(self.alerts[one])}


@pytest.mark.parametrize("seed", range(RUNS))
async def test_a_session_gets_all_of_its_symbols_and_nothing_else_whoever_joins(tmp_path, mock_clock, seed):
    model = Model(seed)
    rng = model.rng
    for _ in range(3):
        async with dispatching(tmp_path, LIMITS) as dispatch:
            for _ in range(60):
                act = rng.choice(
                    [*[model.join] * 3, model.leave, model.append, *[model.take] * 3, model.requeue]
                )
                await act(dispatch)
                if rng.random() < 0.3:
                    mock_clock.jump(rng.choice((0.5, 3, 100)))
                    await trio.testing.wait_all_tasks_blocked()
                    await model.check_dead_letters(dispatch)
        model.sessions = set()
    async with dispatching(tmp_path, LIMITS) as dispatch:
        await dispatch.join("s", "risk", "all", ["*"], model.symbols.patterns)
        model.sessions = {"s"}
        while (now := dispatch.statistics()["risk"]).floor < len(model.alerts) or now.oldest_ns:
            await model.take(dispatch, patience=1)
            mock_clock.jump(100)
            await trio.testing.wait_all_tasks_blocked()
        await model.check_dead_letters(dispatch)
        dead = {letter.entry.alert.id for letter in await dispatch.dead_letters("risk")}
        assert model.owed <= model.acknowledged | dead
        assert model.acknowledged
