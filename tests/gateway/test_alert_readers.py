"""Consumers of alerts that stop reading, over real sockets: nobody else waits, and memory is bounded."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from typing import Any

import pytest
import trio

from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.testing_alert_log import example
from tests.support.live import LIMITS, connected, serving_alerts
from tests.support.ws_frames import masked

TAKEN = 10  # alerts per frame
DELIVERY = DeliveryLimits(max_tries=10, in_flight=2 * TAKEN)
FAST = replace(LIMITS, requests_per_s=1e6)
TEXT_BYTES = 16_000
BUFFER_BYTES = 4096  # of the kernel, so that it takes little of what the client does not read
JOIN = {"action": "subscribe", "alerts": ["*"], "consumer": "risk"}


async def stuck_session(live):
    """Return the stream and the outbox of a session of consumer ``risk`` that reads nothing further."""
    before = set(live.gateway.sessions)
    stream = await live.raw()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    got = b""
    while b"session" not in got:
        got += await stream.receive_some()
    (session,) = set(live.gateway.sessions) - before
    outbox: Any = session.alerts._outbox
    outbox._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    await stream.send_all(masked(0x81, json.dumps(JOIN).encode()))
    while b"synced" not in got:
        got += await stream.receive_some()
    return stream, outbox


async def joined(client, **request):
    await client.send(action="subscribe", alerts=["*"], start="all", **request)
    await client.next("synced")


async def acknowledge_until(client, wanted):
    """Receive and acknowledge until all of ``wanted`` have come; return the tries of each."""
    tries: dict[str, list[int]] = {}
    while not tries.keys() >= wanted:
        message = await client.next("a")
        tries.setdefault(message["id"], []).append(message["try"])
        await client.send(action="ack", alerts=[message["id"]])
    return tries


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr("marketfeed.gateway.session_alerts.TAKEN", TAKEN)
    return [example(number, data={"text": "x" * TEXT_BYTES}) for number in range(4 * TAKEN)]


async def test_a_consumer_that_stops_reading_delays_nobody_and_its_alerts_go_to_another(tmp_path, large):
    ids = {alert.id for alert in large}
    async with (
        serving_alerts(tmp_path, DELIVERY, limits=FAST) as (live, dispatch),
        connected(live) as other,
        connected(live) as same,
    ):
        stuck, outbox = await stuck_session(live)
        await joined(other, consumer="other", quotes=["A"])
        await dispatch.append(large, time.time_ns())
        while not outbox.waiting_bytes:
            await trio.sleep(0.001)

        # Others get their alerts and quotes.
        assert (await acknowledge_until(other, ids)).keys() == ids
        live.publish("A")
        assert (await other.next("q"))["S"] == "A"
        # One take is in memory, whatever the consumer may hold.
        assert dispatch.statistics()["risk"].unacknowledged == TAKEN
        assert outbox.waiting_bytes < TAKEN * (TEXT_BYTES + 1000)

        # A second session of the consumer gets the rest at once, and what the first had once that ends.
        await joined(same, consumer="risk")
        rest = {alert.id for alert in large[TAKEN:]}
        tries = await acknowledge_until(same, rest)
        assert {id_ for id_, found in tries.items() if found[0] == 1} == rest
        await trio.aclose_forcefully(stuck)
        tries |= await acknowledge_until(same, ids - tries.keys())
        assert tries.keys() == ids
        assert {tries[alert.id][0] > 1 for alert in large[:TAKEN]} == {True}
        while dispatch.statistics()["risk"].unacknowledged:
            await trio.sleep(0.001)
        found = dispatch.statistics()["risk"]
        assert (found.sessions, found.floor) == (1, len(large))


async def test_a_consumer_that_does_not_read_is_ended_and_its_alerts_go_to_another(tmp_path, large):
    async with serving_alerts(tmp_path, DELIVERY, stall_s=0.1) as (live, dispatch):
        stuck, _ = await stuck_session(live)
        await dispatch.append(large, time.time_ns())
        with pytest.raises(trio.BrokenResourceError):
            await live.read_to_end(stuck)
        await dispatch.join("same", "risk", "all", ["*"])
        left = {alert.id for alert in large}
        while left:  # not over a socket, which a busy machine might end as well
            ids = [due.entry.alert.id for due in await dispatch.take("same", TAKEN)]
            left -= set((await dispatch.acknowledge("risk", ids)).ids)
