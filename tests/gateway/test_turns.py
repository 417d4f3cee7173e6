"""A client's requests come one after the other, and wait for nobody else's."""

from __future__ import annotations

import trio
import trio.testing

from marketfeed.gateway.turns import Turns


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
