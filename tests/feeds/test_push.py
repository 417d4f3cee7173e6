"""The push feed over real sockets: valid streams, and errors that close only one publisher."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.binary import (
    HEADER,
    MAX_PAYLOAD_BYTES,
    Kind,
    frame_header,
    heartbeat_frame,
    messages_frame,
    quotes_frame,
    symbols_frame,
    trades_frame,
)
from marketfeed.core.records import QUOTE, QUOTES, TRADE, TRADES
from marketfeed.errors import ConfigError
from marketfeed.feeds.push import FRAME_S, REST_S, PushConfig, PushFeed
from marketfeed.feeds.push.address import Listener
from marketfeed.feeds.push.publisher import BATCH_TICKS, STEP_NAMES, Publisher, PublisherCut
from marketfeed.testing import RecordingIntake, check_feed

TIME_NS = 1_725_000_000_000_000_000


def quotes(*ids: int, bid: int = 100):
    """Return quotes of these ids; ``bid_px`` counts up, so that each is unique."""
    records = np.zeros(len(ids), QUOTE)
    records["symbol"] = ids
    records["ts_event"] = TIME_NS
    records["bid_px"] = bid + np.arange(len(ids))
    records["ask_px"] = records["bid_px"] + 1
    records["bid_sz"] = records["ask_sz"] = 1
    return records


def trades(*ids: int, price: int = 100, side: int = ord("b")):
    records = np.zeros(len(ids), TRADE)
    records["symbol"] = ids
    records["ts_event"] = TIME_NS
    records["price"] = price + np.arange(len(ids))
    records["size"] = 1
    records["side"] = side
    return records


def detailed(records, kind: int = 0, cond: bytes = b""):
    records["kind"] = kind
    records["cond"] = cond
    return records


AB = symbols_frame({"A": 0, "B": 1}, 0)
GOOD = AB + quotes_frame(quotes(0), 0)


class Running:
    """A running push feed and its clients."""

    def __init__(self, feed: PushFeed, intake: RecordingIntake, address: str) -> None:
        self.feed, self.intake, self.address = feed, intake, address

    async def connect(self) -> trio.SocketStream:
        if "/" in self.address:
            return await trio.open_unix_socket(self.address)
        host, _, port = self.address.rpartition(":")
        return await trio.open_tcp_stream(host.strip("[]"), int(port))

    async def send_all(self, data: bytes) -> None:
        """Send ``data`` as a publisher, close, and wait until the feed has closed, too."""
        stream = await self.connect()
        await stream.send_all(data)
        await leave(stream)

    def reasons(self) -> list[str]:
        return [entry["reason"] for entry in self.intake.logged if entry["event"] == "publisher cut"]

    def detail(self) -> str:
        (entry,) = [entry for entry in self.intake.logged if entry["event"] == "publisher cut"]
        return entry["detail"]


async def leave(stream: trio.SocketStream) -> None:
    """Half-close, and wait until the feed closes the connection after its last frame."""
    # Broken if the feed closed earlier, or with unread data.
    with suppress(trio.BrokenResourceError):
        await stream.send_eof()
    await wait_closed(stream)
    await stream.aclose()


async def wait_closed(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        assert await stream.receive_some(1) == b""


@asynccontextmanager
async def running(listen: str, intake: RecordingIntake | None = None, **keys):
    intake = intake or RecordingIntake()
    feed = PushFeed(PushConfig(listen=listen, **keys), intake)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(feed.run, intake.publish)
        yield Running(feed, intake, address)
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["unix", "tcp", "tcp6"])
def listen(request, tmp_path):
    return {"unix": f"{tmp_path}/push.sock", "tcp": "127.0.0.1:0", "tcp6": "[::1]:0"}[request.param]


@pytest.fixture
def path(tmp_path):
    return f"{tmp_path}/push.sock"


# Valid streams


async def test_ticks_arrive_with_the_engines_ids(listen):
    async with running(listen) as push:
        push.intake.symbols.intern("Z")
        sent = quotes(7, 3, 7)
        await push.send_all(symbols_frame({"B": 7, "A": 3}, 0) + quotes_frame(sent, 0))
        table = push.intake.symbols
        assert [table.name(number) for number in push.intake.quotes["symbol"]] == ["B", "A", "B"]
        for column in ("ts_event", "bid_px", "ask_px", "bid_sz", "ask_sz"):
            assert push.intake.quotes[column].tolist() == sent[column].tolist()
        assert push.intake.events == {"publisher_connected": 1}


async def test_publishers_may_use_one_id_for_different_symbols(path):
    async with running(path) as push:
        first, second = await push.connect(), await push.connect()
        await first.send_all(symbols_frame({"A": 0}, 0))
        await second.send_all(symbols_frame({"B": 0}, 0))
        for stream, bid in ((first, 1), (second, 2), (first, 3)):
            await stream.send_all(quotes_frame(quotes(0, bid=bid), 0))
        for stream in (first, second):
            await leave(stream)
        names = [push.intake.symbols.name(number) for number in push.intake.quotes["symbol"]]
        assert sorted(zip(push.intake.quotes["bid_px"].tolist(), names, strict=True)) == [
            (1, "A"),
            (2, "B"),
            (3, "A"),
        ]


async def test_quotes_and_trades_keep_their_order(path):
    async with running(path) as push:
        await push.send_all(
            AB
            + quotes_frame(quotes(0, 1), 0)
            + trades_frame(trades(1), 0)
            + heartbeat_frame(0)
            + messages_frame([b'{"T":"status"}'], 0)
            + quotes_frame(quotes(0), 0)
        )
        (batch,) = [batch for batch in push.intake.batches if len(batch)]
        assert batch.channels.tolist() == [QUOTES, QUOTES, TRADES, QUOTES]
        assert push.intake.events["message_ignored"] == 1


async def test_a_later_announcement_holds_from_there_on(path):
    async with running(path) as push:
        await push.send_all(
            AB + quotes_frame(quotes(0), 0) + symbols_frame({"C": 0}, 0) + quotes_frame(quotes(0, 1), 0)
        )
        names = [push.intake.symbols.name(number) for number in push.intake.quotes["symbol"]]
        assert names == ["A", "C", "B"]


async def test_names_beyond_a_full_symbol_table_are_left_out_and_the_rest_is_taken(path):
    async with running(path, RecordingIntake(max_symbols=1)) as push:
        await push.send_all(
            AB
            + quotes_frame(quotes(0, 1, 1, 0), 0)
            + trades_frame(trades(1, 0), 0)
            + quotes_frame(quotes(0), 0)
        )
        assert push.intake.quotes["bid_px"].tolist() == [100, 103, 100]
        assert push.intake.trades["price"].tolist() == [101]
        assert push.intake.batches[-1].channels.tolist() == [QUOTES, QUOTES, TRADES, QUOTES]
        assert push.intake.events["left_out"] == 3
        assert push.reasons() == []


async def test_a_side_left_0_is_unknown(path):
    async with running(path) as push:
        await push.send_all(
            AB + trades_frame(trades(0, side=0), 0) + trades_frame(trades(0, side=ord("s")), 0)
        )
        assert bytes(push.intake.trades["side"]) == b"-s"


async def test_conditions_arrive_and_cancels_and_corrections_are_the_pumps_to_count(path):
    frames = [detailed(trades(0), cond=b"@FTI"), detailed(trades(0), kind=1), detailed(trades(0), kind=2)]
    async with running(path) as push:
        await push.send_all(AB + b"".join(trades_frame(records, 0) for records in frames))
        assert push.intake.trades["kind"].tolist() == [0, 1, 2]
        assert push.intake.trades["cond"].tolist() == [b"@FTI", b"", b""]
        assert push.reasons() == []


async def test_a_frame_larger_than_a_batch_comes_in_several(path):
    count = 3 * BATCH_TICKS + 1
    sent = quotes(*(number % 2 for number in range(count)))
    async with running(path) as push:
        await push.send_all(AB + quotes_frame(sent, 0))
        assert max(map(len, push.intake.batches)) == BATCH_TICKS
        assert push.intake.quotes["bid_px"].tolist() == sent["bid_px"].tolist()


async def test_many_small_frames_come_as_one_batch(path):
    publisher = Publisher({"A": 0, "B": 1}.get, lambda event, times: None)
    publisher.feed(AB + b"".join(quotes_frame(quotes(0), 0) for _ in range(100)))
    assert [len(batch) for batch in iter(publisher.next_batch, None)] == [0, 100]


async def test_the_shared_checks_of_all_feeds(path):
    async def publish_for_ever():
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(AB)
            while True:
                await stream.send_all(quotes_frame(quotes(0, 1, 0), 0) + trades_frame(trades(1), 0))

    async def publish_again_and_again():
        while True:
            try:
                await publish_for_ever()
            except (OSError, trio.BrokenResourceError):
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_again_and_again)
        await check_feed(PushFeed, {"listen": path})
        nursery.cancel_scope.cancel()


# Errors of publishers


def bad_symbols(payload: bytes) -> bytes:
    return frame_header(Kind.SYMBOLS, len(payload), 0) + payload


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "malformed", "frame version 71, not 1"),
        (HEADER.pack(2, 2, 0, 0, 0), "malformed", "frame version 2, not 1"),
        (HEADER.pack(1, 6, 0, 0, 0), "malformed", "frame kind 6, not 1 to 5"),
        (HEADER.pack(1, 2, 0, 65, 0), "malformed", "no multiple of 64"),
        (HEADER.pack(1, 2, 0, MAX_PAYLOAD_BYTES + 64, 0), "malformed", "at most 16777216"),
        (HEADER.pack(1, 5, 0, 8, 0) + bytes(8), "malformed", "at most 0"),
        (bad_symbols(b"not json"), "malformed", "is not JSON"),
        (bad_symbols(b'{"A B":3}'), "malformed", "invalid symbol: 'A B'"),
        (bad_symbols(b'{"C":70000}'), "malformed", "gives C the id 70000"),
        (trades_frame(trades(0, side=ord('"')), 0), "malformed", "side that is not b, s or -"),
        (trades_frame(detailed(trades(0), kind=3), 0), "malformed", "kind that is not 0, 1 or 2"),
        (trades_frame(detailed(trades(0), cond=b'@"'), 0), "malformed", "conditions that are not printable"),
        (
            quotes_frame(quotes(0, 9, 8), 0),
            "unannounced",
            "a quotes frame uses id 9, which was not announced",
        ),
        (trades_frame(trades(9), 0), "unannounced", "a trades frame uses id 9, which was not announced"),
        (quotes_frame(quotes(0), 0)[:-1], "unfinished", "closed within a frame, after 79 bytes of it"),
        (b"\x01", "unfinished", "closed within a frame, after 1 bytes of it"),
    ],
)
async def test_what_is_bad_ends_its_publisher_alone_and_what_came_before_stays(listen, bad, reason, detail):
    async with running(listen) as push:
        other = await push.connect()
        await other.send_all(AB + quotes_frame(quotes(0), 0))
        after = b"" if reason == "unfinished" else quotes_frame(quotes(0, bid=999), 0)
        await push.send_all(AB + quotes_frame(quotes(0, bid=1), 0) + bad + after)
        assert push.reasons() == [reason]
        assert detail in push.detail()
        assert push.intake.events["publisher_cut"] == push.intake.events[f"publisher_cut_{reason}"] == 1
        await other.send_all(quotes_frame(quotes(1, bid=2), 0))
        await leave(other)
        assert sorted(push.intake.quotes["bid_px"].tolist()) == [1, 2, 100]
        assert len(push.intake.trades) == 0


async def test_a_frame_with_one_unannounced_id_is_not_taken_at_all(path):
    async with running(path) as push:
        await push.send_all(
            AB
            + trades_frame(trades(0), 0)
            + quotes_frame(quotes(0, 1), 0)
            + quotes_frame(quotes(0, 1, 2, bid=500), 0)
            + trades_frame(trades(1), 0)
        )
        assert push.intake.quotes["bid_px"].tolist() == [100, 101]
        assert len(push.intake.trades) == 1
        assert push.reasons() == ["unannounced"]


async def test_a_large_frame_with_an_unannounced_id_at_its_end_is_not_taken_at_all(path):
    async with running(path) as push:
        await push.send_all(AB + quotes_frame(quotes(*[0] * BATCH_TICKS * 2, 5), 0))
        assert len(push.intake.quotes) == 0
        assert push.reasons() == ["unannounced"]


async def test_the_first_of_two_faults_is_the_one_told(path):
    async with running(path) as push:
        await push.send_all(AB + quotes_frame(quotes(5), 0) + b"junk" * 10)
        assert push.reasons() == ["unannounced"]


async def test_a_publisher_that_stops_within_a_frame_is_cut_in_time_and_costs_nobody_else(
    path, autojump_clock
):
    async with running(path) as push:
        stuck, other = await push.connect(), await push.connect()
        begun_s = trio.current_time()
        await stuck.send_all(GOOD + quotes_frame(quotes(0), 0)[:40])
        await other.send_all(GOOD)
        await wait_closed(stuck)
        await stuck.aclose()
        assert trio.current_time() - begun_s == FRAME_S
        assert push.reasons() == ["stalled"]
        await other.send_all(quotes_frame(quotes(1), 0))
        await leave(other)
        assert len(push.intake.quotes) == 3


async def test_dripping_does_not_stretch_the_time_for_a_frame(path, autojump_clock):
    async def drip(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            for byte in quotes_frame(quotes(0), 0):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.9)

    async with running(path) as push, trio.open_nursery() as nursery:
        stuck = await push.connect()
        await stuck.send_all(AB)
        nursery.start_soon(drip, stuck)
        await wait_closed(stuck)
        assert trio.current_time() == FRAME_S
        assert push.reasons() == ["stalled"]
        nursery.cancel_scope.cancel()
    await stuck.aclose()


async def test_each_frame_has_the_whole_time(path, autojump_clock):
    frame = quotes_frame(quotes(0), 0)
    async with running(path) as push:
        slow = await push.connect()
        await slow.send_all(AB + frame[:9])
        for _ in range(5):
            await trio.sleep(FRAME_S - 1)
            await slow.send_all(frame[9:] + frame[:9])
        await slow.send_all(frame[9:])
        await trio.sleep(100 * FRAME_S)  # no timeout between frames
        await slow.send_all(frame)
        await leave(slow)
        assert len(push.intake.quotes) == 7
        assert push.reasons() == []


async def test_a_flood_leaves_others_their_turns(path):
    flood = quotes_frame(quotes(*[0] * 1000, bid=10_000), 0) * 50

    async def send_for_ever(stream: trio.SocketStream) -> None:
        await stream.send_all(AB)
        while True:
            await stream.send_all(flood)

    async with running(path) as push, trio.open_nursery() as nursery:
        flooding = await push.connect()
        nursery.start_soon(send_for_ever, flooding)
        quiet = await push.connect()
        await quiet.send_all(AB)
        for bid in range(20):
            await quiet.send_all(quotes_frame(quotes(1, bid=bid), 0))
        await leave(quiet)
        nursery.cancel_scope.cancel()
    bids = push.intake.quotes["bid_px"]
    assert bids[bids < 10_000].tolist() == list(range(20))
    assert max(map(len, push.intake.batches)) <= BATCH_TICKS
    await flooding.aclose()


async def test_a_connection_that_is_reset_is_lost_and_no_more():
    async with running("127.0.0.1:0") as push:
        stream = await push.connect()
        # Makes close() reset the connection.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await push.send_all(GOOD)
        assert len(push.intake.quotes) == 1
        assert push.intake.events == {"publisher_connected": 2, "publisher_lost": 1}


async def test_an_engine_that_fails_on_one_publishers_ticks_serves_the_others(path):
    intake = RecordingIntake()

    def publish(batch):
        if batch.quotes["bid_px"][0] == 666:
            raise IndexError("no such symbol")
        intake.publish(batch)

    feed = PushFeed(PushConfig(listen=path), intake)
    async with trio.open_nursery() as nursery:
        push = Running(feed, intake, await nursery.start(feed.run, publish))
        await push.send_all(AB + quotes_frame(quotes(0, bid=666), 0))
        await push.send_all(GOOD)
        nursery.cancel_scope.cancel()
    assert intake.quotes["bid_px"].tolist() == [100]
    assert intake.events["publisher_failed"] == 1


async def test_publishers_beyond_the_limit_are_refused_until_one_leaves(path):
    async with running(path, max_publishers=1) as push:
        first = await push.connect()
        await push.send_all(b"")
        assert push.intake.events["publisher_refused"] == 1
        await leave(first)
        await push.send_all(GOOD)
        assert len(push.intake.quotes) == 1


@given(st.binary(max_size=300), st.lists(st.integers(0, 100), max_size=10))
def test_junk_cuts_and_never_raises_anything_else(junk, sizes):
    publisher = Publisher({"A": 0, "B": 1}.get, lambda event, times: None)
    stream, taken = GOOD + junk, 0
    try:
        for size in [*sizes, len(stream)]:
            publisher.feed(stream[:size])
            stream = stream[size:]
            while (batch := publisher.next_batch()) is not None:
                taken += len(batch)
    except PublisherCut as cut:
        assert cut.reason in ("malformed", "unannounced")  # noqa: PT017
    assert taken >= 1


# Listening addresses


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("0.0.0.0:8770", "no authentication: '0.0.0.0' is not allowed, only loopback or a Unix socket"),
        ("[::]:8770", "no authentication"),
        ("192.168.1.7:8770", "no authentication"),
        ("example.com:8770", "no authentication"),
        ("127.0.0.1", "host:port or the path"),
        ("127.0.0.1:http", "host:port or the path"),
        ("127.0.0.1:65536", "host:port or the path"),
        (":8770", "host:port or the path"),
        ("", "host:port or the path"),
        ("./" + "x" * 120, "at most 107 bytes"),
    ],
)
def test_an_address_that_cannot_be_is_a_configuration_error(listen, said):
    with pytest.raises(ConfigError) as raised:
        PushFeed(PushConfig(listen=listen), RecordingIntake())
    assert str(raised.value).startswith("listen: ")
    assert said in str(raised.value)


async def test_a_relative_path_starts_at_the_configurations_folder(tmp_path):
    async with running("./push.sock", RecordingIntake(base=tmp_path)) as push:
        assert push.address == f"{tmp_path}/push.sock"
        await push.send_all(GOOD)
        assert len(push.intake.quotes) == 1


async def test_a_unix_socket_is_its_owners_alone_and_gone_at_the_end(path):
    async with running(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not os.path.exists(path)


async def test_a_socket_file_that_nobody_answers_on_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    async with running(path) as push:
        await push.send_all(GOOD)
        assert len(push.intake.quotes) == 1


async def test_a_socket_that_answers_is_left_alone(path):
    async with running(path) as push:
        second = PushFeed(PushConfig(listen=path), RecordingIntake())
        with pytest.raises(OSError, match="another process is listening") as raised:
            await second.run(push.intake.publish)
        assert raised.value.errno == errno.EADDRINUSE
        await push.send_all(GOOD)
        assert len(push.intake.quotes) == 1


async def test_a_file_that_is_no_socket_is_left_alone(path):
    with open(path, "w") as file:
        file.write("precious")
    feed = PushFeed(PushConfig(listen=path), RecordingIntake())
    with pytest.raises(OSError, match="not a socket"):
        await feed.run(RecordingIntake().publish)
    with open(path) as file:
        assert file.read() == "precious"


async def test_a_socket_file_that_has_become_anothers_is_left_alone(path):
    async with running(path):
        os.unlink(path)
        other = socket.socket(socket.AF_UNIX)
        other.bind(path)
    assert os.path.exists(path)
    other.close()


async def test_a_port_in_use_is_an_error_that_names_it():
    async with running("127.0.0.1:0") as push:
        second = PushFeed(PushConfig(listen=push.address), RecordingIntake())
        with pytest.raises(OSError, match=f"cannot listen on {push.address}") as raised:
            await second.run(push.intake.publish)
        assert raised.value.errno == errno.EADDRINUSE


async def test_accepting_goes_on_after_it_failed(path, monkeypatch, autojump_clock):
    accept, failures = Listener.accept, [OSError(errno.EMFILE, "Too many open files")] * 3

    async def accept_at_last(listener):
        if failures:
            await trio.lowlevel.checkpoint()
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(Listener, "accept", accept_at_last)
    async with running(path) as push:
        await push.send_all(GOOD)
        assert len(push.intake.quotes) == 1
        assert push.intake.events["accept_failed"] == 3
        assert trio.current_time() == pytest.approx(3 * REST_S)


def test_an_announcement_of_all_names_there_can_be_is_taken_in_pieces():
    known, seen = dict[str, int](), []
    publisher = Publisher(lambda name: known.setdefault(name, len(known)), lambda event, times: None)
    names = {f"N{number}": number for number in range(65536)}
    publisher.feed(symbols_frame(names, 0) + quotes_frame(quotes(65535), 0))
    while (batch := publisher.next_batch()) is not None:
        seen.append(len(known))
        ticks = len(batch)
    assert max(np.diff(seen)) <= STEP_NAMES
    assert (seen.count(0), seen[-1], ticks) == (65536 // STEP_NAMES, 65536, 1)


def test_an_announcement_with_a_mistake_at_its_end_numbers_no_name():
    known: dict[str, int] = {}
    publisher = Publisher(lambda name: known.setdefault(name, len(known)), lambda event, times: None)
    publisher.feed(symbols_frame({f"N{number}": number for number in range(5000)} | {"A B": 5000}, 0))
    with pytest.raises(PublisherCut, match="invalid symbol: 'A B'"):
        list(iter(publisher.next_batch, None))
    assert not known
