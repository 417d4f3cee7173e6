"""Responses reach the requests that wait for them, and no others."""

from __future__ import annotations

import pytest
import trio

from marketfeed.workers.requests import Request, Requests


async def test_responses_in_any_order_reach_their_requests(autojump_clock):
    requests: Requests[str] = Requests()
    received: dict[str, str | None] = {}

    async def ask(name: str) -> None:
        with requests.open() as request:
            numbers[name] = request.number
            await request.wait()
            received[name] = request.response

    numbers: dict[str, int] = {}
    async with trio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(ask, name)
        await trio.testing.wait_all_tasks_blocked()
        assert len(requests) == len(set(numbers.values())) == 3
        for name in ("third", "first", "second"):
            assert requests.respond(numbers[name], f"to {name}")
    assert received == {name: f"to {name}" for name in ("first", "second", "third")}
    assert not len(requests)


async def test_a_response_after_the_timeout_is_dropped(autojump_clock):
    requests: Requests[str] = Requests()
    with requests.open() as late:
        with trio.move_on_after(1) as timeout:
            await late.wait()
        assert timeout.cancelled_caught
        assert late.response is None
    assert not requests.respond(late.number, "too late")
    assert late.response is None


async def test_a_response_before_the_wait_is_kept():
    requests: Requests[str] = Requests()
    with requests.open() as request:
        assert requests.respond(request.number, "at once")
        await request.wait()
        assert request.response == "at once"


async def test_the_end_of_the_peer_ends_all_requests_without_a_response():
    requests: Requests[str] = Requests()
    with requests.open() as one, requests.open() as other:
        assert requests.respond(one.number, "before the end")
        requests.end()
        await one.wait()
        await other.wait()
        assert (one.response, other.response) == ("before the end", None)


def test_numbers_are_not_used_twice():
    requests: Requests[str] = Requests()
    seen: list[Request[str]] = []
    for _ in range(3):
        with requests.open() as request:
            seen.append(request)
    assert [request.number for request in seen] == [1, 2, 3]


@pytest.mark.parametrize("number", [0, 1, 2**63])
def test_an_unknown_number_is_nobody_s(number):
    assert not Requests[str]().respond(number, "to nobody")
