"""Publishers under trio, asyncio and without a loop, at a real push feed: cuts, backpressure, ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading

import numpy as np
import pytest
import trio

from marketfeed.client import Cut, PublisherFullError, UnsentError, publisher, push_link
from marketfeed.client.push_link import PushLink
from marketfeed.client.unread import unread_bytes
from marketfeed.core.records import TRADE
from marketfeed.errors import ConfigError
from marketfeed.feeds.push import PushConfig, PushFeed
from marketfeed.testing import RecordingIntake
from tests.support.publishers import quotes


class Feed:
    """A push feed in a thread with a loop of its own, which can be stopped and started again."""

    def __init__(self, listen: str) -> None:
        self.address = listen
        self.intake = RecordingIntake()
        self._stop: trio.CancelScope | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run, ready))
        self._thread.start()
        assert ready.wait(30)

    async def _run(self, ready: threading.Event) -> None:
        feed = PushFeed(PushConfig(listen=self.address), self.intake)
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._stop = nursery.cancel_scope
            self.address = await nursery.start(feed.run, self.intake.publish)
            ready.set()

    def stop(self) -> None:
        if self._thread is not None:
            assert self._token is not None
            assert self._stop is not None
            self._token.run_sync_soon(self._stop.cancel)
            self._thread.join()
            self._thread = None

    def bids(self) -> list[int]:
        return self.intake.quotes["bid_px"].tolist()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(push_link, "CONFIRM_S", 0.01)
    monkeypatch.setattr(push_link, "FIRST_RETRY_S", 0.01)


def wait_until(out, done):
    """Wait until the thread has brought about what ``done`` finds."""
    with out._link.changed:
        while not done():
            out._link.changed.wait(0.01)


@pytest.fixture(params=["unix", "tcp", "tcp6"])
def feed(request, tmp_path):
    listen = {"unix": str(tmp_path / "push.sock"), "tcp": "127.0.0.1:0", "tcp6": "[::1]:0"}[request.param]
    one = Feed(listen)
    one.start()
    yield one
    one.stop()


async def publish_some(address):
    async with publisher(address, names={"A": 7}) as out:
        await out.wait_connected()
        out.quotes(quotes(7, 7))
        out.quote("B", bid="1.25", ask=1.5, bid_size=3, ts_event_ns=99)
        out.trade("B", price=1.375, size=2, side="b", trade_id=5, conditions="@")
        out.trades(np.zeros(0, TRADE))
        await out.drain()
        assert out.state == "connected"
        said = out.statistics()
        assert (said.quotes, said.trades, said.sent, said.waiting) == (3, 1, 4, 0)
        return out


def published_some(feed, out):
    """The block has ended: the engine has everything."""
    name = feed.intake.symbols.name
    assert [(name(q["symbol"]), q["bid_px"]) for q in feed.intake.quotes] == [
        ("A", 100),
        ("A", 101),
        ("B", 1_250_000_000),
    ]
    (trade,) = feed.intake.trades
    assert (name(trade["symbol"]), trade["price"], trade["trade_id"]) == ("B", 1_375_000_000, 5)
    assert out.statistics().in_doubt == out.statistics().in_flight == 0
    assert out.state == "disconnected"
    with pytest.raises(RuntimeError, match="the publisher is closed"):
        out.quotes(quotes(7))


def test_ticks_published_under_trio_have_arrived_at_the_end_of_the_block(feed):
    published_some(feed, trio.run(publish_some, feed.address))


def test_ticks_published_under_asyncio_have_arrived_at_the_end_of_the_block(feed):
    published_some(feed, asyncio.run(publish_some(feed.address)))


def test_ticks_published_without_a_loop_have_arrived_at_the_end_of_the_block(feed):
    with publisher(feed.address, names={"A": 7}) as out:
        out.wait_connected(30)
        out.quotes(quotes(7, 7))
        out.quote("B", bid="1.25", ask=1.5)
        out.trade("B", price=1.375, size=2, side="b", trade_id=5)
        out.drain(30)
    published_some(feed, out)


def test_it_may_start_before_the_engine_and_survives_its_end(feed, caplog):
    caplog.set_level(logging.DEBUG, "marketfeed.client.publisher")
    feed.stop()
    cuts: list[Cut] = []
    with publisher(feed.address, on_cut=cuts.append) as out:
        ids = out.announce(["A", "B"])
        out.quotes(quotes(*ids))
        assert out.statistics().waiting == 2
        wait_until(out, lambda: out._link.reason)
        for lives in range(1, 4):
            feed.start()
            out.drain(30)
            wait_until(out, lambda: not out._link.core.in_flight)  # known to be published
            feed.stop()
            wait_until(out, lambda n=lives: out._link.cuts == n)
            out.quotes(quotes(*ids, bid=1000 * lives))
        feed.start()
    assert feed.bids() == [100, 101, 1000, 1001, 2000, 2001, 3000, 3001]
    said = out.statistics()
    assert (said.connects, said.cuts, said.in_doubt, said.sent) == (4, 3, 0, 8)
    assert [cut.in_doubt for cut in cuts] == [0, 0, 0]
    assert "trying again" in caplog.text
    assert "no tick lost" in caplog.text


class Deaf:
    """A listener that accepts and does not read."""

    def __init__(self, folder, tcp: bool) -> None:
        self.listener = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        self.listener.bind(("127.0.0.1", 0) if tcp else str(folder / "deaf.sock"))
        self.listener.listen()
        name = self.listener.getsockname()
        self.address = f"127.0.0.1:{name[1]}" if tcp else name

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()


@pytest.fixture(params=["unix", "tcp"])
def deaf(request, tmp_path):
    with Deaf(tmp_path, request.param == "tcp") as one:
        yield one


def test_what_a_dead_engine_had_not_read_is_in_doubt_and_the_rest_is_sent_again(deaf):
    with contextlib.ExitStack() as ends:
        cuts: list[Cut] = []
        out = ends.enter_context(publisher(deaf.address, names={"A": 0}, on_cut=cuts.append))
        out.wait_connected(30)
        peer = ends.enter_context(deaf.listener.accept()[0])
        while not out.statistics().waiting:
            out.quotes(quotes(*[0] * 1000))
        taken, waiting = out.statistics().quotes, out.statistics().waiting
        peer.close()
        peer = ends.enter_context(deaf.listener.accept()[0])
        assert (cuts[0].in_doubt, cuts[0].waiting) == (taken - waiting, waiting)
        assert "connection lost" in cuts[0].reason
        threading.Thread(target=read_all, args=(peer,)).start()
        out.drain(30)
        assert out.statistics().sent == taken


def read_all(peer):
    with contextlib.suppress(OSError):
        while peer.recv(1 << 16):
            pass
        peer.close()


def fill(out):
    while True:
        out.quotes(quotes(*[0] * 1000))


def test_a_buffer_that_is_full_is_told_and_drain_waits_for_room(deaf):
    async def main():
        async with publisher(deaf.address, names={"A": 0}, buffer_bytes=100_000) as out:
            peer = deaf.listener.accept()[0]
            with pytest.raises(PublisherFullError, match="the buffer has no room for 1,000 ticks"):
                fill(out)
            with trio.move_on_after(0) as soon:
                await out.drain()
            assert soon.cancelled_caught
            threading.Thread(target=read_all, args=(peer,)).start()
            await out.drain()
            out.quotes(quotes(*[0] * 1000))
        said = out.statistics()
        assert said.waiting == said.in_doubt == 0

    trio.run(main)


def test_while_the_peer_does_not_read_the_thread_waits(deaf, monkeypatch):
    woken = []

    def write(fd, value):
        woken.append(threading.current_thread())
        write_eventfd(fd, value)

    write_eventfd = os.eventfd_write
    monkeypatch.setattr(os, "eventfd_write", write)
    with publisher(deaf.address, names={"A": 0}, buffer_bytes=100_000, close_s=0.0) as out:
        peer = deaf.listener.accept()[0]
        with pytest.raises(PublisherFullError):
            fill(out)
        polls = iter(range(5))
        poll = out._link._poll
        done = threading.Event()

        def polled(*arguments):
            if next(polls, None) is None:
                done.set()
            return poll(*arguments)

        monkeypatch.setattr(out._link, "_poll", polled)
        assert done.wait(30)
        out.discard()
        threading.Thread(target=read_all, args=(peer,)).start()
        out.drain(30)
    assert out._link._thread not in woken


def test_what_cannot_be_sent_at_the_end_is_an_error(tmp_path):
    def blocking():
        with publisher(str(tmp_path / "nobody"), names={"A": 0}, close_s=0.0) as out:
            out.quotes(quotes(0, 0))
            wait_until(out, lambda: out._link.reason)

    with pytest.raises(UnsentError, match=r"nobody: 2 ticks not sent: No such file or directory"):
        blocking()

    async def main():
        async with publisher(str(tmp_path / "nobody"), names={"A": 0}, close_s=0.0) as out:
            out.quotes(quotes(0, 0))

    with pytest.raises(UnsentError, match="2 ticks not sent"):
        trio.run(main)
    with pytest.raises(UnsentError, match="2 ticks not sent"):
        asyncio.run(main())


def test_an_error_of_the_block_comes_through_and_what_was_not_sent_is_logged(tmp_path, caplog):
    def failing():
        with publisher(str(tmp_path / "nobody"), names={"A": 0}) as out:
            out.quotes(quotes(0, 0))
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert "2 ticks not sent" in caplog.text


def test_a_cancelled_block_does_not_wait_for_the_engine(deaf):
    async def main():
        with trio.CancelScope() as scope:
            async with publisher(deaf.address, names={"A": 0}) as out:
                await out.wait_connected()
                out.quotes(quotes(0))
                scope.cancel()
                await out.drain()
                await trio.sleep_forever()
        assert scope.cancelled_caught

    trio.run(main)


def test_what_answers_is_no_push_feed(deaf):
    cuts: list[Cut] = []
    told = threading.Event()

    def on_cut(cut):
        cuts.append(cut)
        told.set()

    with publisher(deaf.address, on_cut=on_cut):
        peer = deaf.listener.accept()[0]
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert told.wait(30)
        peer.close()
    assert str(cuts[0]) == "it answers, so it is no push feed: no tick lost"


def test_heartbeats_are_sent_while_there_is_nothing_else(deaf):
    with publisher(deaf.address, heartbeat_s=0.0, close_s=0.0), deaf.listener.accept()[0] as peer:
        assert peer.recv(16, socket.MSG_WAITALL)[:2] == b"\x01\x05"


def test_an_error_in_the_thread_is_raised_to_the_caller(deaf, monkeypatch, caplog):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(PushLink, "_serve", broken)
    with publisher(deaf.address) as out, pytest.raises(RuntimeError, match="has failed") as failed:
        out.wait_connected(30)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert "publisher failed" in caplog.text


def test_waiting_ends_with_the_time_given(tmp_path):
    with publisher(str(tmp_path / "nobody")) as out, pytest.raises(TimeoutError, match="nobody"):
        out.wait_connected(0.0)


@pytest.mark.parametrize("address", ["nowhere", ":1", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:x", ""])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ConfigError, match=r"^address: HOST:PORT or the path of a Unix socket"):
        publisher(address)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_bytes_that_the_peer_has_not_read_are_known_over_tcp(family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as ours,
        listener.accept()[0] as theirs,
    ):
        assert unread_bytes(ours) == 0
        ours.sendall(bytes(1000))
        assert unread_bytes(ours) == 1000
        theirs.recv(400)
        assert unread_bytes(ours) == 600
        theirs.recv(1000)
        assert unread_bytes(ours) == 0


def test_bytes_that_the_peer_has_not_read_are_known_over_a_unix_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(bytes(1000))
        assert unread_bytes(ours) != 0
        theirs.recv(1000)
        assert unread_bytes(ours) == 0
