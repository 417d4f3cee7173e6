"""The bucket of a cluster in real NATS servers: compare-and-set, its settings, and the loss of either."""

from __future__ import annotations

from functools import partial

import pytest
import structlog.testing
import trio

from marketfeed.cluster.link import open_link
from marketfeed.cluster.link_state import LinkState
from marketfeed.core.breaker import BreakerState
from marketfeed.errors import ClusterError
from tests.support.links import BUCKET, WAIT_S, connected, eventually, raw, received, settings_of, until


async def test_the_bucket_is_made_and_values_are_compared_and_set(server):
    async with open_link(settings_of(server, bucket=BUCKET)) as link:
        assert await link.get("origin.s0", WAIT_S) is None
        first = await link.create("origin.s0", b"one")
        assert first is not None
        assert await link.create("origin.s0", b"other") is None
        assert await link.get("origin.s0") == (b"one", first)
        second = await link.compare_and_set("origin.s0", b"two", first)
        assert second is not None
        assert second > first
        assert await link.compare_and_set("origin.s0", b"late", first) is None
        assert await link.get("origin.s0") == (b"two", second)

        async def delete(client):
            await (await client.jetstream().key_value(BUCKET)).delete("origin.s0")

        await raw(server, delete)
        assert await link.get("origin.s0") is None
        third = await link.compare_and_set("origin.s0", b"three", 0)
        assert third is not None
        assert third > second + 1
    async with open_link(settings_of(server, bucket=BUCKET)) as link:
        assert await link.get("origin.s0", WAIT_S) == (b"three", third)


async def test_of_two_that_set_at_once_exactly_one_wins(server):
    async with (
        open_link(settings_of(server, bucket=BUCKET)) as one,
        open_link(settings_of(server, bucket=BUCKET, name="test.b")) as other,
    ):
        won = []

        async def attempt(link, value, revision):
            work = link.create if revision is None else partial(link.compare_and_set, revision=revision)
            won.append(await work("origin.s0", value, timeout_s=WAIT_S))

        revision = None
        for _ in range(30):
            won.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attempt, one, b"one", revision)
                nursery.start_soon(attempt, other, b"other", revision)
            (revision,) = [found for found in won if found is not None]


async def test_a_value_survives_a_kill_of_the_server(server):
    async with open_link(settings_of(server, bucket=BUCKET)) as link:
        revision = await link.create("origin.s0", b"one", WAIT_S)
        server.kill()
        await until(lambda: link.state is not LinkState.CONNECTED)
        server.start()
        assert await link.get("origin.s0", WAIT_S) == (b"one", revision)


async def test_a_request_fails_at_once_when_its_connection_is_lost(server):
    async with open_link(settings_of(server, bucket=BUCKET)) as link:
        assert await link.get("k", WAIT_S) is None
        server.pause()  # it does not answer
        with pytest.raises(ClusterError, match="was lost before it answered"):
            await link.compare_and_set("k", b"", 0, WAIT_S)
        server.kill()


async def test_a_server_without_jetstream_is_told_once(stopped):
    stopped.jetstream = False
    stopped.start()
    stopped.wait_until_ready()
    told = "the bucket mf_test in NATS cannot be checked: the NATS servers have no JetStream"
    with structlog.testing.capture_logs() as logs:
        async with connected(settings_of(stopped, bucket=BUCKET), "a") as link:
            await until(lambda: link.statistics().bucket_problem)
            assert link.statistics().bucket_problem.startswith(told)
            await until(lambda: link.statistics().breakers["jetstream"].state is BreakerState.OPEN)
            with pytest.raises(ClusterError, match=rf"^no answer from NATS within 0\.6 s: {told}"):
                await link.get("origin.s0", 0.6)
            assert link.publish("a", b"messages pass")
            assert await received(link, 1) == [b"messages pass"]
            stopped.stop()
            stopped.jetstream = True
            stopped.start()
            assert await link.get("origin.s0", WAIT_S) is None
            assert link.statistics().bucket_problem == ""
            assert link.statistics().breakers["jetstream"].state is BreakerState.CLOSED
    reasons = [entry["reason"] for entry in logs if "bucket" in entry["event"] and "reason" in entry]
    assert reasons[0].startswith(told)
    assert reasons.count(reasons[0]) == 1


async def test_more_replicas_than_servers_are_told(server):
    async with open_link(settings_of(server, bucket=BUCKET, replicas=3)) as link:
        await until(lambda: link.statistics().bucket_problem)
        assert "replicas > 1 not supported in non-clustered mode" in link.statistics().bucket_problem


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"history": 5}, "history must be 1, not 5"),
        ({"ttl": 60}, "ttl must be 0, not 60.0"),
        ({"storage": "memory"}, "storage must be file, not memory"),
        ({"history": 2, "max_bytes": 1000}, "history must be 1, not 2, max_bytes must be -1, not 1000"),
    ],
)
async def test_a_bucket_with_other_settings_is_not_used(server, settings, told):
    async def make(client):
        await client.jetstream().create_key_value(bucket=BUCKET, **settings)

    await raw(server, make)
    async with open_link(settings_of(server, bucket=BUCKET)) as link:
        await until(lambda: link.statistics().bucket_problem)
        assert link.statistics().bucket_problem == f"the bucket {BUCKET} in NATS cannot be used: {told}"
        for work in (link.get("k"), link.create("k", b""), link.compare_and_set("k", b"", 1)):
            with pytest.raises(ClusterError, match=told):
                await work
        await raw(server, lambda client: client.jetstream().delete_key_value(BUCKET))
        await until(lambda: not link.statistics().bucket_problem)
        assert await link.create("k", b"") == 1


async def test_a_bucket_that_is_removed_is_made_again(server):
    async with open_link(settings_of(server, bucket=BUCKET)) as link:
        for work in (partial(link.get, "k"), partial(link.create, "k", b"")):
            assert await eventually(lambda: link.get("k")) is None
            await raw(server, lambda client: client.jetstream().delete_key_value(BUCKET))
            with pytest.raises(ClusterError, match=r"^the bucket mf_test in NATS "):
                await work()
        assert await eventually(lambda: link.create("k", b"")) == 1


async def test_a_link_without_a_bucket_has_none(server):
    async with open_link(settings_of(server)) as link:
        with pytest.raises(ClusterError, match="this link has no bucket"):
            await link.get("k")
