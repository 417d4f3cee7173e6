"""A client's requests come one after the other, and wait for nobody else's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from marketfeed.gateway.turns import Turns
from tests.support.access import Control, bearer
from tests.support.live import LIMITS, http, serving


async def test_one_request_of_a_client_at_a_time_beside_those_of_others(autojump_clock):
    turns, ended = Turns(), []

    async def ask(client: str, name: str, give_up_s: float = 100) -> None:
        with trio.move_on_after(give_up_s):
            async with turns.of(client):
                await trio.sleep(10)
                ended.append((name, trio.current_time()))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name in ("a1", "a2"):
            nursery.start_soon(ask, "a", name)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, "a", "a3", 5)  # its client goes away while it waits
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, "a", "a4")
        nursery.start_soon(ask, "b", "b1", 5)  # while it is served
        nursery.start_soon(ask, "c", "c1")
        await trio.testing.wait_all_tasks_blocked()
        assert len(turns) == 3
    assert sorted((at - start, name) for name, at in ended) == [
        (10, "a1"),
        (10, "c1"),
        (20, "a2"),
        (30, "a4"),
    ]
    assert len(turns) == 0


async def test_a_client_that_goes_away_as_its_turn_would_begin_leaves_nothing():
    turns = Turns()
    for _ in range(50):  # trio runs the two tasks in any order
        done = trio.Event()

        async def hold(done: trio.Event) -> None:
            async with turns.of("a"):
                await done.wait()

        async def follow(scope: trio.CancelScope) -> None:
            with scope:
                async with turns.of("a"):
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, done)
            await trio.testing.wait_all_tasks_blocked()
            scope = trio.CancelScope()
            nursery.start_soon(follow, scope)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            done.set()
        assert len(turns) == 0


@pytest.mark.parametrize("target", ["/v1/symbols", "/v1/quotes?symbols=*", "/v1/trades?symbols=*"])
@pytest.mark.parametrize("control", [None, Control()], ids=["open", "controlled"])
async def test_large_requests_of_a_client_do_not_delay_those_of_others(target, control):
    access = None if control is None else control.access
    many, other = (
        [(b"X-Forwarded-For", address)] if control is None else bearer(control.token(["*"], sub=sub))
        for sub, address in (("ann", b"192.0.2.1"), ("bob", b"192.0.2.2"))
    )
    limits = replace(LIMITS, sessions=100, sessions_per_ip=100)
    statuses: list[int] = []
    async with (
        serving(limits, access=access, trusted=("127.0.0.1",)) as live,
        trio.open_nursery() as nursery,
    ):

        async def ask(headers):
            statuses.append((await http(live, "GET", target, headers=headers))[0])

        async with live.service.large:
            for headers in [many] * 20 + [other]:
                nursery.start_soon(ask, headers)
            while len(live.service.turns) < 2:
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert live.service.large.statistics().tasks_waiting == 2
    assert statuses == [200] * 21
