"""The shipped configurations of nats-server: valid, and a cluster with a leaf site works on them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from marketfeed.cluster.bucket import BucketGoneError
from marketfeed.cluster.link import open_link
from marketfeed.cluster.link_settings import LinkSettings
from marketfeed.cluster.link_state import LinkState
from marketfeed.errors import ClusterError
from tests.support.nats import PROGRAM, READY_S
from tests.support.nats_site import DEPLOY, PASSWORDS, Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
WAIT_S = 60


@pytest.mark.parametrize("name", ["nats-server.conf", "cluster.conf", "leaf-site.conf"])
def test_nats_server_accepts_the_configuration(name):
    environ = {"NATS_NAME": "nats-1", "NATS_LEAF_URL": "nats-leaf://leaf:x@nats-1:7422", **PASSWORDS}
    done = subprocess.run(
        [PROGRAM, "-t", "-c", DEPLOY / name], env=environ, capture_output=True, text=True, timeout=READY_S
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def sites(tmp_path):
    """The servers of both sites."""
    started: list[Site] = []
    try:
        main = Site("cluster.conf", ["nats-1", "nats-2", "nats-3"], tmp_path)
        started.append(main)
        leaf = main.ports["nats-1"][3]
        url = f"nats-leaf://leaf:leaf-secret@127.0.0.1:{leaf}"
        started.append(Site("leaf-site.conf", ["nats-b1", "nats-b2", "nats-b3"], tmp_path, url))
        for site in started:
            site.wait_until_ready()
        yield started
    finally:
        for site in started:
            site.close()


async def until_received(writer, reader, subject):
    """Publish to ``subject`` until ``reader`` has a message, and return the subjects of what it has.

    Interest spreads between servers with a delay.
    """
    with trio.fail_after(WAIT_S):
        while True:
            assert writer.publish(subject, b"x")
            with trio.move_on_after(0.1):
                return {message.subject for message in await reader.receive()}


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of the bucket; while its servers elect a leader it gives none, and is asked again."""
    with trio.fail_after(WAIT_S):
        while True:
            try:
                return await ask()
            except BucketGoneError:
                await trio.sleep(0.05)


async def test_ingest_nodes_write_and_gateways_of_both_sites_read(sites):
    main, other = sites
    async with (
        open_link(main.settings("ingest")) as ingest,
        open_link(main.settings("gateway")) as near,
        open_link(other.settings("gateway", bucket=None)) as far,
    ):
        for gateway in (near, far):
            gateway.subscribe("mf.test.s0.t")
            gateway.subscribe("mf.test.n.*")
            await gateway.flush(WAIT_S)
        for gateway in (near, far):
            assert await until_received(ingest, gateway, "mf.test.s0.t") == {"mf.test.s0.t"}
        await answered(lambda: ingest.create("origin.s0", b"ingest", WAIT_S))
        entry = await answered(lambda: near.get("origin.s0", WAIT_S))
        assert entry is not None
        assert entry.value == b"ingest"
        revision = entry.revision
        with pytest.raises(ClusterError):  # no answer: the write is refused
            await near.compare_and_set("origin.s0", b"gateway", revision, 0.5)
        assert await answered(lambda: ingest.get("origin.s0", WAIT_S)) == (b"ingest", revision)
        ingest.subscribe("mf.test.s0.>")
        ingest.subscribe("mf.test.n.*")
        await ingest.flush(WAIT_S)
        assert near.publish("mf.test.s0.t", b"a frame of a gateway")
        assert await until_received(near, ingest, "mf.test.n.near") == {"mf.test.n.near"}
        assert near.state is LinkState.CONNECTED


async def test_a_stranger_is_refused(sites):
    main, _ = sites
    async with open_link(LinkSettings(main.settings("x").servers, "test.x", 1 << 20)) as link:
        with trio.fail_after(WAIT_S):
            while link.state is not LinkState.DOWN:
                await trio.sleep(0.01)
        assert link.statistics().reason.startswith("the NATS server refused the credentials")
