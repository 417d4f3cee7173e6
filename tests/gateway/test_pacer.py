"""The pacer: what connections cost in one round is bounded, however many they are."""

from __future__ import annotations

import socket

import pytest
import trio

from marketfeed.gateway.outbox import Nobody, Outbox
from marketfeed.gateway.pacer import ROUND_NS, WOKEN, Pacer

CONNECTIONS = 200
PIECES = 3
ROUND, PIECE = "round", "piece"


async def pieces_by_round(cost_ns: int) -> list[int]:
    """Return how many pieces of CONNECTIONS, each with PIECES of ``cost_ns``, there are in each round."""
    now_ns = 1
    pacer = Pacer(lambda: now_ns)
    counts = [0]

    async def connection() -> None:
        nonlocal now_ns
        for _ in range(PIECES):
            await trio.lowlevel.checkpoint()
            await pacer.turn()
            counts[-1] += 1
            now_ns += cost_ns

    async def others(scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await trio.lowlevel.checkpoint()
                counts.append(0)

    async with trio.open_nursery() as nursery:
        others_scope = trio.CancelScope()
        nursery.start_soon(others, others_scope)
        async with trio.open_nursery() as connections:
            for _ in range(CONNECTIONS):
                connections.start_soon(connection)
        others_scope.cancel()
    assert sum(counts) == CONNECTIONS * PIECES
    return counts


async def test_others_have_a_turn_after_each_costly_piece():
    # Tasks run in any order within a round: the end of one and the beginning of the next may meet.
    assert max(await pieces_by_round(ROUND_NS + 1)) <= 2


async def test_a_round_takes_as_many_pieces_as_it_has_time_for():
    assert max(await pieces_by_round(ROUND_NS // 10)) <= 2 * 11


async def test_cheap_pieces_wait_for_nothing():
    counts = [count for count in await pieces_by_round(0) if count]
    assert len(counts) <= 2 * PIECES


async def test_no_piece_is_passed_over_though_more_wait_than_a_round_wakes():
    assert CONNECTIONS > WOKEN
    counts = await pieces_by_round(ROUND_NS // 2)
    assert sum(counts) == CONNECTIONS * PIECES


async def test_nobody_waits_for_more_than_those_before_and_a_few():
    now_ns = 1
    pacer = Pacer(lambda: now_ns)
    served: list[int] = []

    async def connection(number: int) -> None:
        nonlocal now_ns
        for _ in range(number // 20):  # 20 come in each round, and two have a turn
            await trio.lowlevel.checkpoint()
        await pacer.turn()
        served.append(number)
        now_ns += ROUND_NS // 2

    async with trio.open_nursery() as nursery:
        for number in range(5 * WOKEN):
            nursery.start_soon(connection, number)
    assert sorted(served) == list(range(5 * WOKEN))
    assert max(place - number for place, number in enumerate(served)) <= 2 * WOKEN


async def test_a_connection_that_ends_while_it_waits_leaves_its_place_to_others():
    now_ns = 1
    pacer = Pacer(lambda: now_ns)
    served: list[int] = []

    async def connection(number: int, scope: trio.CancelScope) -> None:
        nonlocal now_ns
        with scope:
            await pacer.turn()
            served.append(number)
            now_ns += ROUND_NS + 1

    scopes = [trio.CancelScope() for _ in range(10)]
    async with trio.open_nursery() as nursery:
        for number, scope in enumerate(scopes):
            nursery.start_soon(connection, number, scope)
        await trio.lowlevel.checkpoint()
        for scope in scopes[5:]:
            scope.cancel()
    # Tasks run in either order within a round: one of those that were cancelled may have had its turn.
    assert 5 <= len(served) <= 6


class Never(Pacer):
    """Has no time for anybody."""

    async def turn(self) -> None:
        await trio.sleep_forever()


async def test_what_was_received_is_kept_where_its_turn_never_came():
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        async with trio.open_nursery() as nursery:
            outbox = Outbox(ours, nursery, Nobody(), Never())
            theirs.sendall(b"GET")
            with trio.move_on_after(0.05):
                await outbox.receive_some()
                pytest.fail("received before its turn")
            assert await outbox.receive_some() == b"GET"
            await outbox.aclose()
