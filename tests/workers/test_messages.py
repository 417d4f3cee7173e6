"""Control messages survive the socket whole, however it cuts them; what is none is refused."""

from __future__ import annotations

import array
import os
import resource
import socket
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.api.answers import LedgerRow
from marketfeed.api.operations import Channels, SessionList, SessionRow
from marketfeed.config.schema import Config, load
from marketfeed.errors import ControlError
from marketfeed.fanout.ledger import Ledger
from marketfeed.server.stats import ServerStats
from marketfeed.workers import messages as control
from marketfeed.workers.channel import Channel
from marketfeed.workers.framing import HEAD, MAX_FRAME_BYTES, VERSION, Unframer, encode
from marketfeed.workers.messages import Down, Up

NUMBERS = st.integers(0, 2**53)
TEXTS = st.text(max_size=40)
DOWN = st.one_of(
    st.builds(control.Connection, NUMBERS, TEXTS),
    st.builds(control.Verdict, NUMBERS, st.none() | TEXTS),
    st.builds(control.AskReport, NUMBERS),
    st.builds(control.AskListing, NUMBERS, NUMBERS, st.booleans()),
    st.builds(control.CheckAlive),
    st.builds(control.Drain, st.floats(0, 100)),
    st.builds(
        control.AlertsAnswered,
        NUMBERS,
        st.sampled_from(["done", "cancelled", "log", "refused", "conflict", "off"]),
        st.binary(max_size=40),
        TEXTS,
    ),
    st.builds(control.Retire, st.floats(0, 100), st.floats(0, 100)),
    st.builds(control.Start, NUMBERS, st.just(Config()), TEXTS, NUMBERS),
)
REPORTS = st.builds(
    ServerStats,
    sessions=st.dictionaries(st.tuples(TEXTS, TEXTS), NUMBERS, max_size=3),
    ledgers=st.dictionaries(TEXTS, st.builds(Ledger, NUMBERS, NUMBERS), max_size=3),
)
CHANNELS = st.builds(Channels, NUMBERS, NUMBERS)
ROWS = st.builds(
    SessionRow,
    worker=NUMBERS | st.just(msgspec.UNSET),
    session=TEXTS,
    address=TEXTS,
    transport=TEXTS,
    tier=TEXTS,
    phase=NUMBERS,
    encoding=TEXTS,
    age_s=st.floats(0, 1e9),
    state=TEXTS,
    slow=st.none() | TEXTS,
    names=CHANNELS,
    symbols=CHANNELS,
    alerts=NUMBERS,
    unsent_bytes=NUMBERS,
    ledger=st.dictionaries(TEXTS, st.builds(LedgerRow, *[NUMBERS] * 6), max_size=2),
)
LISTINGS = st.builds(SessionList, NUMBERS, NUMBERS, st.lists(ROWS, max_size=3))
UP = st.one_of(
    st.builds(control.Ready, TEXTS, NUMBERS),
    st.builds(control.Failed, TEXTS),
    *(
        st.builds(kind, NUMBERS)
        for kind in (control.Accepted, control.Returned, control.Ended, control.Synced)
    ),
    st.builds(control.Admit, NUMBERS, TEXTS),
    st.builds(control.Release, TEXTS),
    st.builds(control.AskAlerts, NUMBERS, st.binary(max_size=40)),
    st.builds(control.CancelAlerts, NUMBERS),
    st.builds(control.LeaveAlerts, TEXTS),
    st.builds(control.Alive),
    st.builds(control.Reported, NUMBERS, REPORTS),
    st.builds(control.Listed, NUMBERS, LISTINGS),
)


@pytest.mark.parametrize(("direction", "messages"), [(Down, DOWN), (Up, UP)], ids=["down", "up"])
def test_messages_come_out_as_they_went_in_however_they_are_cut(direction, messages):
    @given(st.lists(messages, max_size=8), st.lists(st.integers(1, 50), min_size=1))
    def check(sent, cuts):
        data = b"".join(map(encode, sent))
        unframer: Unframer[object] = Unframer(direction)
        got, at, turn = list[object](), 0, 0
        while at < len(data):
            size = cuts[turn % len(cuts)]
            got += unframer.feed(data[at : at + size])
            at, turn = at + size, turn + 1
        assert got == sent

    check()


def decoder_of_down() -> Unframer[Any]:
    """Return a decoder of what the engine sends to workers."""
    direction: Any = Down  # a union of types, which msgspec takes
    return Unframer(direction)


def test_a_whole_configuration_goes_down(tmp_path):
    config = load(None, []).config
    (start,) = decoder_of_down().feed(encode(control.Start(1, config, "/x", 8765)))
    assert start.config == config


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (HEAD.pack(VERSION + 1, 0), "version 2"),
        (HEAD.pack(VERSION, MAX_FRAME_BYTES + 1), "bytes"),
        (HEAD.pack(VERSION, 1) + b"\xc1", "not a control message"),
        (HEAD.pack(VERSION, 1) + b"\xc0", "not a control message"),
        (encode(control.Alive()), "not a control message"),  # of the other direction
    ],
)
def test_what_is_no_message_is_refused(data, told):
    with pytest.raises(ControlError, match=told):
        list(decoder_of_down().feed(data))


@given(st.binary(max_size=60))
def test_junk_is_refused_or_waits_for_more(data):
    try:
        for message in decoder_of_down().feed(HEAD.pack(VERSION, len(data)) + data):
            assert isinstance(message, msgspec.Struct)
    except ControlError:
        return


def channels() -> tuple[Channel[object], Channel[object]]:
    ours, theirs = socket.socketpair()
    up: Any = Up  # a union of types, which msgspec takes
    down: Any = Down
    return Channel(ours, up), Channel(theirs, down)


async def test_sockets_arrive_with_their_messages_in_order_among_others():
    engine, worker = channels()
    pipes = [os.pipe() for _ in range(40)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.drain)
        for number, (read_end, _) in enumerate(pipes):
            engine.send(control.CheckAlive())
            engine.send(control.Connection(number, "127.0.0.1"), read_end)
        for number, (read_end, write_end) in enumerate(pipes):
            assert await worker.receive() == (control.CheckAlive(), None)
            received = await worker.receive()
            assert received is not None
            message, descriptor = received
            assert descriptor is not None
            assert message == control.Connection(number, "127.0.0.1")
            assert os.fstat(descriptor).st_ino == os.fstat(write_end).st_ino
            for end in (read_end, write_end, descriptor):
                os.close(end)
        nursery.cancel_scope.cancel()
    engine.close()
    assert await worker.receive() is None
    worker.close()


async def test_what_the_kernel_does_not_take_is_sent_later_and_whole():
    engine, worker = channels()
    row = SessionRow(
        session="x" * 1000,
        address="192.0.2.1",
        transport="sse",
        tier="vip",
        phase=0,
        encoding="sse",
        age_s=0,
        state="live",
        slow=None,
        names=Channels(1, 0),
        symbols=Channels(1, 0),
        alerts=0,
        unsent_bytes=0,
        ledger={},
    )
    listing = SessionList(1, 1, [row] * 2000)  # 2 MB
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.drain)
        worker.send(control.Listed(1, listing))
        worker.send(control.Alive())
        assert await engine.receive() == (control.Listed(1, listing), None)
        assert await engine.receive() == (control.Alive(), None)
        await worker.flushed()
        nursery.cancel_scope.cancel()
    engine.close()
    worker.send(control.Alive())  # to nobody: forgotten
    worker.send(control.Alive())
    worker.close()


async def test_a_socket_that_this_process_has_no_room_for_is_told_apart_from_the_next():
    engine, worker = channels()
    read_end, write_end = os.pipe()
    engine.send(control.Connection(1, "a"), read_end)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    spares = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, limits[1]))
        while True:
            try:
                spares.append(os.dup(read_end))
            except OSError:
                break
        assert await worker.receive() == (control.Connection(1, "a"), None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for spare in spares:
            os.close(spare)
    engine.send(control.Connection(2, "b"), read_end)
    received = await worker.receive()
    assert received is not None
    message, descriptor = received
    assert message == control.Connection(2, "b")
    assert descriptor is not None
    for end in (read_end, write_end, descriptor):
        os.close(end)
    engine.close()
    worker.close()


async def test_sockets_that_nobody_takes_are_closed_with_the_channel():
    engine, worker = channels()
    read_end, write_end = os.pipe()
    engine.send(control.CheckAlive())
    engine.send(control.Connection(1, "a"), read_end)
    os.close(read_end)
    assert await worker.receive() == (control.CheckAlive(), None)
    worker.close()
    engine.close()
    with pytest.raises(BrokenPipeError):  # no reader is left, not even in flight
        os.write(write_end, array.array("b", [1]))
    os.close(write_end)
