"""A gateway in a cluster: it tells that it does not hear the source of its ticks, and where else to go."""

from __future__ import annotations

import json

import trio
from trio.testing import wait_all_tasks_blocked

from marketfeed.api.messages import Source
from marketfeed.core.records import FLAG_SNAPSHOT, FLAG_STALE
from marketfeed.fanout.wire import BINARY
from marketfeed.gateway.cluster_view import ClusterView
from tests.gateway.test_events import Source as EventSource
from tests.gateway.test_polling import poller
from tests.support.live import Live, connected, serving

STALE = Source("s0", "stale", 17)
LIVE = Source("s0", "live", 18)
TOLD = {"T": "source", "shard": "s0", "state": "stale", "t": 17}


def change(live: Live, source: Source) -> None:
    """Do what a server does when the state of its source changes."""
    cluster = live.service.cluster
    cluster.source = source
    live.shard.mark_stale(cluster.stale)
    cluster.changed.set()


async def test_sessions_of_all_encodings_are_told_each_change():
    async with trio.open_nursery() as nursery:
        async with serving() as live, connected(live) as text, connected(live) as binary:
            nursery.start_soon(live.gateway.tell_sources)
            events = EventSource(await live.connect())
            live.publish("A")
            await text.send(action="subscribe", quotes=["A"])
            await binary.send(action="subscribe", quotes=["A"], encoding="binary")
            await events.open("quotes=A")
            for client in (text, binary):
                await client.next("synced")
            assert [one["T"] for one in (await events.next()).messages][:1] == ["subscription"]
            change(live, STALE)
            assert await text.next("source") == TOLD
            assert await binary.next("source") == TOLD | {"binary": True}
            while TOLD not in (await events.next()).messages:
                pass
            change(live, LIVE)
            assert (await text.next("source"))["state"] == "live"
            live.publish("A")  # the session goes on
            assert (await text.next("q"))["n"] == 2
        nursery.cancel_scope.cancel()


async def test_a_session_that_begins_meanwhile_is_told_and_its_snapshot_has_the_flag():
    async with serving(encoding=BINARY) as live:
        live.publish("A")
        change(live, STALE)
        async with connected(live) as client:
            assert await client.next("source") == TOLD | {"binary": True}
            await client.send(action="subscribe", quotes=["A"])
            while "R" not in (message := await client.next()):
                pass
            assert message["R"]["flags"] == FLAG_SNAPSHOT | FLAG_STALE
            live.publish("A")
            while "R" not in (message := await client.next()):
                pass
            assert message["R"]["flags"] == 0
        change(live, LIVE)
        async with connected(live) as client:
            await client.send(action="subscribe", quotes=["A"])
            while "R" not in (message := await client.next()):
                assert message["T"] != "source"
            assert message["R"]["flags"] == FLAG_SNAPSHOT


async def test_answers_over_http_say_that_they_may_be_out_of_date():
    targets = ("/v1/poll?quotes=A", "/v1/quotes?symbols=A", "/v1/trades?symbols=A", "/v1/symbols")
    async with serving() as live:
        live.publish("A")
        client = await poller(live)
        for target in targets:
            assert "x-source" not in (await client.get(target)).headers
        change(live, STALE)
        for target in targets:
            assert (await client.get(target)).headers["x-source"] == "stale"
        tag = (await client.get("/v1/quotes?symbols=A")).headers["etag"]
        same = await client.get("/v1/quotes?symbols=A", f"If-None-Match: {tag}\r\n")
        assert (same.status, same.headers["x-source"]) == (304, "stale")


async def test_a_drain_sends_clients_to_other_nodes():
    async with serving() as live, connected(live) as client:
        live.service.cluster.urls = ["http://b:1"]
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.gateway.drain)
            code, messages = await client.closed()
        assert (code, messages[-1]["T"], messages[-1]["url"]) == (1001, "closing", "http://b:1")


async def test_a_rolling_restart_or_a_new_epoch_does_not():
    for spread_s in (0.0, None):
        async with serving() as live, connected(live) as client:
            live.service.cluster.urls = ["http://b:1"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(live.gateway.retire, spread_s)
                _, messages = await client.closed()
            assert "url" not in messages[-1]


async def test_without_other_nodes_closing_has_no_url():
    async with serving() as live, connected(live) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.gateway.drain)
            _, messages = await client.closed()
        assert "url" not in messages[-1]


def test_clients_spread_over_the_nodes_and_most_keep_theirs_when_one_is_gone():
    view = ClusterView()
    assert view.url_for("x") is None
    clients = [f"10.0.0.{n}" for n in range(200)]
    view.urls = ["http://a", "http://b", "http://c"]
    before = {client: view.url_for(client) for client in clients}
    assert {sum(url == one for url in before.values()) > 30 for one in view.urls} == {True}
    view.urls = ["http://a", "http://b"]
    kept = [client for client in clients if before[client] != "http://c"]
    assert all(view.url_for(client) == before[client] for client in kept)


def test_the_message_is_an_array():
    view = ClusterView()
    view.source = STALE
    assert json.loads(view.message()) == [TOLD]
