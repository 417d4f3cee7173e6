"""Alerts of a worker's sessions: RemoteAlerts in the worker, AlertCalls in the engine, and a log on disk."""

from __future__ import annotations

import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing

from marketfeed.alerts.active import POLLING
from marketfeed.alerts.alert import Alert
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import Dispatch
from marketfeed.alerts.history import Page, Wanted
from marketfeed.alerts.log import Silence
from marketfeed.alerts.service import AlertRefusedError, AlertsOffError, NoticeConflictError, Published
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.errors import AlertLogError, ControlError
from marketfeed.workers import alert_calls
from marketfeed.workers.alert_calls import AlertCalls
from marketfeed.workers.alert_messages import Head, Take, encode_call
from marketfeed.workers.channel import Channel
from marketfeed.workers.messages import AlertsAnswered, AskAlerts, CancelAlerts, Down, LeaveAlerts, Up
from marketfeed.workers.remote_alerts import RemoteAlerts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from marketfeed.alerts.service import AlertService

S = 10**9
LIMITS = DeliveryLimits(max_tries=5, in_flight=100)


def notice(key: str, to: str | None = None, **data: object) -> Alert:
    return Alert(id=f"N{key}", key=key, rule="notice", state="notice", message="m", to=to, data=data or None)


class Link:
    """One worker and its counterpart in the engine, with a channel between them."""

    def __init__(self, service: AlertService | None, nursery: trio.Nursery) -> None:
        ours, theirs = socket.socketpair()
        up: Any = Up  # a union of types, which msgspec takes
        down: Any = Down
        self._sock = ours
        self.engine: Channel[Any] = Channel(ours, up)
        self.worker: Channel[Any] = Channel(theirs, down)
        self.calls = AlertCalls(service, nursery, self.engine.send)
        self.alerts = RemoteAlerts(self.worker)
        self.connections = 0
        self.answers: list[AlertsAnswered] = []
        self.misuse: ControlError | None = None
        self.held = False  # whether answers are kept from the worker's sessions
        for task in (self._handle, self._obey, self.engine.drain, self.worker.drain):
            nursery.start_soon(task)

    async def _handle(self) -> None:
        try:
            while (received := await self.engine.receive()) is not None:
                self.calls.handle(received[0], self.connections)
        except ControlError as error:
            self.misuse = error
        self.calls.end()

    async def _obey(self) -> None:
        while (received := await self.worker.receive()) is not None:
            self.answers.append(received[0])
            if not self.held:
                self.alerts.answer(received[0])
        self.alerts.end()

    def cut(self) -> None:
        """End the channel, as the end of either process does."""
        self._sock.shutdown(socket.SHUT_RDWR)


class Bench:
    def __init__(self, nursery: trio.Nursery, service: AlertService | None) -> None:
        self._nursery = nursery
        self._service = service
        self.links: list[Link] = []

    def link(self) -> Link:
        self.links.append(Link(self._service, self._nursery))
        return self.links[-1]


@asynccontextmanager
async def bench(service: AlertService | None) -> AsyncIterator[Bench]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            made = Bench(nursery, service)
            try:
                yield made
            finally:
                nursery.cancel_scope.cancel()
                for link in made.links:
                    link.engine.close()
                    link.worker.close()


@asynccontextmanager
async def dispatched(tmp_path) -> AsyncIterator[Bench]:
    """A bench over a log on disk."""
    async with open_log(tmp_path / "alerts.db") as log, trio.open_nursery() as nursery:
        dispatch = await Dispatch.started(log, LIMITS, time.time_ns)
        nursery.start_soon(dispatch.run)
        async with bench(dispatch) as made:
            yield made
        nursery.cancel_scope.cancel()


class OneAnswer:
    """A service whose ``head`` fails, or waits until it is let go; other methods are not used."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.left: list[str] = []
        self.waiting = trio.Event()
        self.go = trio.Event()

    async def head(self) -> int:
        if self.error is not None:
            raise self.error
        self.waiting.set()
        await self.go.wait()
        return 7

    async def take(self, session: str, limit: int) -> list[Any]:
        with trio.CancelScope(shield=True):
            await self.head()
        return []

    def leave(self, session: str) -> None:
        self.left.append(session)


def one_answer(error: Exception | None = None) -> Any:
    return OneAnswer(error)


async def test_a_session_takes_and_acknowledges_alerts_as_in_the_engine(tmp_path):
    async with dispatched(tmp_path) as made:
        alerts = made.link().alerts
        joined = await alerts.join("s1", "risk", "all", ["*"])
        assert (joined.name, joined.patterns, joined.floor) == ("risk", ("*",), 0)
        assert await alerts.head() == 0
        sent = notice("1", big=10**30, deep=[{"é": None}])
        published = await alerts.publish(sent)
        assert (published.id, published.new) == ("N1", True)
        assert not (await alerts.publish(sent)).new
        assert await alerts.head() == 1
        (due,) = await alerts.take("s1", 10)
        assert (due.entry.position, due.entry.alert, due.tries) == (1, sent, 1)
        found = await alerts.acknowledge("risk", ["N1", "N2"])
        assert (found.ids, found.positions, found.unknown) == (("N1",), (1,), ("N2",))
        assert (await alerts.acknowledge("risk", ["N1"])).unknown == ("N1",)
        assert [entry.alert for entry in await alerts.entries(0, 10)] == [sent]


async def test_the_history_is_that_of_the_engine(tmp_path):
    ids = ["0" * 25 + digit for digit in "123"]
    async with dispatched(tmp_path) as made:
        alerts = made.link().alerts
        sent = [msgspec.structs.replace(notice(id_, big=10**30), id=id_) for id_ in ids]
        for one in sent:
            await alerts.publish(one)
        assert await alerts.history(Wanted(), "", 2) == Page((sent[2], sent[1]), 2)
        assert await alerts.history(Wanted(), ids[1], 2) == Page((sent[0],), None)
        assert await alerts.history(Wanted(rules=("move",)), "", 2) == Page((), None)
        assert await alerts.history(Wanted(), "9" * 26, 2) is None
        with pytest.raises(AlertRefusedError, match="not a symbol"):
            await alerts.history(Wanted(symbols=("A,B",)), "", 2)


async def test_notices_of_two_workers_are_kept_once_per_publisher_and_key(tmp_path):
    ann, bob = (
        msgspec.structs.replace(notice("1", to="risk"), id=publisher, publisher=publisher)
        for publisher in ("ann", "bob")
    )
    async with dispatched(tmp_path) as made:
        one, other = made.link().alerts, made.link().alerts
        assert (await one.publish(ann)).new
        assert (await other.publish(bob)).new
        assert (await other.publish(msgspec.structs.replace(ann, id="again"))) == Published("ann", new=False)
        for alerts in (one, other):
            with pytest.raises(NoticeConflictError, match="'1' is that of your notice ann to risk, and this"):
                await alerts.publish(msgspec.structs.replace(ann, to="desk"))
        assert [entry.alert for entry in await one.entries(0, 10)] == [ann, bob]


async def test_silences_and_resolutions_arrive(tmp_path):
    async with dispatched(tmp_path) as made:
        alerts = made.link().alerts
        now_ns = time.time_ns()
        silence = Silence(id="S1", starts_ns=now_ns, ends_ns=now_ns + 60 * S, created_by="ann", comment="c")
        await alerts.add_silence(silence)
        assert await alerts.silences() == [silence]
        assert await alerts.expire_silence("S1", "ann")
        assert not await alerts.expire_silence("S1", "ann")
        assert await alerts.resolve("unknown", "ann", "") is None
        dispatch: Any = made._service
        raised = Alert(id="R1", key="R1", rule="spread", symbol="A", message="wide")
        await dispatch.append([raised], now_ns)
        episode = await alerts.resolve("R1", "ann", "looked into")
        assert episode is not None
        assert (episode.key, episode.resolved_by, episode.comment) == ("R1", "ann", "looked into")


async def test_sessions_of_two_workers_share_a_consumer_and_a_notice_waits_for_either(tmp_path):
    async with dispatched(tmp_path) as made, trio.open_nursery() as nursery:
        one, other = made.link().alerts, made.link().alerts
        # The same identifier in two workers is not the same session.
        await one.join("s1", "risk", "all", ["*"])
        await other.join("s1", "risk", "all", ["*"])
        one.leave("s1")

        async def confirm() -> None:
            (due,) = await other.take("s1", 1)
            await other.acknowledge("risk", [due.entry.alert.id])

        nursery.start_soon(confirm)
        assert (await one.publish(notice("1", to="risk"), wait_s=15)).acknowledged


async def test_sessions_of_two_workers_have_the_symbols_of_their_consumer(tmp_path):
    about = [Alert(id=name, key=name, rule="wide", symbol=name, state="notice") for name in ("A", "B")]
    async with dispatched(tmp_path) as made:
        one, other = made.link(), made.link()
        symbols = ["B", *(f"SYM{number:05}" for number in range(10_000))]
        joined = await one.alerts.join("s1", "risk", "all", ["*"], symbols)
        assert joined.symbols == tuple(symbols)
        for asked in (["A"], ["*"]):
            with pytest.raises(AlertRefusedError, match="consumer risk is in use by a holder of other symb"):
                await other.alerts.join("s1", "risk", "all", ["*"], asked)
        await other.alerts.join("s1", "risk", "all", ["*"], symbols)
        for alert in about:
            await one.alerts.publish(alert)
        (due,) = await other.alerts.take("s1", 10)
        assert due.entry.alert == about[1]
        one.cut()
        dispatch: Any = made._service
        while dispatch.statistics()["risk"].sessions > 1:
            await trio.testing.wait_all_tasks_blocked()
        assert (await other.alerts.join("s1", "risk", "all", ["*"], ["A"])).symbols == ("A",)


@pytest.mark.parametrize("answered", ["in time", "late"])
async def test_what_a_worker_that_is_killed_had_goes_to_another_at_once(tmp_path, answered):
    async with dispatched(tmp_path) as made:
        one, other = made.link(), made.link()
        await one.alerts.join("s1", "risk", "all", ["*"])
        await one.alerts.publish(notice("1", to="risk"))
        if answered == "in time":
            await one.alerts.take("s1", 10)
        else:  # the answer is on its way when the worker ends
            one.held = True
            one.worker.send(AskAlerts(99, encode_call(Take("s1", 10))))
            while not any(answer.number == 99 for answer in one.answers):
                await trio.testing.wait_all_tasks_blocked()
        await other.alerts.join("s2", "risk", "all", ["*"])
        async with trio.open_nursery() as nursery:
            taken: list[Any] = []

            async def take() -> None:
                taken.extend(await other.alerts.take("s2", 10))

            nursery.start_soon(take)
            one.cut()
        assert [(due.entry.alert.id, due.tries) for due in taken] == [("N1", 2)]


async def test_a_take_that_is_cancelled_takes_nothing(tmp_path):
    async with dispatched(tmp_path) as made:
        link = made.link()
        await link.alerts.join("s1", "risk", "all", ["*"])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.alerts.take, "s1", 10)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert link.answers[-1].outcome == "cancelled"
        await link.alerts.publish(notice("1", to="risk"))
        (due,) = await link.alerts.take("s1", 10)
        assert due.tries == 1


async def test_a_call_that_was_answered_as_it_was_cancelled_returns_its_result():
    service = one_answer()
    async with bench(service) as made:
        link = made.link()
        link.held = True
        got: list[int] = []

        async def ask() -> None:
            got.append(await link.alerts.head())

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await service.waiting.wait()
                service.go.set()
                while not link.answers:
                    await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.lowlevel.cancel_shielded_checkpoint()
                link.alerts.answer(link.answers[0])
        assert got == [7]


async def test_a_call_that_the_engine_does_not_end_is_given_up_and_its_late_answer_dropped(autojump_clock):
    service = one_answer()
    async with bench(service) as made:
        link = made.link()
        with trio.move_on_after(5) as scope:
            await link.alerts.take("s1", 1)  # its service ignores cancellation
        assert scope.cancelled_caught
        assert trio.current_time() > 5
        service.go.set()
        while not link.answers:
            await trio.testing.wait_all_tasks_blocked()
        assert await link.alerts.head() == 7


async def test_a_session_that_leaves_during_a_call_leaves_again_after_it():
    service = one_answer()
    async with bench(service) as made:
        link = made.link()
        link.worker.send(AskAlerts(1, encode_call(Take("s1", 1))))
        await service.waiting.wait()
        link.worker.send(LeaveAlerts("s1"))
        while not service.left:
            await trio.testing.wait_all_tasks_blocked()
        # It joins again: the end of the old call does not concern the new session.
        link.worker.send(AskAlerts(2, encode_call(Take("s1", 1))))
        service.go.set()
        while len(link.answers) < 2:
            await trio.testing.wait_all_tasks_blocked()
        assert service.left == [service.left[0]] * 2
        link.cut()
        while len(service.left) < 3:
            await trio.testing.wait_all_tasks_blocked()
        assert service.left[2] != service.left[0]


async def test_a_take_ends_when_its_session_leaves_and_joins_again_at_once(tmp_path):
    async with dispatched(tmp_path) as made, trio.open_nursery() as nursery:
        alerts = made.link().alerts
        steps: list[str] = []

        async def take() -> None:
            with pytest.raises(AlertRefusedError, match="has left"):
                await alerts.take("s1", 1)
            steps.append("taken")

        await alerts.join("s1", "risk", "all", ["*"])
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        alerts.leave("s1")
        await alerts.join("s1", "risk", "all", ["*"])
        assert steps == ["taken"]
        await alerts.publish(notice("1", to="risk"))
        (due,) = await alerts.take("s1", 1)
        assert due.tries == 1


async def test_only_a_session_that_has_joined_leaves(tmp_path):
    async with dispatched(tmp_path) as made:
        link = made.link()
        link.alerts.leave("never")
        await link.alerts.join("s1", "risk", "all", ["*"])
        await link.alerts.publish(notice("1", to="risk"))
        await link.alerts.take("s1", 1)
        link.alerts.leave("s1")
        link.alerts.leave("s1")
        with pytest.raises(AlertRefusedError, match="no consumer"):
            await link.alerts.take("s1", 1)
        await link.alerts.join("s1", "risk", "all", ["*"])
        (due,) = await link.alerts.take("s1", 1)
        assert due.tries == 2


async def test_a_client_that_polls_is_one_session_over_all_workers(tmp_path):
    session = f"{POLLING}risk"
    async with dispatched(tmp_path) as made:
        one, other = made.link(), made.link()
        await one.alerts.join(session, "risk", "all", ["*"])
        await one.alerts.publish(notice("1", to="risk"))
        await one.alerts.publish(notice("2", to="risk"))
        (first,) = await one.alerts.take(session, 1)
        one.cut()
        (second,) = await other.alerts.take(session, 5)
        assert [first.entry.alert.id, second.entry.alert.id] == ["N1", "N2"]
        other.alerts.leave(session)
        with pytest.raises(AlertRefusedError, match="no consumer"):
            await other.alerts.take(session, 1)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (AlertLogError("disk full: make room"), AlertLogError, "disk full: make room"),
        (AlertRefusedError("another name"), AlertRefusedError, "another name"),
        (AlertsOffError("off"), AlertsOffError, "off"),
        (KeyError("fault"), AlertLogError, "a fault in the engine, see its log"),
    ],
)
async def test_errors_reach_the_caller(error, kind, text):
    async with bench(one_answer(error)) as made:
        with pytest.raises(kind) as caught:
            await made.link().alerts.head()
    assert str(caught.value) == text


async def test_the_log_s_own_refusals_arrive(tmp_path):
    async with dispatched(tmp_path) as made:
        alerts = made.link().alerts
        with pytest.raises(AlertRefusedError, match="a consumer's name"):
            await alerts.join("s1", "x" * 300, "all", ["*"])
        deep: list[Any] = []
        for _ in range(5000):
            deep = [deep]
        with pytest.raises(AlertRefusedError, match="nested too deeply"):
            await alerts.publish(notice("1", x=deep))


async def test_alerts_that_are_off_say_so():
    async with bench(None) as made:
        with pytest.raises(AlertsOffError, match="alerts are off"):
            await made.link().alerts.join("s1", "risk", "all", ["*"])


async def test_an_answer_that_is_too_large_is_an_error(monkeypatch):
    monkeypatch.setattr(alert_calls, "MAX_RESULT_BYTES", 0)
    service = one_answer()
    service.go.set()
    async with bench(service) as made:
        with pytest.raises(AlertLogError, match="too large"):
            await made.link().alerts.head()


async def test_calls_end_when_the_engine_does():
    service = one_answer()
    async with bench(service) as made:
        link = made.link()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(AlertLogError, match="the engine has ended"):
                    await link.alerts.head()

            nursery.start_soon(ask)
            await service.waiting.wait()
            link.cut()


@pytest.mark.parametrize("fault", ["too many calls", "one number twice", "no call"])
async def test_a_worker_that_breaks_the_protocol_costs_only_itself(fault):
    async with bench(one_answer()) as made:
        link = made.link()
        link.connections = 1
        most = alert_calls.SPARE_CALLS + alert_calls.CALLS_PER_CONNECTION
        if fault == "too many calls":
            for number in range(most + 1):
                link.worker.send(AskAlerts(number, encode_call(Head())))
        elif fault == "one number twice":
            for _ in range(2):
                link.worker.send(AskAlerts(1, encode_call(Head())))
        else:
            link.worker.send(CancelAlerts(5))  # of no call: it may have been answered
            link.worker.send(AskAlerts(1, b"{}"))
        while link.misuse is None:
            await trio.testing.wait_all_tasks_blocked()
        assert ("calls for alerts" if fault != "no call" else "not a call") in str(link.misuse)
