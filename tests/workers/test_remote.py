"""What a worker asks of the engine: admission of sessions, and the latencies of all workers."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import trio

from marketfeed.workers.channel import Channel
from marketfeed.workers.messages import Admit, AskOverview, Down, Overview, Release, Up, Verdict
from marketfeed.workers.remote_admission import RemoteAdmission, RemoteOverview

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def channels() -> Iterator[tuple[Channel[Any], Channel[Any]]]:
    """The engine's end and the worker's."""
    ours, theirs = socket.socketpair()
    up: Any = Up  # a union of types, which msgspec takes
    down: Any = Down
    engine: Channel[Any] = Channel(ours, up)
    worker: Channel[Any] = Channel(theirs, down)
    try:
        yield engine, worker
    finally:
        engine.close()
        worker.close()


async def received(channel: Channel[Any]) -> object:
    got = await channel.receive()
    assert got is not None
    return got[0]


async def test_verdicts_reach_the_sessions_that_asked(autojump_clock):
    limits: dict[str, str | None] = {}
    with channels() as (engine, worker):
        admission = RemoteAdmission(worker)

        async def ask(address: str) -> None:
            limits[address] = await admission.ask(address)

        async with trio.open_nursery() as nursery:
            for address in ("10.0.0.1", "10.0.0.2"):
                nursery.start_soon(ask, address)
            asked = [await received(engine) for _ in range(2)]
            for message in reversed(asked):
                assert isinstance(message, Admit)
                full = message.address == "10.0.0.2"
                admission.answer(Verdict(message.number, "sessions" if full else None))
    assert limits == {"10.0.0.1": None, "10.0.0.2": "sessions"}


async def test_a_session_that_gives_up_before_its_verdict_is_released(autojump_clock):
    with channels() as (engine, worker):
        admission = RemoteAdmission(worker)
        for limit in ("sessions", None):
            with trio.move_on_after(1) as gave_up:
                await admission.ask("10.0.0.1")
            assert gave_up.cancelled_caught
            message = await received(engine)
            assert isinstance(message, Admit)
            admission.answer(Verdict(message.number, limit))
        # Only the second was counted, so only that is released.
        assert await received(engine) == Release("10.0.0.1")
        with trio.move_on_after(1) as nothing_more:
            await received(engine)
        assert nothing_more.cancelled_caught


async def test_a_session_that_gives_up_as_its_verdict_arrives_is_released(autojump_clock):
    with channels() as (engine, worker):
        admission = RemoteAdmission(worker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(admission.ask, "10.0.0.1")
            message = await received(engine)
            assert isinstance(message, Admit)
            # The task is cancelled before it runs again.
            nursery.cancel_scope.cancel()
            admission.answer(Verdict(message.number, None))
        assert await received(engine) == Release("10.0.0.1")


async def test_an_overview_arrives_and_one_that_is_late_is_dropped(autojump_clock):
    with channels() as (engine, worker):
        overview = RemoteOverview(worker)
        with trio.move_on_after(1) as gave_up:
            await overview.latency()
        assert gave_up.cancelled_caught
        late = await received(engine)
        assert isinstance(late, AskOverview)

        shown: list[dict[str, Any]] = []

        async def ask() -> None:
            shown.append(await overview.latency())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            message = await received(engine)
            assert isinstance(message, AskOverview)
            overview.answer(Overview(late.number, {"late": True}))
            overview.answer(Overview(message.number, {"tiers": []}))
    assert shown == [{"tiers": []}]
