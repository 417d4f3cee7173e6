"""Sessions over real sockets: what they are answered, how they end, and that nobody else notices."""

from __future__ import annotations

import dataclasses
import socket

import pytest
import trio
import trio.lowlevel

from marketfeed.errors import CLOSE_TEXT, CloseCode
from marketfeed.gateway.websocket import MAX_REFUSED
from tests.support.live import HASTY, LIMITS, PATIENT, connected, serving
from tests.support.ws_frames import masked


async def test_subscribe_snapshot_live_unsubscribe():
    async with serving() as live:
        live.publish("A", "B")
        async with connected(live) as client:
            await client.send(action="subscribe", quotes=["A", "A"], id=7)
            answer = await client.next()
            assert answer == {
                "T": "subscription",
                "quotes": ["A"],
                "trades": [],
                "alerts": [],
                "tier": "vip",
                "encoding": "json",
                "id": 7,
            }
            quote = await client.next()
            assert quote["snap"] == 1
            assert (quote["S"], quote["bp"], quote["ap"], quote["n"]) == ("A", 1.0, 2.0, 1)
            assert await client.next() == {"T": "synced", "cursor": "e1:2", "id": 7}
            live.publish("B", "A")
            update = await client.next()
            assert (update["S"], update["n"], update["g"]) == ("A", 2, 4)
            await client.send(action="unsubscribe", quotes=["A"], id="x")
            assert (await client.next())["quotes"] == []


async def test_a_tier_is_changed_live():
    async with serving() as live, connected(live) as client:
        live.publish("A")
        await client.send(action="subscribe", quotes=["A"])
        await client.next("synced")
        await client.send(action="subscribe", tier="premium", id=1)
        assert (await client.next("subscription"))["tier"] == "premium"
        await client.next("synced")
        live.publish("A", "A", "A")
        assert (await client.next("q"))["n"] == 4


async def test_ping_and_auth_without_authentication():
    async with serving() as live, connected(live) as client:
        await client.send(action="ping", t=1)
        assert await client.next() == {"T": "pong", "t": 1}
        await client.send(action="auth", token="whatever", id=2)
        assert await client.next() == {"T": "success", "msg": "authenticated", "tier": "vip", "id": 2}


@pytest.mark.parametrize(
    ("request_", "code", "told"),
    [
        ({"action": "dance", "id": 3}, 410, "one of subscribe, unsubscribe, ack, ping, auth; not 'dance'"),
        ({"action": 5, "id": 3}, 410, "one of subscribe, unsubscribe, ack, ping, auth; not 5"),
        ({"action": {}, "id": 3}, 410, "; not an object"),
        ({"action": "ping", "t": 2**64, "id": 3}, 400, "64 bits"),
        ({"id": 3}, 410, "action: one of subscribe, unsubscribe, ack, ping, auth; missing"),
        (
            {"action": "subscribe", "quotes": "A", "id": 3},
            400,
            "quotes: a list of strings, each a symbol or prefix*, not 'A'",
        ),
        ({"action": "unsubscribe", "trades": ["A", 5], "id": 3}, 400, "prefix*; at index 1 it is 5"),
        ({"action": "subscribe", "quotes": [["A"]], "id": 3}, 400, "at index 0 it is a list"),
        ({"action": "subscribe", "quotes": None, "id": 3}, 400, "prefix*, not null"),
        ({"action": "subscribe", "tier": True, "id": 3}, 400, "tier: a string, not true"),
        ({"action": "subscribe", "compress": 1, "id": 3}, 400, "compress: true or false, not 1"),
        ({"action": "ping", "t": [10], "id": 3}, 400, "t: a number or a string, not a list"),
        ({"action": "auth", "token": 10**30, "id": 3}, 400, "token: a string, not "),
        (
            {"action": "subscribe", "symbols": ["A"], "id": 3},
            400,
            "'symbols': unknown key; allowed: action, id, quotes, trades, alerts, consumer, start, tier,"
            " encoding, compress, after",
        ),
        ({"action": "ping", "\x1b[2J" + 99 * "x": 1, "id": 3}, 400, "'\\x1b[2Jxxx"),
        ({"action": "subscribe", "quotes": ["A B"], "id": 3}, 400, "A B"),
        ({"action": "subscribe", "quotes": ["A*B"], "id": 3}, 400, "A*B"),
        ({"action": "subscribe", "quotes": ["A"], "tier": "gold", "id": 3}, 400, ", not 'gold'"),
        (
            {"action": "subscribe", "quotes": ["A"], "encoding": "xml", "id": 3},
            400,
            "encoding: one of json, binary, not 'xml'",
        ),
        ({"action": "subscribe", "quotes": ["A"], "after": "yesterday", "id": 3}, 400, "after: not a cursor"),
        ({"action": "subscribe", "quotes": ["A"], "after": "e1:2\r\n", "id": 3}, 400, "after: not a cursor"),
        ({"action": "subscribe", "quotes": ["A"], "after": 5, "id": 3}, 400, "after: a string, not 5"),
        ({"action": "subscribe", "quotes": list("ABCDEF"), "id": 3}, 405, "at most 5"),
    ],
)
async def test_a_bad_request_is_answered_and_the_session_lives(request_, code, told):
    async with serving() as live, connected(live) as client:
        await client.send(**request_)
        error = await client.next()
        assert (error["T"], error["code"], error["id"]) == ("error", code, 3)
        assert told in error["msg"]
        assert live.counters.errors[code] == 1
        await client.send(action="ping", t=1)
        assert (await client.next())["T"] == "pong"


async def test_an_id_that_no_answer_could_hold_is_refused():
    async with serving() as live, connected(live) as client:
        await client.send(action="subscribe", quotes=["A"], id=2**64)
        error = await client.next()
        assert (error["code"], "64 bits" in error["msg"], "id" in error) == (400, True, False)
        await client.send(action="subscribe", quotes=["A"], id=2**64 - 1)
        assert (await client.next())["id"] == 2**64 - 1


@pytest.mark.parametrize(
    "headers", ["Sec-WebSocket-Protocol: \u00ff, ,x\r\n"], ids=["a subprotocol that is no token"]
)
async def test_a_handshake_the_libraries_stumble_over_ends_that_connection_alone(headers):
    async with serving() as live, connected(live) as client:
        stream = await live.raw(headers=headers)
        got = await stream.receive_some()
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"Sec-WebSocket-Protocol" in got.partition(b"\r\n\r\n")[2]
        await live.read_to_end(stream)
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"


@pytest.mark.parametrize("text", ["[1,2]", "3", '"x"', "null"])
async def test_json_that_is_no_object_is_answered(text):
    async with serving() as live, connected(live) as client:
        await client.ws.send_message(text)
        assert (await client.next())["code"] == 400


@pytest.mark.parametrize("text", ["{not json", "", "[" * 100])
async def test_a_frame_that_is_not_json_ends_the_session_with_4500(text):
    async with serving() as live, connected(live) as client:
        await client.ws.send_message(text)
        code, messages = await client.closed()
        assert code == CloseCode.BAD_REQUEST
        assert [m["T"] for m in messages] == ["error", "closing"]
        assert "retry_ms" not in messages[1]
        await live.until_empty()
        assert live.counters.closes[CloseCode.BAD_REQUEST] == 1


async def test_ten_bad_requests_in_a_row_end_the_session_and_nine_do_not():
    async with serving() as live, connected(live) as client:
        for _ in range(9):
            await client.send(action="no")
            assert (await client.next())["code"] == 410
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"
        for _ in range(10):
            await client.send(action="no")
        code, messages = await client.closed()
        assert code == CloseCode.BAD_REQUEST
        assert [m["T"] for m in messages] == ["error"] * 10 + ["closing"]


async def test_too_many_requests_a_second_are_refused():
    limits = dataclasses.replace(LIMITS, requests_per_s=2)
    async with serving(limits) as live, connected(live) as client:
        for _ in range(3):
            await client.send(action="ping")
        answers = [await client.next() for _ in range(3)]
        assert [m.get("code") for m in answers] == [None, None, 429]


@pytest.mark.parametrize(
    ("request_", "id_"),
    [
        ('{"action":"ping","id":7}', 7),
        ('{"id":"x","action":"subscribe","quotes":["A"]}', "x"),
        ('{"action":"nonsense","id":-1}', -1),
        ('{"action":"subscribe","quotes":7,"id":"y"}', "y"),
        ('{"id":18446744073709551615}', 2**64 - 1),
        ('{"id":18446744073709551616}', None),
        ('{"id":1.5}', None),
        ('{"id":true}', None),
        ('{"id":["x"]}', None),
        ('{"id":"%s"}' % ("x" * 257), None),
        ('["id"]', None),
        ("{not json", None),
        ("", None),
        ("[" * 4000, None),
    ],
)
async def test_an_error_429_carries_the_requests_id_where_it_has_one(request_, id_):
    limits = dataclasses.replace(LIMITS, requests_per_s=1)
    async with serving(limits) as live, connected(live) as client:
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"
        await client.ws.send_message(request_)
        error = await client.next()
        assert (error["code"], error.get("id")) == (429, id_)
        assert ("id" in error) == (id_ is not None)


async def test_a_flood_of_requests_is_closed_with_4503():
    limits = dataclasses.replace(LIMITS, requests_per_s=1)
    async with serving(limits) as live, connected(live) as client:
        stream = await live.raw()
        assert b" 101 " in await stream.receive_some()
        await stream.send_all(masked(0x81, b'{"action":"ping"}') * 300)
        got = b""
        while not got.endswith(b"limits violated"):
            got += await stream.receive_some()
        assert got.count(b'"code":429') == MAX_REFUSED
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"


async def test_more_patterns_than_a_session_may_have_are_refused_and_names_are_counted_apart():
    limits = dataclasses.replace(LIMITS, patterns_per_session=2)
    async with serving(limits) as live, connected(live) as client:
        await client.send(action="subscribe", quotes=["A*", "B*", "C"], trades=["A*", "D"], id=1)
        assert (await client.next("subscription"))["id"] == 1
        await client.send(action="subscribe", trades=["E*"], id=2)
        error = await client.next("error")
        assert (error["code"], error["id"]) == (405, 2)
        assert "at most 2 patterns a session, not 3: limits.patterns_per_session" in error["msg"]
        await client.send(action="unsubscribe", quotes=["B*"], id=3)
        await client.send(action="subscribe", trades=["E*"], id=4)
        answers = [await client.next("subscription") for _ in range(2)]
        assert answers[1]["trades"] == ["A*", "D", "E*"]


@pytest.mark.slow
async def test_a_session_that_answers_slowly_and_asks_meanwhile_is_served_in_order():
    async with serving() as live:
        live.publish(*[f"S{i}" for i in range(200)])
        stream = await live.raw()
        assert b" 101 " in await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await stream.send_all(masked(0x81, b'{"action":"subscribe","quotes":["*"]}'))
        while not any(member.blocked for member in live.shard.members):
            live.publish(*[f"S{i}" for i in range(200)])
            await trio.lowlevel.checkpoint()
        for number in range(5):
            await stream.send_all(masked(0x81, b'{"action":"ping","t":%d}' % number))
        got = b""
        while b'{"T":"pong","t":4}' not in got:
            got += await stream.receive_some()
        places = [got.index(b'{"T":"pong","t":%d}' % number) for number in range(5)]
        assert places == sorted(places)
        assert not live.counters.closes


async def test_half_open_connections_leave_nothing_behind():
    limits = dataclasses.replace(HASTY, sessions=1000, sessions_per_ip=1000)
    async with serving(limits) as live:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(500):
            await live.connect()
        while live.counters.refused["handshake timeout"] < 500:
            await trio.sleep(0.01)
        while trio.lowlevel.current_statistics().tasks_living != before:
            await trio.sleep(0.001)
        assert live.admitted == 0


async def test_a_frame_over_the_limit_is_closed_with_1009():
    async with serving() as live, connected(live) as client:
        await client.ws.send_message("x" * 5000)
        code, messages = await client.closed()
        assert (code, messages) == (1009, [])
        await live.until_empty()
        assert live.counters.closes[CloseCode.TOO_BIG] == 1


@pytest.mark.parametrize("end", ["\r\n", "\n", "\n\r\n", "\r\n\n"], ids=["CRLF", "LF", "LF CRLF", "CRLF LF"])
@pytest.mark.parametrize("together", [0, 400, 3000], ids=["later", "some with the head", "all with the head"])
async def test_endless_fragments_are_closed_with_4503_however_the_handshake_ends(end, together):
    async with serving() as live:
        stream = await live.connect()
        head = live.handshake().decode().rstrip("\r\n")
        if end == "\n":
            head = head.replace("\r\n", end)
        closing = end if end.count("\n") == 2 else 2 * end
        frame = masked(0x00, b"")
        fragments, cut = frame * 3000, together * len(frame)
        await stream.send_all(f"{head}{closing}".encode() + masked(0x01, b"{") + fragments[:cut])
        got = await stream.receive_some()
        assert got.startswith(b"HTTP/1.1 101 ")
        await stream.send_all(fragments[cut:])
        while not got.endswith(b"limits violated"):
            got += await stream.receive_some()
        assert b'{"T":"closing","code":4503' in got
        await stream.aclose()
        await live.until_empty()
        assert live.counters.closes == {CloseCode.ABUSE: 1}


async def test_a_request_that_comes_in_one_piece_with_the_handshake_is_served():
    async with serving() as live:
        stream = await live.connect()
        await stream.send_all(live.handshake() + masked(0x81, b'{"action":"ping","t":7}'))
        got = b""
        while b'{"T":"pong","t":7}' not in got:
            got += await stream.receive_some()


@pytest.mark.parametrize(
    "flood",
    [masked(0x01, b"{") + masked(0x00, b"") * 100_000, masked(0x89, b"") * 1000],
    ids=["endless empty fragments", "pings"],
)
async def test_a_flood_of_frames_is_closed_with_4503(flood):
    async with serving() as live:
        stream = await live.raw()
        assert b" 101 " in await stream.receive_some()
        await stream.send_all(flood)
        got = b""
        while not got.endswith(b"limits violated"):
            got += await stream.receive_some()
        assert b'{"T":"closing","code":4503' in got
        assert (4503).to_bytes(2, "big") in got
        await stream.aclose()
        await live.until_empty()
        assert live.counters.closes == {CloseCode.ABUSE: 1}


async def test_a_client_that_sends_nothing_is_let_go_after_the_handshake_deadline():
    async with serving(HASTY) as live:
        stream = await live.connect()
        assert await stream.receive_some() == b""
        await live.until_empty()
        assert live.counters.refused["handshake timeout"] == 1


async def test_half_a_handshake_is_let_go_too():
    async with serving(HASTY) as live:
        stream = await live.connect()
        await stream.send_all(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n")
        assert await stream.receive_some() == b""
        await live.until_empty()


async def test_a_session_that_only_listens_lives():
    async with serving(PATIENT) as live:
        live.publish("A")
        async with connected(live) as client:
            await trio.sleep(PATIENT.handshake_s + 0.1)  # past the handshake deadline
            await client.send(action="subscribe", quotes=["A"])
            await client.next("synced")


@pytest.mark.parametrize(
    ("path", "upgrade", "headers", "status"),
    [
        ("/nope", True, "", b" 404 "),
        ("/v1/stream", True, "Origin: http://evil.example\r\n", b" 403 "),
        ("/v1/stream", True, "Origin: http://GOOD.example\r\n", b" 101 "),
        ("/v1/stream?x=1", True, "", b" 101 "),
        ("//[/v1/stream", True, "", b" 400 "),
        ("/v1/stream", False, "", b" 400 "),
    ],
)
async def test_handshakes_are_judged(path, upgrade, headers, status):
    async with serving() as live:
        stream = await live.raw(path, upgrade, headers)
        assert status in await stream.receive_some()
        await stream.aclose()
        await live.until_empty()


@pytest.mark.parametrize("limit", ["sessions", "sessions_per_ip"])
async def test_over_the_session_limit_the_handshake_is_answered_503(limit):
    async with serving(dataclasses.replace(LIMITS, **{limit: 1})) as live:
        async with connected(live):
            stream = await live.raw()
            assert b" 503 " in await stream.receive_some()
            assert live.counters.refused[f"too many sessions: limits.{limit}"] == 1
        await live.until_empty()
        async with connected(live):
            pass


async def test_a_reset_in_the_middle_of_a_frame_ends_that_session_alone():
    async with serving() as live:
        live.publish("A")
        async with connected(live) as client:
            stream = await live.raw()
            assert b" 101 " in await stream.receive_some()
            await stream.send_all(masked(0x81, b'{"action":"subscribe"}')[:9])
            stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER
            await stream.aclose()
            while not live.counters.closes:
                await trio.sleep(0.001)
            assert live.counters.closes == {CloseCode.ABNORMAL: 1}
            await client.send(action="subscribe", quotes=["A"])
            await client.next("synced")


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b"\x81\x02{}", CloseCode.PROTOCOL),
        (masked(0xC1, b"{}"), CloseCode.PROTOCOL),
        (masked(0x83, b"{}"), CloseCode.PROTOCOL),
        (masked(0x80, b"{}"), CloseCode.PROTOCOL),
        (masked(0x81, b"\xff{}"), CloseCode.INVALID_DATA),
    ],
    ids=["unmasked", "reserved bit", "unknown opcode", "orphan continuation", "not UTF-8"],
)
async def test_a_client_that_breaks_the_protocol_is_told_by_a_close_frame_and_leaves_no_task(broken, code):
    async with serving() as live:
        stream = await live.raw()
        assert b" 101 " in await stream.receive_some()
        await stream.send_all(broken)
        got = b""
        while data := await stream.receive_some():
            got += data
        reason = int(code).to_bytes(2, "big") + CLOSE_TEXT[code].encode()
        assert got.endswith(bytes((0x88, len(reason))) + reason)
        assert got.count(reason) == 1
        await live.until_empty()
        assert live.counters.closes == {code: 1}


async def test_a_client_that_says_1002_itself_gets_its_own_code_back_and_no_second_frame():
    async with serving() as live:
        stream = await live.raw()
        assert b" 101 " in await stream.receive_some()
        await stream.send_all(masked(0x88, (1002).to_bytes(2, "big")))
        got = b""
        while data := await stream.receive_some():
            got += data
        assert got.endswith(b"\x88\x02" + (1002).to_bytes(2, "big"))
        assert got.count(b"\x88") == 1
        await live.until_empty()


async def test_an_exception_inside_a_session_ends_only_that_session(monkeypatch):
    async with serving() as live:
        live.publish("A")
        async with connected(live) as good, connected(live) as bad:

            def broken(*_):
                raise RuntimeError("broken on purpose")

            monkeypatch.setattr("marketfeed.gateway.protocol.pong", broken)
            await bad.send(action="ping")
            code, messages = await bad.closed()
            assert (code, [m["T"] for m in messages]) == (CloseCode.INTERNAL, ["closing"])
            await good.send(action="subscribe", quotes=["A"])
            await good.next("synced")


async def test_a_peer_that_does_not_read_is_cut_after_stall_s():
    async with serving(stall_s=0.3) as live:
        stream = await live.raw()
        assert b" 101 " in await stream.receive_some(16)
        await stream.send_all(masked(0x81, b'{"action":"subscribe","quotes":["*"]}'))
        names = [f"S{i}" for i in range(200)]
        while not live.counters.closes:
            live.publish(*names)
            await trio.sleep(0.001)
        assert live.counters.closes == {CloseCode.SLOW: 1}
        with pytest.raises(trio.BrokenResourceError):
            await live.read_to_end(stream)
        await live.until_empty()


async def test_a_drain_tells_every_session():
    async with (
        serving() as live,
        connected(live) as one,
        connected(live) as two,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(live.gateway.drain)
        for client in (one, two):
            code, messages = await client.closed()
            assert code == 1001
            (closing,) = messages
            assert closing["T"] == "closing"
            assert 500 <= closing["retry_ms"] <= 3000


@pytest.mark.parametrize("code", [1001, 1011, 4001, 4503])
async def test_codes_of_the_engine_in_a_close_frame_of_a_client_count_as_normal(code):
    async with serving() as live, connected(live) as client:
        await client.ws._stream.send_all(masked(0x88, code.to_bytes(2, "big")))
        assert await client.closed() == (code, [])  # the answer came, no reset
        await live.until_empty()
        assert live.counters.closes == {CloseCode.NORMAL: 1}


async def test_a_client_that_closes_is_counted_as_normal():
    async with serving() as live:
        async with connected(live):
            pass
        await live.until_empty()
        assert live.counters.closes == {CloseCode.NORMAL: 1}
        assert live.admitted == 0


async def test_a_session_goes_on_where_the_one_before_was_cut():
    async with serving() as live:
        live.publish("A", "B")
        async with connected(live) as client:
            await client.send(action="subscribe", quotes=["A", "B"])
            answer = await client.next("subscription")
            assert "resumed" not in answer
            cursor = (await client.next("synced"))["cursor"]
        live.publish("A", "B", "A")
        async with connected(live) as client:
            await client.send(action="subscribe", quotes=["A", "B"], after=cursor, id=1)
            answer = await client.next("subscription")
            assert (answer["resumed"], answer["reset"], answer["id"]) == (True, [], 1)
            missed = [await client.next() for _ in range(3)]
            assert [(m["S"], m["n"], m["g"]) for m in missed] == [("A", 2, 3), ("B", 2, 4), ("A", 3, 5)]
            assert (await client.next()) == {"T": "synced", "cursor": "e1:5", "id": 1}
            await client.send(action="subscribe", quotes=["C"], after="e0:1")
            answer = await client.next("subscription")
            assert (answer["resumed"], answer["reset"]) == (False, ["C"])


async def test_a_cursor_that_is_ahead_of_the_rings_waits_until_they_reach_it():
    async with serving() as live:
        live.publish("A")
        async with connected(live) as client:
            await client.send(action="subscribe", quotes=["A"], after="e1:2", id=1)
            live.publish("A", "A")
            answer = await client.next("subscription")
            assert (answer["resumed"], answer["reset"]) == (True, [])
            assert [(m["n"], m["g"]) for m in [await client.next("q")]] == [(3, 3)]


async def test_a_cursor_that_the_rings_never_reach_is_reset():
    async with serving() as live:
        live.publish("A")
        async with connected(live) as client:
            await client.send(action="subscribe", quotes=["A"], after="e1:7", id=1)
            answer = await client.next("subscription")
            assert (answer["resumed"], answer["reset"]) == (False, ["A"])
