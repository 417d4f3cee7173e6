"""Handshakes: how many a second are let in, and over which time everybody else should come back."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.gateway.handshakes import FLOOR_MS, LEAST_PER_S, MAX_RETRY_S, SOON_MS, Handshakes
from marketfeed.gateway.limits import HANDSHAKES, Admission
from tests.support.live import LIMITS, connected, serving

REASON = "too many handshakes: limits.handshakes_per_s"
MANY = dataclasses.replace(LIMITS, sessions=1000, sessions_per_ip=1000)


def shown(*times_s: float) -> Handshakes:
    handshakes = Handshakes()
    for at_s in times_s:
        handshakes.done(at_s)
    return handshakes


# What was shown.


def test_what_is_shown_is_the_most_within_one_second():
    assert shown().shown_per_s == 0
    assert shown(5.0).shown_per_s == 1
    assert shown(0.0, 0.1, 0.9, 1.0, 1.1).shown_per_s == 3
    assert shown(*range(100)).shown_per_s == 1
    assert shown(*(i / 2000 for i in range(4000))).shown_per_s == 2000


# When to come back.


@pytest.mark.parametrize("sessions", [0, 1, 500, 1250])
def test_few_sessions_come_back_within_today_s_range(sessions):
    assert Handshakes().retry_ms(sessions) == FLOOR_MS == (500, 3000)


def test_where_somebody_serves_already_few_clients_come_back_at_once():
    assert Handshakes().retry_ms(10, at_once=True) == SOON_MS == (10, 200)
    assert Handshakes().retry_ms(100_000, at_once=True) == (10, 200_010)


def test_many_sessions_come_back_over_the_time_that_their_handshakes_take():
    assert Handshakes().retry_ms(100_000) == (500, 200_500)
    fast = shown(*(i / 2000 for i in range(2000)))
    assert fast.retry_ms(100_000) == (500, 50_500)
    assert fast.retry_ms(3000) == FLOOR_MS


def test_a_slow_start_says_nothing_of_what_can_be_done():
    """Sessions that came one by one over a day could have come faster."""
    assert shown(*range(1000)).retry_ms(10_000) == (500, 500 + int(10_000 / LEAST_PER_S * 1000))


def test_a_limit_is_what_can_be_served():
    assert Handshakes(limit_per_s=100).retry_ms(10_000) == (500, 100_500)
    assert Handshakes(limit_per_s=10_000).retry_ms(10_000) == Handshakes().retry_ms(10_000)


def test_processes_share_the_clients_and_what_they_can_serve():
    assert Handshakes(processes=4).retry_ms(25_000) == Handshakes().retry_ms(100_000)


def test_nobody_is_told_to_stay_away_for_longer_than_ten_minutes():
    assert Handshakes(limit_per_s=1).retry_ms(10**6) == (500, 500 + MAX_RETRY_S * 1000)


@given(st.integers(0, 10**6), st.floats(0, 10**6), st.integers(1, 64))
def test_no_range_is_narrower_than_today_s_and_none_is_upside_down(sessions, limit, processes):
    first_ms, last_ms = Handshakes(limit, processes).retry_ms(sessions)
    assert first_ms == FLOOR_MS[0] < FLOOR_MS[1] <= last_ms <= 500 + MAX_RETRY_S * 1000


async def test_a_drain_spreads_sessions_over_the_time_that_they_need():
    async with (
        serving(MANY) as live,
        connected(live) as one,
        connected(live) as two,
        trio.open_nursery() as nursery,
    ):
        live.service.handshakes.limit_per_s = 0.01  # so two need 200 s
        sessions = list(live.gateway.sessions)
        nursery.start_soon(live.gateway.drain)
        told = [(await client.closed())[1][-1]["retry_ms"] for client in (one, two)]
        assert [session.retry_ms for session in sessions] == [(500, 200_500)] * 2
        assert all(500 <= retry_ms <= 200_500 for retry_ms in told)


async def test_a_rolling_restart_asks_sessions_back_at_once_whatever_was_shown():
    async with serving(MANY) as live, connected(live) as client, trio.open_nursery() as nursery:
        live.service.handshakes.limit_per_s = 0.001
        nursery.start_soon(live.gateway.retire, 0.0)
        _, messages = await client.closed()
        assert 10 <= messages[-1]["retry_ms"] <= 200


# Retry-After.


def test_those_refused_come_back_over_the_time_that_all_of_them_need():
    handshakes = Handshakes(limit_per_s=100)
    told = [handshakes.retry_after_s(0.0) for _ in range(10_000)]
    assert min(told) >= 1
    assert max(told[:100]) <= 4
    assert 150 <= max(told) <= 202
    # Thinned out evenly: about as many come back each second as are let in, never several times as many.
    late = [s for s in told if s > 100]
    assert len(late) < 2.5 * 100 * (max(told) - 100)


def test_the_refused_of_before_are_served_meanwhile():
    handshakes = Handshakes(limit_per_s=100)
    for _ in range(10_000):
        handshakes.retry_after_s(0.0)
    assert {handshakes.retry_after_s(100.0) for _ in range(50)} <= {1, 2, 3}


def test_a_wait_is_at_most_ten_minutes():
    handshakes = Handshakes(limit_per_s=1)
    assert max(handshakes.retry_after_s(0.0) for _ in range(5000)) <= MAX_RETRY_S


# The limit.


def test_the_limit_lets_in_so_many_a_second_and_no_more():
    admission = Admission(dataclasses.replace(MANY, handshakes_per_s=10))
    assert [admission.admit("a", 0.0) for _ in range(11)] == [None] * 10 + [HANDSHAKES]
    assert admission.total == 10
    assert [admission.admit("a", 0.5) for _ in range(6)] == [None] * 5 + [HANDSHAKES]
    assert [admission.admit("b", 99.0) for _ in range(11)] == [None] * 10 + [HANDSHAKES]


def test_a_session_that_another_limit_forbids_takes_no_handshake_from_others():
    admission = Admission(dataclasses.replace(MANY, handshakes_per_s=2, sessions_per_ip=1))
    assert [admission.admit("a", 0.0) for _ in range(5)] == [None] + ["sessions_per_ip"] * 4
    assert admission.admit("b", 0.0) is None


def test_without_a_limit_all_are_let_in_and_a_changed_one_holds_at_once():
    admission = Admission(MANY)
    assert {admission.admit("a", 0.0) for _ in range(500)} == {None}
    admission.limits = dataclasses.replace(MANY, handshakes_per_s=3)
    assert [admission.admit("a", 0.0) for _ in range(4)] == [None] * 3 + [HANDSHAKES]
    admission.limits = MANY
    assert admission.admit("a", 0.0) is None


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/events?quotes=A"])
async def test_beyond_the_limit_the_answer_is_503_counted_and_logged(path):
    async with serving(dataclasses.replace(MANY, handshakes_per_s=1)) as live:
        with structlog.testing.capture_logs() as logged:
            async with connected(live):
                answers = []
                for _ in range(3):
                    stream = await live.raw(path, upgrade=path == "/v1/stream")
                    answer = b""
                    while data := await stream.receive_some():
                        answer += data
                    answers.append(answer)
        for answer in answers:
            head, _, body = answer.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            assert lines[0].split()[1] == "503"
            (retry_after,) = [line.partition(": ")[2] for line in lines if line.startswith("Retry-After")]
            assert 1 <= int(retry_after) <= 10
            assert REASON.encode() in body
        assert live.counters.refused == {REASON: 3}
        assert live.counters.accepted == live.service.handshakes.shown_per_s == 1
        told = [entry for entry in logged if entry["event"] == REASON]
        assert [(entry["log_level"], entry["most"]) for entry in told] == [("warning", 1)]  # one a minute


async def test_handshakes_are_let_in_again_as_time_goes_by(autojump_clock):
    admission = Admission(dataclasses.replace(MANY, handshakes_per_s=2))
    let_in: list[float] = []
    for _ in range(40):
        if await admission.ask("a") is None:
            let_in.append(trio.current_time())
        await trio.sleep(0.125)
    since = [at_s - let_in[0] for at_s in let_in]
    assert since[:2] == [0.0, 0.125]
    assert {later - earlier for earlier, later in pairwise(since[2:])} == {0.5}
    assert len(since) == 2 + 9
