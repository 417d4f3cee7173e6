"""Server-Sent Events over real sockets: what an EventSource sees, and what becomes of bad clients."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

import pytest
import trio

from marketfeed.errors import CloseCode
from marketfeed.gateway.events import MAX_JUNK_BYTES
from marketfeed.gateway.query import LAST_EVENT_ID
from tests.support.live import LIMITS, Live, serving


class Event(NamedTuple):
    id: str | None
    messages: list[dict[str, Any]]


class Source:
    """As much of an EventSource as the tests need."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.head = b""
        self.retry_ms = 0
        self._got = b""

    async def open(self, query: str, headers: str = "", method: str = "GET") -> int:
        """Send the request; return the status."""
        request = f"{method} /v1/events?{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"
        await self.stream.send_all(request.encode())
        self.head = await self._until(b"\r\n\r\n")
        return int(self.head.split()[1])

    async def _until(self, end: bytes) -> bytes:
        while end not in self._got:
            more = await self.stream.receive_some()
            if not more:
                raise trio.EndOfChannel
            self._got += more
        found, _, self._got = self._got.partition(end)
        return found

    async def next(self) -> Event:
        """Return the next event that carries messages; raises EndOfChannel."""
        while True:
            id_, data = None, ""
            for line in (await self._until(b"\n\n")).decode().split("\n"):
                name, _, value = line.partition(": ")
                if name == "id":
                    id_ = value
                elif name == "data":
                    data += value
                elif name == "retry":
                    self.retry_ms = int(value)
            if data:
                return Event(id_, json.loads(data))

    async def until(self, kind: str) -> tuple[str | None, list[dict[str, Any]]]:
        """Return the last id and all messages up to one of ``kind``."""
        last: str | None = None
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1]["T"] != kind:
            event = await self.next()
            last = event.id or last
            messages += event.messages
        return last, messages


async def source(live: Live) -> Source:
    return Source(await live.connect())


async def test_snapshot_then_live_each_with_the_cursor_after_it():
    async with serving() as live:
        live.publish("A", "B")
        events = await source(live)
        assert await events.open("quotes=A,B&tier=vip") == 200
        head = events.head.lower()
        for header in (b"content-type: text/event-stream", b"connection: close", b"x-accel-buffering: no"):
            assert header in head
        assert b"content-length" not in head
        first = await events.next()
        assert first.id is None
        assert first.messages[0] == {
            "T": "subscription",
            "quotes": ["A", "B"],
            "trades": [],
            "alerts": [],
            "tier": "vip",
            "encoding": "json",
        }
        assert events.retry_ms > 0
        snapshot = await events.next()
        assert (snapshot.id, [m["snap"] for m in snapshot.messages]) == (None, [1, 1])
        assert await events.next() == ("e1:2", [{"T": "synced", "cursor": "e1:2"}])
        live.publish("B", "A")
        update = await events.next()
        assert (update.id, [(m["S"], m["g"]) for m in update.messages]) == ("e1:4", [("B", 3), ("A", 4)])


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("quotes=A,B&after=e1:2", ""),
        ("quotes=A,B", "Last-Event-ID: e1:2\r\n"),
        ("quotes=A,B&after=other:9", "Last-Event-ID: e1:2\r\n"),  # a browser keeps the first URL for ever
        ("quotes=A,B&after=e1:2", "Last-Event-ID: \r\n"),
    ],
)
async def test_what_was_missed_since_the_cursor_comes_first(query, headers):
    async with serving() as live:
        live.publish("A", "B", "A", "C", "B")
        events = await source(live)
        assert await events.open(query, headers) == 200
        _, (subscription, *missed, synced) = await events.until("synced")
        assert (subscription["resumed"], subscription["reset"]) == (True, [])
        assert [(m["S"], m["g"], "snap" in m) for m in missed] == [("A", 3, False), ("B", 5, False)]
        assert synced["cursor"] == "e1:5"


@pytest.mark.parametrize("name", LAST_EVENT_ID)
@pytest.mark.parametrize(
    "after", ["", "&after=e1:1", "&after=nonsense"], ids=["alone", "with after", "with junk"]
)
async def test_a_polyfill_sends_the_last_id_as_a_parameter_and_goes_on_from_there(name, after):
    async with serving() as live:
        live.publish("A", "B", "A", "A")
        events = await source(live)
        assert await events.open(f"quotes=A,B&{name}=e1%3A2{after}") == 200
        _, (subscription, *missed, synced) = await events.until("synced")
        assert subscription["resumed"] is True
        assert [(m["S"], m["g"]) for m in missed] == [("A", 3), ("A", 4)]
        assert synced["cursor"] == "e1:4"


@pytest.mark.parametrize(
    "added", ["lastEventId=&r=5612", "padding=true", "evs_preamble=2056", "_=1700000000000", "_=1&_=2"]
)
async def test_what_polyfills_add_for_old_browsers_and_against_caches_is_passed_over(added):
    async with serving() as live:
        live.publish("A")
        events = await source(live)
        assert await events.open(f"quotes=A&{added}") == 200


async def test_the_header_goes_before_a_polyfills_parameter():
    async with serving() as live:
        live.publish("A", "A", "A")
        events = await source(live)
        assert await events.open("quotes=A&lastEventId=e1:1&after=e1:0", "Last-Event-ID: e1:2\r\n") == 200
        _, (_, *missed, _) = await events.until("synced")
        assert [m["g"] for m in missed] == [3]


async def test_a_polyfill_that_has_no_last_id_yet_begins_with_the_snapshot():
    async with serving() as live:
        live.publish("A")
        events = await source(live)
        assert await events.open("quotes=A&lastEventId=") == 200
        _, (_, snapshot, _) = await events.until("synced")
        assert snapshot["snap"] == 1


@pytest.mark.parametrize("cursor", ["other:1", "e1:99", "e1:18446744073709551615"])
async def test_a_cursor_of_another_epoch_or_the_future_resets_and_says_so(cursor):
    async with serving() as live:
        live.publish("A")
        events = await source(live)
        assert await events.open("quotes=A", f"Last-Event-ID: {cursor}\r\n") == 200
        _, (subscription, snapshot, synced) = await events.until("synced")
        assert (subscription["resumed"], subscription["reset"]) == (False, ["A"])
        assert (snapshot["snap"], synced["cursor"]) == (1, "e1:1")


@pytest.mark.parametrize(
    ("query", "headers", "told"),
    [
        ("", "", "at least one name"),
        ("quotes=", "", "at least one name"),
        ("quotes=A,,B", "", "not a symbol"),
        ("quotes=A%0d%0aSet-Cookie:x", "", "not a symbol"),
        ("quotes=A%20B", "", "not a symbol"),
        ("quotes=" + "A" * 25, "", "not a symbol"),
        ("quotes=A,B,C,D,E,F", "", "at most 5"),
        ("quotes=A&quotes=B", "", "given 2 times"),
        ("quotes=A&tier=gold", "", "tier: one of vip, premium"),
        ("quote=A", "", "unknown parameter 'quote'"),
        ("quotes=A&after=nonsense", "", "after: not a cursor"),
        ("quotes=A&after=e1:-1", "", "after: not a cursor"),
        ("quotes=A&after=e1:1%0d%0ax", "", "after: not a cursor"),
        ("quotes=A", "Last-Event-ID: e1\r\n", "Last-Event-ID: not a cursor"),
        ("quotes=A&lastEventId=nonsense&after=e1:1", "", "lastEventId: not a cursor"),
        ("quotes=A&lastEventId=e1:1&lastEventId=e1:2", "", "given 2 times"),
        ("quotes=A", "Last-Event-ID: e1:1\x00\r\n", "header"),
        ("quotes=A", "Last-Event-ID: e1:1\r\n folded: x\r\n", "Last-Event-ID: not a cursor"),
    ],
)
async def test_bad_requests_are_400_and_say_why(query, headers, told):
    async with serving() as live:
        events = await source(live)
        assert await events.open(query, headers) == 400
        body = events._got or await events.stream.receive_some()
        assert told in json.loads(body)["error"]["msg"]
        assert not live.gateway.sessions


async def test_head_opens_no_session():
    async with serving() as live:
        events = await source(live)
        assert await events.open("quotes=A", method="HEAD") == 200
        assert b"text/event-stream" in events.head
        assert not live.counters.accepted


async def test_a_session_like_any_other_in_limits_and_figures():
    async with serving(dataclasses.replace(LIMITS, sessions=1)) as live:
        live.publish("A")
        events = await source(live)
        assert await events.open("quotes=A", "Origin: http://good.example\r\n") == 200
        assert b"Access-Control-Allow-Origin: http://good.example" in events.head
        await events.until("synced")
        (session,) = live.gateway.sessions
        assert session.member is not None
        assert (session.member.encoding.transport, session.address) == ("sse", "127.0.0.1")
        live.publish("A")
        await events.next()
        assert live.shard.figures.ledgers(session.member)["vip"].delivered == 1
        more = await source(live)
        assert await more.open("quotes=A") == 503
        assert b"Retry-After" in more.head


async def test_a_foreign_page_is_refused():
    async with serving() as live:
        events = await source(live)
        assert await events.open("quotes=A", "Origin: http://evil.example\r\n") == 403


async def test_who_goes_away_is_let_go_at_once():
    async with serving() as live:
        events = await source(live)
        await events.open("quotes=A")
        await events.until("synced")
        await events.stream.aclose()
        await live.until_empty()
        assert live.counters.closes == {CloseCode.NORMAL: 1}
        assert live.admitted == 0


async def test_who_never_reads_is_cut_after_stall_s():
    async with serving(stall_s=0.3) as live:
        events = await source(live)
        await events.open("quotes=*")
        names = [f"S{i}" for i in range(200)]
        while not live.counters.closes:
            live.publish(*names)
            await trio.sleep(0.001)
        assert live.counters.closes == {CloseCode.SLOW: 1}
        with pytest.raises(trio.BrokenResourceError):
            await live.read_to_end(events.stream)
        await live.until_empty()


async def test_who_sends_without_end_is_cut():
    async with serving() as live:
        events = await source(live)
        await events.open("quotes=A")
        await events.until("synced")
        await events.stream.send_all(b"x" * (MAX_JUNK_BYTES + 1))
        await live.until_empty()
        assert live.counters.closes == {CloseCode.ABUSE: 1}


async def test_a_drain_says_when_to_come_back():
    async with serving() as live, trio.open_nursery() as nursery:
        events = await source(live)
        await events.open("quotes=A")
        await events.until("synced")
        nursery.start_soon(live.gateway.drain)
        (closing,) = (await events.next()).messages
        assert (closing["T"], closing["code"]) == ("closing", 1001)
        assert events.retry_ms == closing["retry_ms"]
        with pytest.raises(trio.EndOfChannel):
            await events.next()


async def test_a_storm_of_event_streams_from_one_address_is_429():
    limits = dataclasses.replace(LIMITS, requests_per_s=2)
    async with serving(limits) as live:
        assert [await (await source(live)).open("quotes=A") for _ in range(3)] == [200, 200, 429]
