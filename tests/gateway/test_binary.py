"""A session in binary: everything the engine says comes in frames of core/binary.py."""

from __future__ import annotations

from marketfeed.fanout.wire import BINARY
from tests.support.live import connected, serving


async def test_once_binary_every_message_is():
    async with serving() as live, connected(live) as client:
        live.publish("A", "B")
        await client.send(action="subscribe", quotes=["A"], encoding="binary", id=1)
        answer = await client.next()
        assert (answer["T"], answer["encoding"], answer["binary"]) == ("subscription", "binary", True)
        assert (await client.next())["ids"] == {"A": 0}
        snapshot = (await client.next())["R"]
        assert (snapshot["symbol"], snapshot["n"], snapshot["flags"], snapshot["bid_px"]) == (0, 1, 1, 10**9)
        assert (await client.next()) == {"T": "synced", "cursor": "e1:2", "id": 1, "binary": True}
        live.publish("A")
        assert (await client.next())["R"]["n"] == 2
        await client.send(action="ping", t=5)
        assert await client.next() == {"T": "pong", "t": 5, "binary": True}
        await client.send(action="dance")
        assert (await client.next())["binary"]
        await client.send(action="subscribe", quotes=["B"], id=2)  # stays binary
        assert (await client.next())["encoding"] == "binary"
        assert (await client.next())["ids"] == {"B": 1}
        assert (await client.next("synced"))["id"] == 2
        await client.send(action="subscribe", encoding="json", id=3)
        answer = await client.next()
        assert (answer["encoding"], "binary" in answer) == ("json", False)
        live.publish("B")
        assert (await client.next("q"))["n"] == 2


async def test_gateway_encoding_is_what_sessions_begin_with_and_end_with():
    async with serving(encoding=BINARY) as live, connected(live) as client:
        await client.ws.send_message("{no json")
        code, messages = await client.closed()
        assert code == 4500
        assert [(m["T"], m["binary"]) for m in messages] == [("error", True), ("closing", True)]
