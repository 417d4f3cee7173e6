"""Long polls and short polls over real sockets."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

import pytest
import trio

from tests.support.gateway_tls import Files
from tests.support.live import LIMITS, Live, serving


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any  # from JSON; None without one


class Poller:
    """A client on one kept-alive connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._got = b""

    async def ask(self, target: str, headers: str = "", method: str = "GET") -> None:
        await self.stream.send_all(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())

    async def answer(self) -> Answer:
        while b"\r\n\r\n" not in self._got:
            await self._more()
        head, _, self._got = self._got.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(self._got) < size:
            await self._more()
        body, self._got = self._got[:size], self._got[size:]
        return Answer(int(first.split()[1]), headers, json.loads(body) if body else None)

    async def _more(self) -> None:
        more = await self.stream.receive_some()
        assert more, "the connection ended"
        self._got += more

    async def get(self, target: str, headers: str = "") -> Answer:
        await self.ask(target, headers)
        return await self.answer()


async def poller(live: Live) -> Poller:
    return Poller(await live.connect())


async def until_waiting(live: Live, count: int) -> None:
    while len(live.shard.polls) != count:
        await trio.sleep(0.001)


def ticks(answer: Answer) -> list[tuple[str, int, bool]]:
    return [(m["S"], m["g"], "snap" in m) for m in answer.body["messages"] if m["T"] in ("q", "t")]


async def test_a_poll_without_a_cursor_is_answered_with_the_snapshot_at_once():
    async with serving() as live:
        live.publish("A", "B", "A")
        client = await poller(live)
        answer = await client.get("/v1/poll?quotes=A,B")
        assert (answer.status, answer.body["cursor"]) == (200, "e1:3")
        assert (answer.body["resumed"], answer.body["reset"]) == (True, [])
        assert ticks(answer) == [("B", 2, True), ("A", 3, True)]
        assert answer.headers["x-cursor"] == "e1:3"


async def test_an_empty_snapshot_waits_for_the_first_tick():
    async with serving() as live:
        client = await poller(live)
        await client.ask("/v1/poll?quotes=A")
        await until_waiting(live, 1)
        live.publish("B")
        live.publish("A")
        answer = await client.answer()
        assert [(symbol, g) for symbol, g, _ in ticks(answer)] == [("A", 2)]


async def test_a_poll_from_a_cursor_waits_and_a_row_of_them_misses_nothing():
    async with serving() as live:
        live.publish("A")
        client = await poller(live)
        cursor, got = (await client.get("/v1/poll?quotes=A")).body["cursor"], []
        for _ in range(5):
            await client.ask(f"/v1/poll?quotes=A&after={cursor}")
            await until_waiting(live, 1)
            live.publish("A", "B", "A")
            answer = await client.answer()
            live.publish("B", "A")  # while nobody waits
            missed = await client.get(f"/v1/poll?quotes=A&after={answer.body['cursor']}")
            cursor = missed.body["cursor"]
            got += [*ticks(answer), *ticks(missed)]
        assert got == [("A", g, False) for g in range(2, 27) if g % 5 in (2, 4, 1)]


async def test_at_the_timeout_there_is_204_and_the_cursor():
    async with serving() as live:
        live.publish("A")
        client = await poller(live)
        answer = await client.get("/v1/poll?quotes=A&after=e1:1&timeout_s=0.05")
        assert (answer.status, answer.body) == (204, None)
        assert answer.headers["x-cursor"] == "e1:1"
        assert "content-length" not in answer.headers
        assert not len(live.shard.polls)


async def test_an_interval_tier_answers_with_the_latest_of_each():
    async with serving() as live:
        live.publish("A", "B")
        client = await poller(live)
        await client.ask("/v1/poll?quotes=A,B&after=e1:2&tier=premium")
        await until_waiting(live, 1)
        live.publish("A", "B", "A")
        answer = await client.answer()
        assert ticks(answer) == [("B", 4, False), ("A", 5, False)]


@pytest.mark.parametrize("cursor", ["other:1", "e1:99"])
async def test_a_cursor_of_another_epoch_or_the_future_resets_and_says_so(cursor):
    async with serving() as live:
        live.publish("A")
        client = await poller(live)
        answer = await client.get(f"/v1/poll?quotes=A&after={cursor}")
        assert (answer.body["resumed"], answer.body["reset"]) == (False, ["A"])
        assert ticks(answer) == [("A", 1, True)]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("/v1/poll", "at least one name"),
        ("/v1/quotes", "symbols: missing; symbols=A,B*, 1 to "),
        ("/v1/trades?symbols=", "symbols: empty; symbols=A,B*, 1 to "),
        ("/v1/poll?quotes=A%0d%0aB", "not a symbol"),
        ("/v1/poll?quotes=A&after=x", "after: not a cursor"),
        ("/v1/poll?quotes=A&timeout_s=301", "timeout_s: 0 to 300"),
        ("/v1/poll?quotes=A&timeout_s=nan", "timeout_s: 0 to 300"),
        ("/v1/poll?quotes=A&timeout_s=x", "timeout_s: 0 to 300"),
        ("/v1/poll?quotes=A&timeout_s=1_0", "timeout_s: 0 to 300"),
        ("/v1/poll?quotes=A&tier=gold", "tier: one of"),
        ("/v1/poll?quotes=A,B,C,D,E,F", "at most 5"),
        ("/v1/poll?quotes=A&timeout=3", "unknown parameter 'timeout'"),
        ("/v1/quotes", "1 to 5 names"),
        ("/v1/quotes?symbols=A%20B", "not a symbol"),
        ("/v1/trades?symbols=A&quotes=B", "unknown parameter 'quotes'"),
        ("/v1/symbols?symbols=A", "allowed: none here"),
    ],
)
async def test_bad_requests_are_400_and_say_why(target, told):
    async with serving() as live:
        answer = await (await poller(live)).get(target)
        assert answer.status == 400
        assert told in answer.body["error"]["msg"]


async def test_who_goes_away_while_it_waits_is_dropped_at_once():
    async with serving() as live:
        clients = [await poller(live) for _ in range(3)]
        for client in clients:
            await client.ask("/v1/poll?quotes=A")
        await until_waiting(live, 3)
        await clients[0].stream.aclose()
        await until_waiting(live, 2)
        await clients[1].stream.send_eof()
        await until_waiting(live, 1)
        live.publish("A")
        assert (await clients[2].answer()).status == 200


async def test_polls_wait_side_by_side_and_are_all_answered_by_one_flush():
    limits = dataclasses.replace(LIMITS, requests_per_s=1000, handshake_s=5.0)
    async with serving(limits) as live:
        clients = [await poller(live) for _ in range(300)]
        for client in clients:
            await client.ask("/v1/poll?quotes=A")
        await until_waiting(live, 300)
        flushes = live.shard.figures.flushes
        live.publish("A")
        for client in clients:
            assert (await client.answer()).body["cursor"] == "e1:1"
        assert live.shard.figures.flushes <= flushes + 1
        assert not live.gateway.sessions


async def test_a_drain_answers_who_waits():
    async with serving() as live:
        client = await poller(live)
        await client.ask("/v1/poll?quotes=A")
        await until_waiting(live, 1)
        await live.gateway.drain()
        answer = await client.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_a_storm_of_polls_from_one_address_is_429():
    limits = dataclasses.replace(LIMITS, requests_per_s=5)
    async with serving(limits) as live:
        client = await poller(live)
        answers = [await client.get("/v1/poll?quotes=A&timeout_s=0") for _ in range(8)]
        assert [a.status for a in answers] == [204] * 5 + [429] * 3
        assert answers[-1].headers["retry-after"] == "1"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("behind", [0, 64 * 1024, 256 * 1024])
async def test_a_poll_whose_client_left_is_forgotten_whatever_was_pipelined_behind_it(tmp_path, behind, tls):
    files = Files(tmp_path)
    async with serving(certificate=files.certificate() if tls else None) as live:
        stream = await files.connect(live) if tls else await live.connect()
        poll = b"GET /v1/poll?quotes=A&timeout_s=300 HTTP/1.1\r\nHost: x\r\n\r\n"
        await stream.send_all(poll + poll * (behind // len(poll) + 1))
        await until_waiting(live, 1)
        await stream.aclose()
        await until_waiting(live, 0)


async def test_an_event_stream_whose_client_left_is_forgotten_whatever_was_sent_behind_its_request():
    async with serving() as live:
        stream = await live.connect()
        await stream.send_all(b"GET /v1/events?quotes=A HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 60_000)
        assert b" 200 " in await stream.receive_some()
        await stream.aclose()
        await live.until_empty()


async def test_a_short_poll_has_the_latest_and_304_until_there_is_more():
    async with serving() as live:
        live.publish("A", "B", "A")
        client = await poller(live)
        answer = await client.get("/v1/quotes?symbols=A,B")
        assert [(m["S"], m["g"]) for m in answer.body] == [("B", 2), ("A", 3)]
        assert answer.headers["cache-control"] == "no-cache"
        tag = answer.headers["etag"]
        for if_none_match in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            unchanged = await client.get("/v1/quotes?symbols=A,B", f"If-None-Match: {if_none_match}\r\n")
            assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, None, tag)
        live.publish("C")
        assert (await client.get("/v1/quotes?symbols=A,B", f"If-None-Match: {tag}\r\n")).status == 304
        live.publish("B")
        while unchanged.status == 304:  # until the tier's next flush
            unchanged = await client.get("/v1/quotes?symbols=A,B", f"If-None-Match: {tag}\r\n")
        assert [(m["S"], m["g"]) for m in unchanged.body] == [("A", 3), ("B", 5)]
        assert (await client.get("/v1/trades?symbols=A,B")).body == []


async def test_more_patterns_than_a_session_may_have_are_400_on_every_route():
    limits = dataclasses.replace(LIMITS, patterns_per_session=2)
    async with serving(limits) as live:
        for path in ("/v1/quotes?symbols=", "/v1/poll?timeout_s=0&quotes=", "/v1/events?trades="):
            answer = await (await poller(live)).get(path + "A*,B*,C*")
            assert answer.status == 400
            assert "limits.patterns_per_session" in answer.body["error"]["msg"]


async def test_a_poll_whose_cursor_is_ahead_of_the_rings_waits_until_they_reach_it():
    async with serving() as live:
        live.publish("A")
        client = await poller(live)
        await client.ask("/v1/poll?quotes=A&after=e1:2")
        live.publish("A", "A")
        answer = await client.answer()
        assert (answer.body["resumed"], ticks(answer)) == (True, [("A", 3, False)])
