"""Requests for compression: when it is on, what turns it off, and where there is none."""

from __future__ import annotations

import pytest

from marketfeed.fanout.wire import BINARY
from tests.support.bench import everything_packed
from tests.support.live import connected, serving

ON = {"action": "subscribe", "tier": "premium", "compress": True}


async def test_a_session_gets_its_frames_compressed_from_the_answer_on_until_it_says_otherwise():
    names = ("A", "B", "C", "D") * 4
    with everything_packed():
        async with serving() as live, connected(live) as client:
            live.publish(*names)
            await client.send(**ON, quotes=["*"], id=1)
            answer = await client.next()
            assert (answer["encoding"], answer["compress"]) == ("json", True)
            assert "compressed" not in await client.next("synced")
            live.publish(*names)
            ticks = [await client.next() for _ in range(4)]
            assert [(tick["S"], tick["n"], tick["compressed"]) for tick in ticks] == [
                (name, 8, True) for name in "ABCD"
            ]
            await client.send(action="ping", t=5)
            assert await client.next() == {"T": "pong", "t": 5}
            await client.send(action="subscribe", quotes=["E"], id=2)  # stays on
            assert (await client.next("subscription"))["compress"]
            await client.send(action="unsubscribe", quotes=["E"], id=3)
            assert (await client.next("subscription"))["compress"]
            await client.send(action="subscribe", compress=False, id=4)
            answer = await client.next("subscription")
            assert (answer["encoding"], "compress" in answer) == ("json", False)
            await client.next("synced")
            live.publish(*names)
            assert "compressed" not in await client.next("q")


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"compress": True}, "tier vip has no interval"),
        ({"compress": True, "tier": "vip", "encoding": "json"}, "tier vip has no interval"),
        ({"compress": True, "tier": "premium", "encoding": "binary"}, "encoding binary is not compressed"),
        ({"compress": True, "tier": "vip", "encoding": "binary"}, "encoding binary is not compressed"),
    ],
)
async def test_where_there_is_no_compression_it_is_refused_and_nothing_changes(request_, why):
    async with serving() as live, connected(live) as client:
        await client.send(action="subscribe", quotes=["A"], **request_, id=1)
        error = await client.next()
        assert (error["T"], error["code"], error["id"]) == ("error", 400, 1)
        assert error["msg"] == f"compress: needs encoding json and a tier with an interval; {why}"
        await client.send(action="subscribe", quotes=["B"], id=2)
        answer = await client.next()
        assert (answer["quotes"], answer["tier"], answer["encoding"]) == (["B"], "vip", "json")
        assert "compress" not in answer


@pytest.mark.parametrize("change", [{"tier": "vip"}, {"encoding": "binary"}])
async def test_a_change_to_what_does_not_compress_turns_it_off(change):
    async with serving() as live, connected(live) as client:
        await client.send(**ON, quotes=["A"], id=1)
        assert (await client.next("subscription"))["compress"]
        await client.send(action="subscribe", **change, id=2)
        assert "compress" not in await client.next("subscription")
        await client.send(action="subscribe", tier="premium", encoding="json", id=3)
        assert "compress" not in await client.next("subscription")


async def test_it_needs_json_where_sessions_begin_in_binary():
    async with serving(encoding=BINARY) as live, connected(live) as client:
        await client.send(**ON, id=1)
        assert "encoding binary is not compressed" in (await client.next("error"))["msg"]
        await client.send(**ON, encoding="json", id=2)
        assert (await client.next("subscription"))["compress"]
