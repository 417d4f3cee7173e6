"""HTTP: heads, bodies, answers and their limits, in memory and on a virtual clock."""

from __future__ import annotations

import h11
import orjson
import pytest
import trio
from trio.testing import memory_stream_pair

from marketfeed.gateway.exchange import (
    EVENTS_PER_CHECKPOINT,
    FRAMING_BYTES,
    IDLE_S,
    MAX_HEAD_BYTES,
    PIPELINED_BYTES,
)
from marketfeed.gateway.hosts import Hosts
from marketfeed.gateway.http import HttpServer, Rules, error_response
from marketfeed.gateway.origins import Origins
from tests.support.http_peers import ROUTES, Peer, asked, served

HOST = b"Host: x\r\n"


async def test_requests_follow_one_another_on_a_connection_and_are_counted(autojump_clock):
    async with served() as peer:
        for number in range(3):
            await peer.stream.send_all(b"GET /echo?a=%d&a=2&b= HTTP/1.1\r\n%b\r\n" % (number, HOST))
            status, headers, body = await peer.answer()
            assert (status, headers["content-type"]) == (200, "application/json")
            assert orjson.loads(body) == [
                "GET",
                "/echo",
                {"a": [str(number), "2"], "b": [""]},
                "",
                "192.0.2.1",
            ]
        assert peer.server.requests == {("/echo", 200): 3}


async def test_pipelined_requests_are_answered_in_order_and_junk_behind_them_with_400(autojump_clock):
    async with served() as peer:
        one = b"GET /echo?n=%d HTTP/1.1\r\n" + HOST + b"\r\n"
        await peer.stream.send_all(one % 1 + one % 2 + b"\x00\x01junk\r\n\r\n")
        assert [orjson.loads((await peer.answer())[2])[2]["n"] for _ in range(2)] == [["1"], ["2"]]
        status, headers, body = await peer.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert orjson.loads(body)["error"]["code"] == 400
        await peer.stream.send_eof()
        assert await peer.ended()


async def test_head_is_get_without_the_body(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(
            b"HEAD /echo HTTP/1.1\r\n%b\r\nGET /nope HTTP/1.1\r\n%b\r\n" % (HOST, HOST)
        )
        while b"404" not in peer.got:
            peer.got += await peer.stream.receive_some()
        head = peer.got.partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 200")
        assert b"Content-Length: " in head
        assert peer.got[len(head) + 4 :].startswith(b"HTTP/1.1 404")


async def test_a_server_that_closes_answers_once_more_and_says_so(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(b"GET /late HTTP/1.1\r\n%b\r\n" % HOST)
        await trio.sleep(1)
        peer.server.closing = True
        status, headers, _ = await peer.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await peer.ended()


async def test_connection_close_is_honoured(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(b"GET /echo HTTP/1.1\r\nConnection: close\r\n%b\r\n" % HOST)
        assert (await peer.answer())[0] == 200
        assert await peer.ended()


@pytest.mark.parametrize(
    ("request_", "status", "told"),
    [
        (b"GET /nope HTTP/1.1\r\n" + HOST, 404, "/echo"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST, 404, "no such path"),
        (b"GET /echo/../../etc/passwd HTTP/1.1\r\n" + HOST, 404, "no such path"),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + HOST, 404, "no such path"),
        (b"GET /echo\x00 HTTP/1.1\r\n" + HOST, 400, "request"),
        (b"DELETE /echo HTTP/1.1\r\n" + HOST, 405, "GET or HEAD or POST"),
        (b"GET //[ HTTP/1.1\r\n" + HOST, 400, "not a target"),
        (b"GET /echo?" + b"a=1&" * 101 + b" HTTP/1.1\r\n" + HOST, 400, "fields"),
        (b"GET /echo HTTP/1.1\r\n", 400, "Host"),
        (b"GET /echo\r\n", 400, "request line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n", 400, "got a TLS handshake"),
        (b"\xff\xfe\r\n", 400, "request line"),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nbad line\r\n", 400, "header line: 'bad line'"),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nA b: c\r\n", 400, "header"),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 1000, 431, "64 headers"),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_000 + b"\r\n", 431, f"{MAX_HEAD_BYTES} bytes"),
        (b"GET /echo?" + b"SYMBOL," * 20_000 + b" HTTP/1.1\r\n", 414, "request line"),
        # A little too long, and whole with the parser's next look.
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 8_200 + b"\r\n", 431, f"{MAX_HEAD_BYTES} bytes"),
        (b"GET /echo?" + b"s" * 8_200 + b" HTTP/1.1\r\n" + HOST, 414, "request line"),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
            400,
            "Content-Length",
        ),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n", 400, "Content-Length"),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            400,
            "together",
        ),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n", 400, "chunked"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n", 413, "100 bytes"),
    ],
)
async def test_bad_requests_are_answered_with_what_is_wrong(autojump_clock, request_, status, told):
    found, _, body = await asked(request_ + b"\r\n")
    assert found == status
    error = orjson.loads(body)["error"]
    assert error["code"] == status
    assert told in error["msg"]


async def test_405_names_what_is_allowed(autojump_clock):
    _, headers, _ = await asked(b"PUT /late HTTP/1.1\r\n%b\r\n" % HOST)
    assert headers["allow"] == "GET, HEAD"


async def test_smuggled_bytes_are_never_a_second_request(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /echo?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        assert (await peer.answer())[0] == 400
        await peer.stream.send_eof()
        assert await peer.ended()
        assert sum(peer.server.requests.values()) == 1


async def test_bodies_come_whole_by_length_in_chunks_and_after_100_continue(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        await peer.stream.send_all(b"llo")
        assert orjson.loads((await peer.answer())[2])[3] == "hello"
        await peer.stream.send_all(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        await peer.stream.send_all(b"2\r\nde\r\n0\r\n\r\n")
        assert orjson.loads((await peer.answer())[2])[3] == "abcde"
        await peer.stream.send_all(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await peer.answer())[0] == 100
        await peer.stream.send_all(b"ok")
        assert orjson.loads((await peer.answer())[2])[3] == "ok"


async def test_a_chunked_body_that_grows_too_large_is_413(autojump_clock):
    status, _, _ = await asked(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"40\r\n"
        + b"x" * 64
        + b"\r\n"
        b"40\r\n" + b"x" * 64 + b"\r\n"
    )
    assert status == 413


async def test_a_body_that_does_not_come_is_given_up(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert (await peer.answer())[0] == 400
        assert trio.current_time() >= IDLE_S


async def slowly(peer: Peer, data: bytes) -> None:
    for byte in data:
        await peer.stream.send_all(bytes([byte]))
        await trio.sleep(0.1)


async def test_a_head_at_a_byte_per_100_ms_is_let_go_after_head_s(autojump_clock):
    async with served() as peer:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slowly, peer, b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100)
            assert await peer.ended()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(5.0, abs=0.2)
        assert peer.server.refused == {"handshake timeout": 1}


async def test_a_connection_that_asks_no_more_is_closed_after_a_while_and_is_no_failure(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(b"GET /echo HTTP/1.1\r\n%b\r\n" % HOST)
        await peer.answer()
        began = trio.current_time()
        assert await peer.ended()
        assert trio.current_time() - began == IDLE_S
        assert not peer.server.refused


async def test_a_second_head_has_its_own_deadline_from_its_first_byte(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(b"GET /echo HTTP/1.1\r\n%b\r\n" % HOST)
        await peer.answer()
        await trio.sleep(20)
        await peer.stream.send_all(b"GET /ec")
        began = trio.current_time()
        assert await peer.ended()
        assert trio.current_time() - began == 5.0


async def test_a_route_learns_that_the_client_went_away_and_keeps_what_it_pipelined(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(b"GET /late HTTP/1.1\r\n%b\r\n" % HOST)
        await trio.sleep(1)
        await peer.stream.send_all(b"GET /echo HTTP/1.1\r\n%b\r\n" % HOST)
        assert orjson.loads((await peer.answer())[2]) == "in time"
        assert (await peer.answer())[0] == 200
        await peer.stream.send_all(b"GET /late HTTP/1.1\r\n%b\r\n" % HOST)
        await trio.sleep(1)
        began = trio.current_time()
        await peer.stream.send_eof()
        assert orjson.loads((await peer.answer())[2]) == "gone"
        assert trio.current_time() == began


async def test_a_flood_behind_a_waiting_request_is_not_taken_in(autojump_clock):
    async with served() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(
            peer.stream.send_all, b"GET /late HTTP/1.1\r\n%b\r\n%b" % (HOST, b"x" * 10_000_000)
        )
        assert orjson.loads((await peer.answer())[2]) == "in time"
        assert (await peer.answer())[0] in (400, 414)
        nursery.cancel_scope.cancel()


async def test_a_route_that_fails_is_answered_and_ends_its_connection_alone(autojump_clock):
    async with served() as peer:
        await peer.stream.send_all(b"GET /broken HTTP/1.1\r\n%b\r\n" % HOST)
        status, headers, body = await peer.answer()
        assert (status, headers["connection"]) == (500, "close")
        assert orjson.loads(body)["error"] == {"code": 500, "msg": "internal error: the engine has logged it"}
        assert await peer.ended()
        assert peer.server.requests == {("/broken", 500): 1}


ORIGINS = Rules(head_s=5.0, origins=Origins(["https://Good.example"]))


@pytest.mark.parametrize(
    ("origin", "status"),
    [(b"https://good.example", 200), (b"https://evil.example", 403), (b"null", 403), (b"", 403)],
)
async def test_pages_of_other_origins_are_refused(autojump_clock, origin, status):
    found, headers, _ = await asked(b"GET /echo HTTP/1.1\r\n%bOrigin: %b\r\n\r\n" % (HOST, origin), ORIGINS)
    assert found == status
    assert headers["vary"] == "Origin"
    assert headers.get("access-control-allow-origin") == (origin.decode() if status == 200 else None)


async def test_two_origins_are_none(autojump_clock):
    found, _, _ = await asked(
        b"GET /echo HTTP/1.1\r\n%bOrigin: https://good.example\r\nOrigin: https://good.example\r\n\r\n"
        % HOST,
        ORIGINS,
    )
    assert found == 403


async def test_a_star_allows_all_and_names_each(autojump_clock):
    rules = Rules(head_s=5.0, origins=Origins(["*"]))
    _, headers, _ = await asked(b"GET /echo HTTP/1.1\r\n%bOrigin: https://any.example\r\n\r\n" % HOST, rules)
    assert headers["access-control-allow-origin"] == "https://any.example"


async def test_a_preflight_is_answered(autojump_clock):
    status, headers, body = await asked(
        b"OPTIONS /echo HTTP/1.1\r\n%bOrigin: https://good.example\r\n"
        b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: last-event-id\r\n\r\n"
        % HOST,
        ORIGINS,
    )
    assert (status, body) == (204, b"")
    assert headers["access-control-allow-methods"] == "GET, HEAD, POST"
    assert "Last-Event-ID" in headers["access-control-allow-headers"]
    assert headers["access-control-allow-origin"] == "https://good.example"
    assert "content-length" not in headers


async def test_options_without_a_page_says_what_is_allowed(autojump_clock):
    status, headers, _ = await asked(b"OPTIONS /late HTTP/1.1\r\n%b\r\n" % HOST, ORIGINS)
    assert (status, headers["allow"]) == (204, "GET, HEAD")
    assert "access-control-allow-methods" not in headers


async def test_a_request_may_be_answered_before_it_reaches_a_route(autojump_clock):
    rules = Rules(head_s=5.0, refuse=lambda request: error_response(429, "no", (("Retry-After", "1"),)))
    status, headers, _ = await asked(b"GET /echo HTTP/1.1\r\n%b\r\n" % HOST, rules)
    assert (status, headers["retry-after"]) == (429, "1")


async def test_a_peer_that_does_not_read_its_answer_is_given_up(autojump_clock):
    server = HttpServer(ROUTES, Rules(head_s=5.0))
    client, ours = memory_stream_pair()
    ours.send_stream.send_all_hook = trio.sleep_forever  # a full socket
    await client.send_all(b"GET /echo HTTP/1.1\r\n%b\r\n" % HOST)
    await server.serve(ours, "192.0.2.1")
    assert trio.current_time() >= IDLE_S


# Bodies that nobody asked for.


class Tap(trio.abc.HalfCloseableStream):
    """A stream that sends one client's bytes, and counts those that are taken."""

    def __init__(self, data: bytes, half_closed: bool) -> None:
        self.taken = 0
        self.sent = b""
        self._data = data
        self._half_closed = half_closed

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._data[self.taken : self.taken + (max_bytes or 65536)]
        self.taken += len(piece)
        if not piece and not self._half_closed:
            await trio.sleep_forever()
        return piece

    async def send_all(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


CHUNKS = b"1\r\nx\r\n" * 262_144 + b"0\r\n\r\n"


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /echo", 400),
        (b"HEAD /echo", 400),
        (b"OPTIONS /echo", 400),
        (b"DELETE /echo", 405),
        (b"POST /late", 405),
        (b"POST /nope", 404),
        (b"POST /[", 400),
        (b"BREW /nope", 404),
    ],
)
@pytest.mark.parametrize("length", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 1572869\r\n"])
async def test_a_body_that_no_route_takes_is_refused_at_the_head_and_never_parsed(
    autojump_clock, monkeypatch, line, status, expect, length, half_closed
):
    parsed = []
    real = h11.Connection.next_event

    def next_event(self):
        parsed.append(0)
        return real(self)

    monkeypatch.setattr(h11.Connection, "next_event", next_event)
    stream = Tap(line + b" HTTP/1.1\r\nHost: x\r\n" + length + expect + b"\r\n" + CHUNKS, half_closed)
    server = HttpServer(ROUTES, Rules(head_s=5.0, body_bytes=262_144, origins=Origins([])))
    await server.serve(stream, "192.0.2.1")
    assert stream.sent.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in stream.sent
    assert stream.sent.count(b"HTTP/1.1 ") == 1  # no 100 Continue before it
    assert len(parsed) <= 2
    assert stream.taken <= 2 * (1 << 20)


@pytest.mark.parametrize(
    ("rules", "head", "status"),
    [
        (Rules(head_s=5.0, hosts=Hosts([])), b"POST /echo HTTP/1.1\r\nHost: evil.example\r\n", 421),
        (
            Rules(head_s=5.0, origins=Origins([])),
            b"POST /echo HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n",
            403,
        ),
        (
            Rules(head_s=5.0, refuse=lambda request: error_response(429, "too many")),
            b"POST /echo HTTP/1.1\r\nHost: x\r\n",
            429,
        ),
    ],
)
async def test_host_origin_and_rate_are_judged_before_the_body(autojump_clock, rules, head, status):
    stream = Tap(head + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, False)
    await HttpServer(ROUTES, rules).serve(stream, "192.0.2.1")
    assert stream.sent.startswith(b"HTTP/1.1 %d " % status)


async def test_a_body_in_tiny_chunks_is_refused_early_and_lets_others_run_meanwhile(autojump_clock):
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    stream = Tap(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, False)
    server = HttpServer(ROUTES, Rules(head_s=5.0, body_bytes=262_144))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        async with trio.open_nursery() as serving:

            async def serve() -> None:
                await server.serve(stream, "192.0.2.1")

            serving.start_soon(serve)
        nursery.cancel_scope.cancel()
    assert stream.sent.startswith(b"HTTP/1.1 413 ")
    chunks = FRAMING_BYTES // 5
    assert turns >= chunks // EVENTS_PER_CHECKPOINT


async def test_a_body_in_chunks_of_a_usual_size_is_no_flood(autojump_clock):
    data = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    async with served(Rules(head_s=5.0, body_bytes=262_144)) as peer:
        await peer.stream.send_all(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + data * 64 + b"0\r\n\r\n"
        )
        assert len(orjson.loads((await peer.answer())[2])[3]) == 262_144


async def test_no_body_at_all_may_be_said_in_so_many_words(autojump_clock):
    async with served() as peer:
        for _ in range(2):
            await peer.stream.send_all(b"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert (await peer.answer())[0] == 200


# Clients that leave while they wait.


@pytest.mark.parametrize("behind", [1, PIPELINED_BYTES, 1_000_000])
async def test_a_client_that_leaves_is_noticed_whatever_it_pipelined(autojump_clock, behind):
    one = b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.stream.send_all, one + (one * (behind // len(one) + 1))[:behind])
        await trio.sleep(1)
        began = trio.current_time()
        await peer.stream.send_eof()
        assert orjson.loads((await peer.answer())[2]) == "gone"
        assert trio.current_time() - began <= 1


async def test_requests_kept_behind_one_that_waits_are_answered_and_the_cut_is_told(autojump_clock):
    one = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served() as peer:
        await peer.stream.send_all(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n" + one * 4000)
        assert orjson.loads((await peer.answer())[2]) == "in time"
        answers: list[tuple[int, dict[str, str], bytes]] = []
        while not answers or answers[-1][0] == 200:
            answers.append(await peer.answer())
        assert (
            PIPELINED_BYTES // len(one) <= len(answers) <= (PIPELINED_BYTES + 2 * MAX_HEAD_BYTES) // len(one)
        )
        assert answers[-1][0] == 400
        assert f"{PIPELINED_BYTES} bytes" in orjson.loads(answers[-1][2])["error"]["msg"]


async def test_polls_that_wait_one_after_the_other_keep_no_more_than_one_does(autojump_clock, monkeypatch):
    kept = []
    real = h11.Connection.receive_data

    def receive_data(self, data):
        real(self, data)
        kept.append(len(self.trailing_data[0]))

    monkeypatch.setattr(h11.Connection, "receive_data", receive_data)
    one = b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n"
    stream = Tap(one * 1_000_000, False)
    server = HttpServer(ROUTES, Rules(head_s=5.0))
    with trio.move_on_after(105):  # ten polls
        await server.serve(stream, "192.0.2.1")
    assert stream.sent.count(b"in time") == 10
    assert max(kept) <= PIPELINED_BYTES + 2 * MAX_HEAD_BYTES
