"""However a session ends, it leaves nothing to the garbage collector, which does not look at what is old."""

from __future__ import annotations

import gc

import pytest
import trio
import trio.testing

from marketfeed.errors import CloseCode
from marketfeed.fanout.group import Group
from marketfeed.fanout.interest import Interest
from marketfeed.fanout.polls import LongPoll, PollAnswer
from marketfeed.fanout.subscriber import Subscriber
from marketfeed.gateway.authentication import Authentication
from marketfeed.gateway.outbox import Outbox
from marketfeed.gateway.session import Session
from marketfeed.gateway.websocket import WebSocketSession
from marketfeed.gateway.ws_reader import WebSocketReader
from tests.support.access import Control
from tests.support.live import connected, serving


async def by_close_frame(live, ws):
    await ws.aclose()


async def by_reset(live, ws):
    await trio.aclose_forcefully(ws._stream)


async def by_bad_requests(live, ws):
    for _ in range(10):
        await ws.send_message("{}")


async def by_broken_framing(live, ws):
    await ws._stream.send_all(b"\xff" * 20)


async def by_the_engine(live, ws):
    (session,) = live.gateway.sessions
    session.end(CloseCode.DRAINING)


async def by_a_full_socket(live, ws):
    (session,) = live.gateway.sessions
    session.end(CloseCode.SLOW)


async def test_sessions_between_messages_share_a_parser():
    async with serving() as live, connected(live) as one, connected(live) as other:
        for client in (one, other, one):
            await client.send(action="ping")
            await client.next("pong")
        await trio.testing.wait_all_tasks_blocked()
        readers = [
            session._reader for session in live.gateway.sessions if isinstance(session, WebSocketSession)
        ]
        assert [reader.parsing for reader in readers if reader is not None] == [False, False]


WAYS = [by_close_frame, by_reset, by_bad_requests, by_broken_framing, by_the_engine, by_a_full_socket]


@pytest.fixture
def unaided():
    """No collection meanwhile; what one would have found is kept."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("control", [None, Control()], ids=["open", "controlled"])
async def test_an_ended_session_is_no_cycle(way, control, unaided):
    async with serving(access=None if control is None else control.access) as live:
        async with connected(live) as client:
            live.publish("A", "B")
            if control is not None:
                for symbols in (["*"], ["A", "N", "B*"]):  # a renewal
                    await client.send(action="auth", token=control.token(symbols))
                    assert (await client.next("success"))["msg"] == "authenticated"
            await client.send(action="subscribe", quotes=["A", "N"], trades=["B*"])
            await client.next("synced")
            await way(live, client.ws)
            await live.until_empty()
        gc.collect()
        ours = (Session, Authentication, Outbox, WebSocketReader, Subscriber, Group, Interest)
        left = [type(found).__name__ for found in unaided if isinstance(found, ours)]
        assert not left


# How a long poll ends: by a snapshot, by a tick that it waited for alone or with others, by its time, by
# its client.
POLLS = [
    "quotes=A&trades=A",
    "quotes=N&tier=vip",
    "quotes=N&tier=premium",
    "quotes=N&timeout_s=0",
    "quotes=N&after=e1:0&timeout_s=0.05",
]


@pytest.mark.parametrize("query", [*POLLS, "left"])
async def test_of_an_ended_poll_nothing_is_left(query, unaided):
    async with serving() as live:
        live.publish("A", "B")
        for count in (1, 2):
            # A name that has no tick yet, each time.
            target = (POLLS[1] if query == "left" else query).replace("=N", f"=N{count}")
            streams = [await live.connect() for _ in range(count)]
            for stream in streams:
                await stream.send_all(f"GET /v1/poll?{target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            while "&tier" in target and len(live.shard.polls) < count:
                await trio.sleep(0.001)
            if query != "left":
                live.publish(f"N{count}")
            for stream in streams:
                if query != "left":
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 20")
                await stream.aclose()
            while len(live.shard.polls):
                await trio.sleep(0.001)
            # The shard can remove a cancelled poll one scheduler round before the poll's task has ended.
            await trio.testing.wait_all_tasks_blocked()
        del stream, streams
        assert not any(isinstance(found, Subscriber) for found in gc.get_objects())
        gc.collect()
        ours = (LongPoll, PollAnswer, Subscriber, Group, Interest)
        assert not [type(found).__name__ for found in unaided if isinstance(found, ours)]
