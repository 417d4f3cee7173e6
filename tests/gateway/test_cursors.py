"""Cursors over every transport: the text as the engine gave it out, or an error; never a guess."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from marketfeed.core.cursor import EPOCH
from tests.support.live import connected, serving

# Texts that a lenient parser would take for e1:2, the cursor that was given out, or for another one.
NEVER_GIVEN_OUT = [
    "e1:+2", "e1:-2", "e1:02", "e1:2.0", "e1:2e0", "e1:0x2", "e1:2_0", "e1: 2", "e1 :2", "e1:2 2",
    "e1:2,e2:3",
    "e1:２", "e1:٢", "e1:²", "е1:2", "e1:2\u200b", "e1:", ":2", "2", "e1", "e1:2:2", "e1/2", "e1%3A2",
    '"e1:2"', "e1:18446744073709551616", "e1:99999999999999999999999", "e" * 33 + ":2", "null",
]  # fmt: skip
RESETTING = ["e1:3", "e1:18446744073709551615", "e0:2", "E1:2", "e" * 32 + ":0"]


async def get(live, path, headers=b""):
    """Return status and body of an answer; of an event stream what comes up to `synced`."""
    stream = await live.connect()
    await stream.send_all(
        b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%bConnection: close\r\n\r\n" % (path, headers)
    )
    got = b""
    while b"synced" not in got and (data := await stream.receive_some()):
        got += data
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def quoted(key, cursor):
    return f"{key}={urllib.parse.quote(cursor, safe='')}".encode()


async def over_poll(live, cursor):
    status, body = await get(live, b"/v1/poll?quotes=A,B&timeout_s=0&" + quoted("after", cursor))
    return status, json.loads(body) if body else {}


async def over_events(live, path, headers=b""):
    status, body = await get(live, path, headers)
    if status != 200:
        return status, json.loads(body)
    data = next(line for line in body.splitlines() if b'"subscription"' in line)
    return status, json.loads(data.removeprefix(b"data: "))[0]


async def over_events_after(live, cursor):
    return await over_events(live, b"/v1/events?quotes=A,B&" + quoted("after", cursor))


async def over_events_polyfilled(live, cursor):
    return await over_events(live, b"/v1/events?quotes=A,B&" + quoted("lastEventId", cursor))


async def over_events_resumed(live, cursor):
    header = f"Last-Event-ID: {cursor}\r\n".encode()
    return await over_events(live, b"/v1/events?quotes=A,B", header)


async def over_websocket(live, cursor):
    async with connected(live) as client:
        await client.send(action="subscribe", quotes=["A", "B"], after=cursor)
        while (message := await client.next())["T"] not in ("subscription", "error"):
            pass
        return (200, message) if message["T"] == "subscription" else (message["code"], {"error": message})


TRANSPORTS = [over_websocket, over_events_after, over_events_polyfilled, over_events_resumed, over_poll]


@pytest.mark.parametrize("ask", TRANSPORTS)
@pytest.mark.parametrize("cursor", NEVER_GIVEN_OUT, ids=ascii)
async def test_a_text_that_is_no_cursor_is_an_error_and_opens_nothing(ask, cursor):
    async with serving() as live:
        live.publish("A", "B")
        status, answer = await ask(live, cursor)
        assert status == 400
        assert "not a cursor" in answer["error"]["msg"]
        await live.until_empty()


@pytest.mark.parametrize("ask", TRANSPORTS)
@pytest.mark.parametrize("cursor", RESETTING)
async def test_what_this_epoch_has_not_published_resets_all_names(ask, cursor):
    """Beyond the newest tick, or of another epoch: the engine never gave it out for what it has now."""
    async with serving() as live:
        live.publish("A", "B")
        assert EPOCH.fullmatch(live.shard.rings.epoch)
        status, answer = await ask(live, cursor)
        assert (status, answer["resumed"], answer["reset"]) == (200, False, ["A", "B"])


@pytest.mark.parametrize(
    "ask", [over_websocket, over_events_after, over_events_resumed, over_events_polyfilled]
)
@pytest.mark.parametrize("cursor", ["e1:0", "e1:1", "e1:2"])
async def test_what_was_given_out_resumes(ask, cursor):
    async with serving() as live:
        live.publish("A", "B")
        status, answer = await ask(live, cursor)
        assert (status, answer["resumed"], answer["reset"]) == (200, True, [])


async def test_a_poll_resumes_from_what_was_given_out():
    async with serving() as live:
        live.publish("A", "B")
        status, answer = await over_poll(live, "e1:1")
        assert (status, answer["resumed"], answer["cursor"]) == (200, True, "e1:2")
        assert (await over_poll(live, "e1:2"))[0] == 204
