"""The reading side of the tap, over rings written by the test."""

from __future__ import annotations

import os
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import marketfeed
from marketfeed import tap as connect
from marketfeed.core.records import CHANNELS, QUOTE, TRADE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import EngineGoneError, TapError
from marketfeed.shm.follower import Follower, Gap
from marketfeed.shm.tap import Tap

DEPTH = 8


class Engine:
    """The parts of an engine that a tap uses: rings, a doorbell and a connection."""

    def __init__(self, max_symbols: int = 16, depth: int = DEPTH) -> None:
        self.rings = Rings.shared(max_symbols, depth)
        self.symbols = SymbolTable(max_symbols, self.rings.names)
        self.writer = RingWriter(self.rings)
        self.door, door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.tap = Tap(Rings.attach(self.rings.fd), door, os.dup(self.bell))

    def publish(self, quotes: str = "", trades: str = "") -> None:
        """Publish a tick per letter, the symbol's name, and ring the doorbell."""
        batch = Batch(np.zeros(len(quotes), QUOTE), np.zeros(len(trades), TRADE))
        batch.quotes["symbol"] = [self.symbols.intern(name) for name in quotes]
        batch.trades["symbol"] = [self.symbols.intern(name) for name in trades]
        self.writer.write(batch)
        os.eventfd_write(self.bell, 1)

    def close(self) -> None:
        self.tap.close()
        self.door.close()
        os.close(self.bell)
        os.close(self.rings.fd)


@pytest.fixture
def engine():
    made = Engine()
    yield made
    made.close()


def test_the_package_gives_the_function():
    assert marketfeed.tap is connect
    assert callable(marketfeed.tap)


def test_names_are_seen_as_they_come(engine):
    tap = engine.tap
    assert tap.names() == []
    engine.publish("AB")
    assert tap.names() == ["A", "B"]
    assert (tap.id("B"), tap.id("C"), tap.name(0)) == (1, None, "A")
    engine.publish("C")
    assert tap.id("C") == 2
    assert tap.ids(["C", "*", "Z"]).tolist() == [2, 0, 1]
    with pytest.raises(IndexError):
        tap.name(3)


def test_latest_has_one_tick_of_each_symbol_that_has_any(engine):
    engine.publish("ABBA", trades="B")
    engine.symbols.intern("C")
    assert [(r["symbol"], r["n"]) for r in engine.tap.latest()] == [(0, 2), (1, 2)]
    assert [(r["symbol"], r["n"]) for r in engine.tap.latest(channel="trades")] == [(1, 1)]
    assert len(engine.tap.latest("C")) == 0
    assert engine.tap.latest(["B", "A"])["symbol"].tolist() == [1, 0]


def test_read_gives_what_the_ring_holds_oldest_first(engine):
    for _ in range(3):
        engine.publish("A" * 2 * (DEPTH // 4))
    assert engine.tap.read("A")["n"].tolist() == [5, 6, 7, 8, 9, 10, 11, 12]
    assert engine.tap.read("A", last=2)["n"].tolist() == [11, 12]
    assert engine.tap.read("A", last=0)["n"].tolist() == []
    assert engine.tap.read("A", "trades").dtype == TRADE
    assert engine.tap.read("unknown").dtype == QUOTE
    assert len(engine.tap.read("unknown")) == 0


def test_a_channel_that_is_none_is_named(engine):
    with pytest.raises(ValueError, match="one of quotes, trades, not 'quote'"):
        engine.tap.read("A", "quote")


def test_views_are_live_and_cannot_be_written(engine):
    slots = engine.tap.quotes
    assert slots.shape == (16, DEPTH)
    assert engine.tap.trades.dtype == TRADE
    engine.publish("A")
    assert slots[0, 0]["n"] == 1
    with pytest.raises(ValueError, match="read-only"):
        slots["bid_px"][0, 0] = 1
    with pytest.raises(ValueError):
        slots.flags.writeable = True


def test_a_follower_gets_what_comes_after_it_was_made(engine):
    engine.publish("A")
    follower = engine.tap.follow("A")
    assert not follower.take()
    engine.publish("AB", trades="A")
    step = follower.take()
    assert (step.quotes["n"].tolist(), step.trades["n"].tolist(), step.gaps) == ([2], [1], [])
    assert step.head == 4
    assert not follower.take()


def test_a_follower_of_what_is_held_starts_with_that(engine):
    engine.publish("ABA")
    follower = engine.tap.follow(held=True)
    assert follower.take().quotes["g"].tolist() == [1, 2, 3]


def test_a_follower_of_one_channel_gets_no_other(engine):
    follower = engine.tap.follow(channels=["trades"])
    engine.publish("AB", trades="B")
    step = follower.take()
    assert (len(step.quotes), len(step.trades)) == (0, 1)


def test_symbols_that_come_later_join_the_pattern(engine):
    follower = engine.tap.follow(["B*", "Z"])
    engine.publish("ABZ")
    assert [engine.tap.name(symbol) for symbol in follower.take().quotes["symbol"]] == ["B", "Z"]


def test_what_was_overwritten_is_told(engine):
    follower = engine.tap.follow("*")
    engine.publish("AB")
    for _ in range(DEPTH):
        engine.publish("A")
    step = follower.take()
    assert step.gaps == [Gap("quotes", "A", 1, 2)]
    assert step.quotes["symbol"].tolist() == [1] + [0] * DEPTH


def test_one_far_behind_gets_it_in_steps(engine):
    follower = engine.tap.follow("*", step_ticks=8)
    for _ in range(DEPTH):
        engine.publish("ABCD", trades="AB")
    steps = [follower.take() for _ in range(20)]
    assert max(len(step.quotes) + len(step.trades) for step in steps) <= 16
    assert sum(len(step.quotes) for step in steps) == 4 * DEPTH
    stamps = np.concatenate([step.quotes["g"] for step in steps])
    assert (stamps[1:] > stamps[:-1]).all()
    assert steps[-1].head == engine.rings.head()


LETTERS = st.text("ABCD", max_size=10)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.one_of(st.tuples(LETTERS, LETTERS), st.just("take")), max_size=30),
    most=st.sampled_from([4, 1 << 17]),
    held=st.booleans(),
)
def test_a_follower_sees_every_tick_or_is_told_it_did_not(steps, most, held):
    engine = Engine()
    try:
        follower = engine.tap.follow("*", held=held, step_ticks=most)
        reached: dict[tuple[str, str], int] = {}
        for step in steps:
            if step != "take":
                engine.publish(*step)
                continue
            check(engine, follower, reached)
        while follower.g < engine.rings.head():
            check(engine, follower, reached)
        for channel, name in channels_by_name(engine):
            number = engine.symbols.find(name)
            published = int(engine.rings.published(CHANNELS.index(channel))[number])
            assert reached.get((channel, name), 0) == published
    finally:
        engine.close()


def channels_by_name(engine):
    return [(channel, name) for channel in CHANNELS for name in engine.symbols.names()]


def check(engine: Engine, follower: Follower, reached: dict[tuple[str, str], int]) -> None:
    """Read one step; assert that every tick follows its predecessor or a gap of exactly the missing ones."""
    step = follower.take()
    for gap in step.gaps:
        key = (gap.channel, gap.symbol)
        reached[key] = reached.get(key, 0) + gap.lost
        assert gap.n == reached[key] + 1
    for channel, records in zip(CHANNELS, (step.quotes, step.trades), strict=True):
        assert (np.diff(records["g"].astype(np.int64)) > 0).all()
        for record in records:
            of = (channel, engine.symbols.name(record["symbol"]))
            assert record["n"] == reached.get(of, 0) + 1
            reached[of] = int(record["n"])
            assert record["g"] <= step.head


def test_wait_returns_at_the_next_batch_and_not_before(engine):
    assert not engine.tap.wait(0)
    engine.publish("A")
    assert engine.tap.wait(10)
    assert not engine.tap.wait(0)
    engine.publish("A")
    engine.publish("A")
    assert engine.tap.wait(10)
    assert not engine.tap.wait(0.01)


def test_an_event_loop_can_watch_the_doorbell(engine):
    engine.publish("A")
    assert engine.tap.wait(0)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(engine.tap.fileno())
    engine.publish("A")
    assert engine.tap.fileno() >= 0
    assert os.eventfd_read(engine.tap.fileno()) == 1


def test_iteration_waits_for_the_next_batch_and_ends_a_step_at_its_timeout(engine):
    follower = engine.tap.follow("*", timeout_s=0.01)
    assert not next(follower)
    thread = threading.Timer(0.05, engine.publish, ["AB"])
    follower.timeout_s = 10
    thread.start()
    assert len(next(follower).quotes) == 2
    thread.join()


def test_every_thread_that_waits_is_woken(engine):
    """One thread waits at the doorbell; the others must not depend on its return."""
    rounds, readers = 40, 8
    got: list[list[int]] = [[] for _ in range(readers)]
    read_all = threading.Barrier(readers + 1, timeout=30)

    def read(mine: list[int]) -> None:
        follower = engine.tap.follow("*", timeout_s=30)
        for upto in range(5, 5 * rounds + 1, 5):
            read_all.wait()
            while len(mine) < upto:
                mine += next(follower).quotes["g"].tolist()

    threads = [threading.Thread(target=read, args=[mine], daemon=True) for mine in got]
    for thread in threads:
        thread.start()
    for _ in range(rounds):
        read_all.wait()  # so that the small rings lose none
        engine.publish("ABCDE")
    for thread in threads:
        thread.join(30)
    assert got == [list(range(1, 5 * rounds + 1))] * readers


def test_the_engines_end_is_noticed_once_all_is_read(engine):
    follower = engine.tap.follow("*")
    engine.publish("A")
    engine.door.close()
    assert len(next(follower).quotes) == 1
    with pytest.raises(EngineGoneError, match=f"the engine of epoch {engine.rings.epoch} has ended"):
        next(follower)
    assert engine.tap.wait()
    with pytest.raises(EngineGoneError):
        engine.tap.wait()
    assert "engine gone" in repr(engine.tap)
    assert len(engine.tap.read("A")) == 1


def test_a_closed_tap_wakes_its_waiters_and_says_so(engine):
    failures: list[BaseException] = []

    def read() -> None:
        try:
            engine.tap.wait()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    engine.tap.close()
    for thread in threads:
        thread.join(10)
    assert [type(failure) for failure in failures] == [TapError] * 3
    with pytest.raises(TapError, match="the tap is closed"):
        engine.tap.wait()
    engine.tap.close()  # idempotent
    assert "closed" in repr(engine.tap)


def test_arrays_outlive_the_tap(engine):
    with engine.tap as tap:
        engine.publish("A")
        slots = tap.quotes
    del tap
    assert slots[0, 0]["n"] == 1


# Connections to something other than an engine.


def answering(path, data, fds=()):
    """Listen at ``path``, and send ``data`` to the first connection."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(str(path))
    door.listen(1)

    def answer() -> None:
        connection, _ = door.accept()
        with connection, door:
            socket.send_fds(connection, [data], list(fds))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hello", "whoever listens there is no engine"),
        (b'{"version":2}', "the engine speaks version 2 of the tap, and this package 1"),
        (b'{"version":1,"refused":"too many taps: limits.taps is 16"}', "refuses: too many taps: limits.t"),
        (b'{"version":1}', "the engine sent no rings"),
    ],
)
def test_what_is_no_tap_is_refused_in_words(tmp_path, data, why):
    path = tmp_path / "tap.sock"
    thread = answering(path, data)
    with pytest.raises(TapError, match=why):
        connect(path)
    thread.join()


def test_a_memfd_without_rings_is_refused(tmp_path):
    path = tmp_path / "tap.sock"
    fd = os.memfd_create("nothing")
    os.ftruncate(fd, 4096)
    thread = answering(path, b'{"version":1}', [fd, fd])
    with pytest.raises(TapError, match="does not hold rings"):
        connect(path)
    thread.join()
    os.close(fd)


def test_where_no_engine_is_one_is_told_so(tmp_path):
    path = tmp_path / "tap.sock"
    with pytest.raises(TapError, match=r"no engine has its tap there; .* \[engine\] tap"):
        connect(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(path))
    with pytest.raises(TapError, match="has ended"):
        connect(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(TapError, match="a socket, but not a tap's"):
            connect(path)
    with pytest.raises(TapError, match="too long"):
        connect(tmp_path / ("x" * 120))


def test_an_engine_that_does_not_answer_is_given_up(tmp_path):
    path = tmp_path / "tap.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(TapError, match="does not answer"):
            connect(path, timeout_s=0.01)
