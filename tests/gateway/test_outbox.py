"""The outbox over real TCP sockets: order, verdicts, cancellation, ends."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from marketfeed.errors import CloseCode
from marketfeed.gateway.outbox import Nobody, Outbox


@pytest.fixture
async def pair():
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    for sock in (ours, peer):
        sock.setblocking(False)
    yield ours, peer
    ours.close()
    peer.close()


class Recorder(Nobody):
    """An owner that records what its outbox calls."""

    def __init__(self) -> None:
        self.was_drained = trio.Event()
        self.ended_with: list[CloseCode] = []

    def drained(self) -> None:
        self.was_drained.set()

    def end(self, code: CloseCode) -> None:
        self.ended_with.append(code)


async def read_exactly(peer: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        await trio.lowlevel.wait_readable(peer)
        got += peer.recv(min(65536, size - len(got)))
    return bytes(got)


def frames(count: int) -> list[bytes]:
    return [b"%08d" % i * 512 for i in range(count)]


def fill(outbox: Outbox) -> list[bytes]:
    """Offer frames until one has to wait; return all that were taken."""
    taken = []
    for frame in frames(100_000):
        taken.append(frame)
        if not outbox.offer(frame):
            return taken
    raise AssertionError("the socket never filled")


async def test_what_fits_goes_at_once(pair):
    ours, peer = pair
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, Nobody())
        assert outbox.offer(b"hello")
        assert await read_exactly(peer, 5) == b"hello"
        assert outbox.waiting_bytes == 0


async def test_a_full_socket_keeps_one_tail_and_calls_when_drained(pair):
    ours, peer = pair
    owner = Recorder()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, owner)
        outbox.pace(65536)
        taken = fill(outbox)
        assert 0 < outbox.waiting_bytes <= len(taken[-1])
        expected = b"".join(taken)
        assert await read_exactly(peer, len(expected)) == expected
        await owner.was_drained.wait()
        assert outbox.waiting_bytes == 0
        assert outbox.offer(b"again")


async def test_a_small_notsent_limit_keeps_the_kernel_from_queueing(pair):
    ours, _ = pair
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, Nobody())
        outbox.pace(65536)
        fill(outbox)
        assert outbox.unsent() < 2 * 65536
        nursery.cancel_scope.cancel()


async def test_send_all_goes_after_the_tail_and_a_cancelled_waiter_takes_nothing_out(pair):
    ours, peer = pair
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, Nobody())
        outbox.pace(65536)
        expected = b"".join(fill(outbox)) + b"pong!" + b"close"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiters:
                waiters.start_soon(outbox.send_all, b"pong!")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        nursery.start_soon(outbox.send_all, b"close")
        assert await read_exactly(peer, len(expected)) == expected


async def test_a_peer_that_resets_is_told_once_and_costs_no_exception(pair):
    ours, peer = pair
    owner = Recorder()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, owner)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        await trio.lowlevel.wait_readable(ours)
        while outbox.offer(b"x" * 1000):
            pass
        assert outbox.offer(b"more") is False
        assert owner.ended_with == [CloseCode.ABNORMAL]


async def test_a_reset_while_bytes_wait_wakes_who_waits(pair):
    ours, peer = pair
    owner = Recorder()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, owner)
        fill(outbox)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(trio.BrokenResourceError):
            await outbox.send_all(b"late")
        assert owner.ended_with == [CloseCode.ABNORMAL]


async def test_after_shut_nothing_is_taken_but_the_tail_still_goes_out(pair):
    ours, peer = pair
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, Nobody())
        outbox.pace(65536)
        expected = b"".join(fill(outbox))
        outbox.shut()
        assert outbox.offer(b"no") is False
        assert await read_exactly(peer, len(expected)) == expected


async def test_acknowledged_moves_only_when_the_peer_reads(pair):
    ours, peer = pair
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, Nobody())
        outbox.pace(65536)
        taken = fill(outbox)
        await trio.testing.wait_all_tasks_blocked()
        before = outbox.acknowledged()
        assert outbox.acknowledged() == before
        await read_exactly(peer, len(taken) * 4096)
        assert outbox.acknowledged() > before


async def test_bytes_received_are_counted_and_the_end_is_empty(pair):
    ours, peer = pair
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, Nobody())
        peer.send(b"abc")
        assert await outbox.receive_some() == b"abc"
        assert outbox.received == 3
        peer.shutdown(socket.SHUT_WR)
        assert await outbox.receive_some() == b""


async def test_an_attached_owner_takes_the_place_of_the_first_until_the_outbox_closes(pair):
    ours, _ = pair
    first, second = Recorder(), Recorder()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, first)
        outbox.end(CloseCode.ABUSE)
        outbox.attach(second)
        outbox.end(CloseCode.SLOW)
        await outbox.aclose()
        outbox.end(CloseCode.IDLE)
        await outbox.aclose()
    assert (first.ended_with, second.ended_with) == ([CloseCode.ABUSE], [CloseCode.SLOW])
