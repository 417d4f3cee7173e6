"""Pings: which pong gives a round trip, and how the interval follows it."""

from __future__ import annotations

import pytest

from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import MS, S
from marketfeed.errors import CloseCode
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.keepalive import MAX_PINGS, KeepAlive, Timing
from marketfeed.fanout.round_trips import ROUND_TRIP_BOUNDS_S, RoundTrips
from marketfeed.fanout.subscriber import Subscriber
from marketfeed.fanout.wire import BINARY, JSON, SSE
from tests.support.bench import PREMIUM, VIP, Socket
from tests.support.ws_frames import split_frame

NEVER = 10**6 * S
TIMING = Timing(heartbeat_ns=NEVER, ping_ns=60 * S, stall_ns=10 * S)


class Line:
    """One session and its keep-alive; the test says when its peer answers."""

    def __init__(self, timing: Timing = TIMING, encoding=JSON, tier=VIP) -> None:
        self.keepalive = KeepAlive(timing, lambda: 0)
        self.socket = Socket()
        interest = Interests(SymbolTable(Rings.private(4, 8).max_symbols)).use(Names())
        self.member = Subscriber("s", self.socket, tier, encoding, interest, 0)
        self.now_ns = 0

    def until_ping(self) -> bytes:
        """Check every quarter of a second until a ping is sent; return its payload."""
        sent = len(self.socket.frames)
        while len(self.socket.frames) == sent:
            self.now_ns += S // 4
            self.keepalive.check([self.member], self.now_ns)
            assert self.socket.ended is None
        whole = split_frame(self.socket.frames[-1])
        assert whole is not None
        assert whole[0] == 0x89
        return whole[1]

    def pong(self, payload: bytes, after_ns: int = 0) -> None:
        """Let the payload arrive as a pong, ``after_ns`` later."""
        self.now_ns += after_ns
        self.socket.received += 14
        self.keepalive.ponged(self.member, payload, self.now_ns)

    def trip(self, round_trip_ns: int) -> int:
        """Answer the next ping after ``round_trip_ns``; return how long the ping took to come."""
        began_ns = self.now_ns
        payload = self.until_ping()
        waited_ns = self.now_ns - began_ns
        self.pong(payload, round_trip_ns)
        return waited_ns

    @property
    def counted(self) -> int:
        return sum(map(sum, self.keepalive.round_trips.counts.values()))

    @property
    def interval_s(self) -> float:
        return self.keepalive.timing.interval_ns(self.member.doublings) / S


@pytest.mark.parametrize("encoding", [JSON, BINARY])
def test_the_round_trip_of_a_ping_is_counted_on_the_sessions_tier(encoding):
    line = Line(encoding=encoding, tier=PREMIUM)
    assert line.trip(30 * MS) == 60 * S
    assert line.keepalive.round_trips.seconds == {"premium": pytest.approx(0.03)}
    counts = line.keepalive.round_trips.counts["premium"]
    assert sum(counts) == counts[ROUND_TRIP_BOUNDS_S.index(0.05)] == 1


def test_pongs_that_answer_no_ping_are_bytes_and_nothing_else():
    line = Line()
    line.pong(b"unasked!")
    line.pong(b"")
    payload = line.until_ping()
    line.pong(b"guessed!", MS)
    line.pong(payload[:-1] + bytes([payload[-1] ^ 1]), MS)
    assert line.counted == 0
    line.pong(payload, MS)
    assert line.counted == 1
    line.pong(payload, S)  # once more
    assert line.counted == 1
    assert line.member.doublings == 0


def test_each_answered_ping_has_a_successor_with_other_bytes():
    line = Line()
    payloads = set()
    for _ in range(5):
        payloads.add(line.until_ping())
        line.pong(line.member.ping_payload, 5 * MS)
    assert len(payloads) == 5


def test_a_round_trip_longer_than_the_interval_is_measured_from_the_first_ping():
    line = Line(Timing(NEVER, S, NEVER))
    first, second = line.until_ping(), line.until_ping()
    assert first == second
    line.pong(first, S // 2)
    assert line.keepalive.round_trips.seconds["vip"] == pytest.approx(1.5)
    line.pong(second, S)
    assert line.counted == 1


def test_three_pings_without_any_byte_end_the_session():
    line = Line()
    for _ in range(MAX_PINGS):
        line.until_ping()
    while line.socket.ended is None:
        line.now_ns += S // 4
        line.keepalive.check([line.member], line.now_ns)
    assert line.socket.ended is CloseCode.IDLE
    assert line.now_ns == 4 * 60 * S
    assert len(line.socket.frames) == MAX_PINGS


def test_a_client_that_sends_but_answers_no_ping_stays_and_its_late_pong_means_little():
    line = Line()
    payloads = []
    for _ in range(4 * MAX_PINGS):
        payloads.append(line.until_ping())
        line.socket.received += 1
    assert len(set(payloads)) == 4
    line.pong(payloads[0])
    assert line.counted == 0
    line.pong(payloads[-1])
    assert line.keepalive.round_trips.seconds["vip"] < MAX_PINGS * 60


def test_a_client_that_never_rests_is_measured_too():
    line = Line()
    for _ in range(3):
        payload = b""
        while not payload:
            line.now_ns += S // 4
            line.socket.received += 100
            line.keepalive.check([line.member], line.now_ns)
            payload = line.member.ping_payload
        line.pong(payload, 20 * MS)
    assert line.counted == 3
    assert line.now_ns < 200 * S


def test_the_interval_doubles_and_halves_with_the_round_trip_within_its_limits():
    line = Line()
    assert [line.trip(n * MS) and line.interval_s for n in (40, 79, 80, 400, 41, 40)] == [
        60, 60, 120, 120, 120, 60,
    ]  # fmt: skip
    assert [line.trip(n * MS) and line.interval_s for n in (20, 10, 5, 3, 9, 21, 60)] == [
        30, 15, 10, 10, 10, 15, 30,
    ]  # fmt: skip


def test_the_next_ping_comes_after_the_new_interval():
    line = Line()
    line.trip(40 * MS)
    line.trip(90 * MS)
    assert line.trip(90 * MS) == pytest.approx(120 * S, abs=S)
    for shorter in (40, 20, 10):
        line.trip(shorter * MS)
    assert line.trip(10 * MS) == pytest.approx(15 * S, abs=S)


def test_noise_and_slow_drift_do_not_move_the_interval_for_good():
    line = Line()
    for _ in range(10):  # up in small steps, down at once
        for trip in (50, 70, 98, 137, 192):
            line.trip(trip * MS)
    assert line.interval_s in (60, 120)
    near = Line()
    for trip in (100_000, 900_000, 0, 300_000, 1_900_000, 0):  # below a millisecond or two
        near.trip(trip)
        assert near.interval_s == 60


@pytest.mark.parametrize(
    ("ping_s", "shortest_s", "longest_s"), [(60, 10, 120), (0.1, 0.1, 120), (5, 5, 120), (3600, 10, 3600)]
)
def test_the_configured_interval_widens_the_limits(ping_s, shortest_s, longest_s):
    timing = Timing(NEVER, int(ping_s * S), NEVER)
    intervals = [timing.interval_ns(doublings) / S for doublings in range(-20, 21)]
    assert intervals == sorted(intervals)
    assert (intervals[0], intervals[20], intervals[-1]) == (shortest_s, ping_s, longest_s)


def test_a_reload_that_leaves_a_session_beyond_the_limits_does_not_hold_its_interval():
    line = Line()
    for trip in (80, 40, 20, 10):
        line.trip(trip * MS)
    assert line.member.doublings == -3
    line.keepalive.timing = Timing(NEVER, 10 * S, NEVER)
    for trip in (20, 40, 80, 160):
        line.trip(trip * MS)
    assert line.interval_s == 20


def test_no_ping_is_sent_or_missed_while_a_tail_waits():
    line = Line()
    for _ in range(MAX_PINGS):
        line.until_ping()
    line.socket.acked = 0
    line.member.block()
    for _ in range(300):
        line.now_ns += S
        line.socket.acked += 1
        assert not line.keepalive.check([line.member], line.now_ns)
    assert (len(line.socket.frames), line.socket.ended) == (MAX_PINGS, None)
    line.member.drained()
    line.keepalive.check([line.member], line.now_ns)
    assert line.socket.ended is None  # an answer had no time to come
    line.socket.received += 14
    line.until_ping()
    assert line.member.pings == 1


def test_a_ping_that_fills_the_socket_blocks_the_session():
    line = Line()
    line.now_ns = 60 * S
    line.socket.room = 0
    assert line.keepalive.check([line.member], line.now_ns) == [line.member]


def test_event_streams_are_not_pinged_and_rest_between_checks():
    line = Line(encoding=SSE)
    for _ in range(300):
        line.now_ns += S
        line.keepalive.check([line.member], line.now_ns)
    assert not line.socket.frames
    assert line.member.quiet_until_ns > line.now_ns


def test_the_kernel_gives_up_after_three_pings_and_later_than_the_shard():
    assert TIMING.gone_s == 180
    assert Timing(20 * S, 60 * S, 300 * S).gone_s == 600
    assert Timing(MS, MS, MS).gone_s == 10


def test_the_histogram_has_a_bucket_for_everything():
    trips = RoundTrips()
    for seconds in (0, 0.001, 0.0011, 10, 11):
        trips.record("vip", int(seconds * S))
    counts = trips.counts["vip"]
    assert (counts[0], counts[1], counts[-2], counts[-1]) == (2, 1, 1, 1)
