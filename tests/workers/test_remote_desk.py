"""The desk for a worker's sessions: RemoteDesk in the worker, DeskCalls and the desk in the engine."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from marketfeed.access.desk import Holder, LocalDesk
from marketfeed.access.tickets import Redeemed
from marketfeed.config.schema import TenantConfig
from marketfeed.errors import AccessError, ControlError
from marketfeed.workers.channel import Channel
from marketfeed.workers.desk_calls import SPARE_CALLS, DeskCalls
from marketfeed.workers.desk_messages import Enter, Hold, Issue, Redeem, RefreshKeys
from marketfeed.workers.messages import AskDesk, CancelDesk, DeskAnswered, Down, LeaveDesk, Up
from marketfeed.workers.remote_desk import RemoteDesk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from marketfeed.access.desk import Desk

ANN = Holder("ann", "desk", 2)
TOKEN = "eyJhbGciOi.secret"


class Link:
    """One worker and its counterpart in the engine, with a channel between them."""

    def __init__(self, desk: Desk | None, nursery: trio.Nursery) -> None:
        ours, theirs = socket.socketpair()
        up: Any = Up  # a union of types, which msgspec takes
        down: Any = Down
        self._sock = ours
        self.engine: Channel[Any] = Channel(ours, up)
        self.worker: Channel[Any] = Channel(theirs, down)
        self.calls = DeskCalls(desk, nursery, self.engine.send)
        self.desk = RemoteDesk(self.worker)
        self.connections = 0
        self.heard: list[Any] = []  # by the engine
        self.misuse: ControlError | None = None
        self.ended = trio.Event()
        for task in (self._handle, self._obey, self.engine.drain, self.worker.drain):
            nursery.start_soon(task)

    async def _handle(self) -> None:
        try:
            while (received := await self.engine.receive()) is not None:
                self.heard.append(received[0])
                self.calls.handle(received[0], self.connections)
        except ControlError as error:
            self.misuse = error
        self.calls.end()
        self.ended.set()

    async def _obey(self) -> None:
        while (received := await self.worker.receive()) is not None:
            self.desk.answer(received[0])
        self.desk.end()

    async def cut(self) -> None:
        """End the channel, as the end of either process does."""
        self._sock.shutdown(socket.SHUT_RDWR)
        await self.ended.wait()


async def nothing() -> bool:
    await trio.lowlevel.checkpoint()
    return True


class SlowDesk(LocalDesk):
    """A desk whose calls wait until they are let go."""

    def __init__(self) -> None:
        super().__init__({}, None, lambda: 1000.0, nothing)
        self.waiting = trio.Event()
        self.go = trio.Event()

    async def enter(self, session: str, holder: Holder) -> str | None:
        limit = await super().enter(session, holder)
        self.waiting.set()
        await self.go.wait()
        return limit

    async def refresh_keys(self) -> bool:
        self.waiting.set()
        await self.go.wait()
        return False


class BrokenDesk(LocalDesk):
    async def issue(self, token: str, expires_s: float | None, address: str) -> str:
        raise KeyError(token)


def desk_of(kind: type[LocalDesk] = LocalDesk, **tenants: TenantConfig) -> LocalDesk:
    return kind(tenants, None, lambda: 1000.0, nothing)


@asynccontextmanager
async def linked(desk: Desk | None, count: int = 1) -> AsyncIterator[list[Link]]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            links = [Link(desk, nursery) for _ in range(count)]
            try:
                yield links
            finally:
                nursery.cancel_scope.cancel()
                for link in links:
                    link.engine.close()
                    link.worker.close()


async def settled(link: Link, kind: type[Any]) -> None:
    """Wait until the engine has handled a message of ``kind``, and the tasks that it starts have run."""
    while not any(isinstance(one, kind) for one in link.heard):
        await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()


async def test_sessions_of_all_workers_are_counted_together():
    desk = desk_of(desk=TenantConfig(max_symbols=10))
    async with linked(desk, 2) as (one, other):
        assert await one.desk.enter("s1", ANN) is None
        assert await other.desk.enter("s2", ANN) is None
        assert await other.desk.enter("s3", ANN) == "max_sessions of the token: 2"
        assert await one.desk.hold("s1", 6) is None
        assert await other.desk.hold("s2", 5) == "max_symbols of the tenant: 10"
        one.desk.leave("s1")
        await settled(one, LeaveDesk)
        assert await other.desk.enter("s3", ANN) is None
        assert await other.desk.hold("s2", 10) is None
        assert len(desk) == 2


async def test_a_ticket_of_one_worker_is_good_on_another_once():
    async with linked(desk_of(), 2) as (one, other):
        ticket = await one.desk.issue(TOKEN, 2000.0, "10.0.0.1")
        assert await other.desk.redeem(ticket, "10.0.0.1", "s1", use="open") == Redeemed(TOKEN)
        with pytest.raises(AccessError, match="the ticket was used"):
            await one.desk.redeem(ticket, "10.0.0.1", "s2", use="open")
        assert await one.desk.redeem(ticket, "10.0.0.1", "s2", use="reopen") == Redeemed(TOKEN, "s1")


async def test_a_session_leaves_once_and_only_if_it_entered():
    async with linked(desk_of()) as (link,):
        link.desk.leave("s0")
        assert await link.desk.enter("s1", Holder("ann", "", 1)) is None
        assert await link.desk.enter("s2", Holder("ann", "", 1)) is not None
        for session in ("s1", "s1", "s2"):
            link.desk.leave(session)
        await settled(link, LeaveDesk)
        assert [one for one in link.heard if isinstance(one, LeaveDesk)] == [LeaveDesk("s1")]


async def test_the_sessions_of_a_worker_that_ends_leave():
    desk = desk_of()
    async with linked(desk, 2) as (one, other):
        assert await one.desk.enter("s1", ANN) is None
        assert await other.desk.enter("s2", ANN) is None
        await one.cut()
        assert len(desk) == 1
        assert await other.desk.enter("s3", ANN) is None


async def enter_in_vain(link: Link) -> None:
    with pytest.raises(AccessError, match="the engine has ended"):
        await link.desk.enter("s1", ANN)


@pytest.mark.parametrize("cut", [False, True], ids=["client", "worker"])
async def test_a_session_that_goes_away_while_it_enters_is_not_counted(cut):
    desk = SlowDesk()
    async with linked(desk) as (link,):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter_in_vain, link)
            await desk.waiting.wait()
            assert len(desk) == 1
            if cut:
                await link.cut()
            nursery.cancel_scope.cancel()
        if not cut:
            await settled(link, LeaveDesk)
        await trio.testing.wait_all_tasks_blocked()
        assert len(desk) == 0
        assert not link.calls._unanswered


async def test_a_session_that_goes_away_before_its_call_is_made_is_not_counted():
    desk = desk_of()
    async with linked(desk) as (link,):
        link.worker.send(AskDesk(1, Enter("s1", ANN)))
        link.worker.send(CancelDesk(1))
        link.worker.send(LeaveDesk("s1"))
        await settled(link, LeaveDesk)
        assert (len(desk), link.calls._sessions) == (0, set())


async def test_a_cancelled_call_takes_no_room():
    desk = SlowDesk()
    async with linked(desk) as (link,):
        for _ in range(2 * SPARE_CALLS):
            with trio.CancelScope() as scope:
                desk.waiting = trio.Event()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.desk.refresh_keys)
                    await desk.waiting.wait()
                    scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert (link.misuse, link.calls._unanswered) == (None, {})


async def test_a_worker_with_too_many_unanswered_calls_is_not_understood():
    async with linked(SlowDesk()) as (link,):
        link.connections = 1
        for number in range(SPARE_CALLS + 5):
            link.worker.send(AskDesk(number, RefreshKeys()))
        await link.ended.wait()
        assert str(link.misuse) == f"call {SPARE_CALLS + 4} to the desk, with {SPARE_CALLS + 4} unanswered"


async def test_a_number_is_used_once_at_a_time():
    async with linked(SlowDesk()) as (link,):
        link.worker.send(AskDesk(7, RefreshKeys()))
        link.worker.send(AskDesk(7, RefreshKeys()))
        await link.ended.wait()
        assert str(link.misuse) == "call 7 to the desk, with 1 unanswered"


async def test_without_access_control_calls_are_not_understood():
    async with linked(None) as (link,):
        link.worker.send(LeaveDesk("s1"))
        await link.ended.wait()
        assert str(link.misuse) == "a call to the desk without access control"


async def test_a_fault_in_a_call_is_logged_without_what_it_was_about():
    async with linked(desk_of(BrokenDesk)) as (link,):
        with capture_logs() as logs, pytest.raises(AccessError, match="a fault in the engine, see its log"):
            await link.desk.issue(TOKEN, None, "10.0.0.1")
        assert [(one["event"], one["call"], one["error"]) for one in logs] == [
            ("call to the desk failed", "Issue", "KeyError")
        ]
        assert await link.desk.enter("s1", ANN) is None


async def test_calls_end_with_the_engine():
    desk = SlowDesk()
    async with linked(desk) as (link,), trio.open_nursery() as nursery:
        nursery.start_soon(enter_in_vain, link)
        await desk.waiting.wait()
        await link.cut()


def test_no_repr_shows_a_token_or_ticket():
    calls = (
        Enter("s", ANN),
        Hold("s", 1),
        Issue(TOKEN, 1.0, "10.0.0.1"),
        Redeem(TOKEN, "10.0.0.1", "s", "reopen"),
        RefreshKeys(),
    )
    for message in (
        *(AskDesk(1, call) for call in calls),
        DeskAnswered(1, TOKEN),
        DeskAnswered(1, Redeemed(TOKEN)),
    ):
        assert TOKEN not in repr(message)
