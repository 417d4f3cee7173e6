"""The link of a node to real NATS servers: order, reconnects, refusals, and its end."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
import structlog.testing
import trio
import trustme

from marketfeed.cluster import connection
from marketfeed.cluster.connection import Connection
from marketfeed.cluster.link import SWITCH_S, open_link
from marketfeed.cluster.link_settings import link_settings
from marketfeed.cluster.link_state import LinkState
from marketfeed.cluster.nats_errors import REFUSED
from marketfeed.config.cluster import ClusterConfig
from marketfeed.core.breaker import BreakerState
from marketfeed.errors import ClusterError
from marketfeed.secret import Secret
from tests.support.links import BUCKET, WAIT_S, connected, eventually, received, settings_of, until
from tests.support.nats import three_servers
from tests.support.nats_creds import Operator

# Messages.


async def test_messages_arrive_in_order(server):
    sent = [number.to_bytes(4, "little") * (1 + number % 97) for number in range(5000)]
    async with (
        connected(settings_of(server), "mf.test.*") as reader,
        connected(settings_of(server)) as writer,
    ):
        for payload in sent:
            assert writer.publish("mf.test.t", payload)
        assert await received(reader, len(sent)) == sent
        await writer.flush()
        counts = writer.statistics()
        assert (counts.sent, counts.sent_bytes, counts.waiting_out_bytes) == (5000, sum(map(len, sent)), 0)
        assert reader.statistics().received == 5000


async def test_threads_take_short_turns_while_a_link_is_open(server):
    before_s = sys.getswitchinterval()
    async with connected(settings_of(server)):
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    assert sys.getswitchinterval() == before_s


async def test_messages_wait_for_the_first_connect(stopped):
    async with open_link(settings_of(stopped)) as writer:
        for number in range(10):
            assert writer.publish("a", bytes([number]))
        await until(lambda: writer.statistics().reason == "Connection refused")
        assert writer.statistics().state is LinkState.CONNECTING
        with pytest.raises(ClusterError, match=r"^no answer from NATS within 0\.01 s$"):
            await writer.flush(0.01)
        stopped.start()
        async with connected(settings_of(stopped), "b") as reader:
            await until(lambda: writer.state is LinkState.CONNECTED)
            assert writer.publish("b", b"last")
            assert await received(reader, 1) == [b"last"]
        assert writer.statistics().sent == 11


async def test_urgent_messages_overtake_those_that_wait(stopped):
    async with open_link(settings_of(stopped)) as writer:
        for number in range(5):
            assert writer.publish("a", b"plain %d" % number)
        assert writer.publish("a", b"urgent", urgent=True)
        writer.subscribe("a")
        stopped.start()
        assert await received(writer, 6) == [b"urgent", *(b"plain %d" % number for number in range(5))]


async def test_what_is_published_last_is_sent_before_the_link_ends(server):
    async with connected(settings_of(server), "a") as reader:
        async with connected(settings_of(server)) as writer:
            for _ in range(100):
                assert writer.publish("a", bytes(100_000))
        assert len(await received(reader, 100)) == 100


@pytest.mark.parametrize("subject", ["", "a b", "a..b", ".a", "a.", "a\r\nPING", "é"])
async def test_an_invalid_subject_is_refused_and_costs_nothing(server, subject):
    async with connected(settings_of(server), "a") as link:
        with pytest.raises(ValueError, match=r"^invalid subject of NATS: "):
            link.publish(subject, b"")
        with pytest.raises(ValueError, match=r"^invalid subject of NATS: "):
            link.subscribe(subject)
        assert link.publish("a", b"good")
        assert await received(link, 1) == [b"good"]
        assert link.statistics().connects == 1


async def test_a_message_above_the_servers_limit_is_refused(stopped):
    stopped.max_payload = 65_536
    stopped.start()
    stopped.wait_until_ready()
    async with connected(settings_of(stopped), "a") as link:
        assert link.max_payload == 65_536
        with pytest.raises(
            ClusterError, match=r"^65537 bytes for a: the NATS server accepts 65536 \(max_pay"
        ):
            link.publish("a", bytes(65_537))
        assert link.publish("a", bytes(65_536))
        assert [len(payload) for payload in await received(link, 1)] == [65_536]
        assert link.statistics().oversized == 1


async def test_a_message_above_the_limit_of_a_server_that_comes_later_is_dropped_and_counted(stopped):
    stopped.max_payload = 65_536
    async with open_link(settings_of(stopped)) as link:
        link.subscribe("a")
        assert link.publish("a", bytes(65_537))
        assert link.publish("a", b"next")
        stopped.start()
        assert await received(link, 1) == [b"next"]
        assert link.statistics().oversized == 1


async def test_a_reader_that_does_not_read_has_a_bounded_queue(server):
    count, size, most = 400, 65_536, 2 << 20
    async with (
        connected(settings_of(server, queue_bytes=most), "a") as reader,
        connected(settings_of(server, queue_bytes=64 << 20)) as writer,
    ):
        for _ in range(count):
            assert writer.publish("a", bytes(size))
        await until(lambda: reader.statistics().received + reader.statistics().dropped_in == count)
        figures = reader.statistics()
        assert figures.waiting_in_bytes <= most
        assert figures.dropped_in > 0
        assert len(await received(reader, figures.received)) == figures.received
        assert writer.publish("a", b"again")
        assert await received(reader, 1) == [b"again"]


async def test_a_full_queue_to_send_refuses_and_counts(stopped):
    async with open_link(settings_of(stopped, queue_bytes=1 << 20)) as link:
        taken = [link.publish("a", bytes(100_000)) for _ in range(20)]
        assert taken == [True] * 10 + [False] * 10
        assert link.statistics().dropped_out == 10


# Servers that go and come.


async def test_after_a_kill_and_a_restart_of_the_server_messages_flow_again(server):
    async with (
        connected(settings_of(server), "a") as reader,
        connected(settings_of(server)) as writer,
    ):
        assert writer.publish("a", b"before")
        assert await received(reader, 1) == [b"before"]
        server.kill()
        await until(lambda: LinkState.CONNECTED not in (reader.state, writer.state))
        assert writer.statistics().reason
        assert writer.publish("a", b"waits")
        server.start()
        await until(lambda: reader.state is writer.state is LinkState.CONNECTED)
        await reader.flush()
        assert writer.publish("a", b"after")
        found = await received(reader, 1)
        assert (found + await received(reader, 1) if found == [b"waits"] else found)[-1] == b"after"
        assert (reader.statistics().connects, reader.statistics().link_restarts) == (2, 0)


async def test_a_client_that_reads_no_more_is_replaced(server):
    """The read loop of nats-py can end while the client counts as connected."""
    async with connected(settings_of(server), "a") as link:
        thread = link._thread
        client = thread._connection._client

        def break_it():
            client._reading_task.cancel()
            client._ping_interval_task.cancel()

        thread._soon(break_it)
        await until(lambda: link.statistics().link_restarts == 1)
        await until(lambda: link.state is LinkState.CONNECTED)
        assert thread._connection._client is not client
        await link.flush()
        assert link.publish("a", b"again")
        assert await received(link, 1) == [b"again"]


async def test_an_unforeseen_error_of_the_client_costs_the_client_alone(server, monkeypatch):
    run = Connection.run
    failures = [RuntimeError("a mistake in nats-py")]

    async def failing(self):
        if failures:
            raise failures.pop()
        return await run(self)

    monkeypatch.setattr(Connection, "run", failing)
    with structlog.testing.capture_logs() as logs:
        async with connected(settings_of(server)):
            pass
    assert logs[0]["reason"] == "RuntimeError('a mistake in nats-py')"


async def test_with_three_servers_the_loss_of_one_is_no_loss(tmp_path):
    with three_servers(tmp_path) as servers:
        async with connected(settings_of(*servers, bucket=BUCKET, replicas=3), "a") as link:
            with trio.fail_after(WAIT_S):
                revision = await link.create("origin.s0", b"1", WAIT_S)
            port = int(link.statistics().server.rpartition(":")[2])
            (its,) = [server for server in servers if server.port == port]
            its.kill()
            await until(lambda: link.statistics().connects == 2)
            await link.flush()
            assert link.publish("a", b"again")
            assert await received(link, 1) == [b"again"]
            await eventually(lambda: link.compare_and_set("origin.s0", b"2", revision))
            value, later = await eventually(lambda: link.get("origin.s0"))
            assert (value, later) == (b"2", revision + 1)


# Refusals.


async def test_wrong_credentials_are_told_once_and_tried_again(stopped):
    stopped.users = {"node": "other"}
    stopped.start()
    stopped.wait_until_ready()
    settings = settings_of(stopped, user="node", password=Secret("right"))
    with structlog.testing.capture_logs() as logs:
        async with open_link(settings) as link:
            await until(lambda: link.state is LinkState.DOWN)
            assert link.statistics().reason == REFUSED
            await until(lambda: link.statistics().breakers["nats"].failed >= 2)
            assert link.statistics().breakers["nats"].state is not BreakerState.CLOSED
            stopped.kill()
            stopped.users = {"node": "right"}
            stopped.start()
            await until(lambda: link.state is LinkState.CONNECTED)
    told = [entry["reason"] for entry in logs if entry["event"] == "not connected to NATS"]
    assert told.count(REFUSED) == 1
    assert "right" not in str(logs)


async def test_without_a_server_the_breaker_opens_until_one_is_there(stopped, monkeypatch):
    monkeypatch.setattr(connection, "UNREACHABLE_S", 0.1)
    monkeypatch.setattr(connection, "CHECK_S", 0.1)
    async with open_link(settings_of(stopped)) as link:
        await until(lambda: link.statistics().breakers["nats"].state is BreakerState.OPEN)
        assert link.statistics().reason == "Connection refused"
        await until(lambda: link.statistics().breakers["nats"].opened >= 2)
        stopped.start()
        await until(lambda: link.statistics().breakers["nats"].state is BreakerState.CLOSED)
        await link.flush(WAIT_S)
        assert link.statistics().breakers["nats"].succeeded >= 1
        opened = link.statistics().breakers["nats"].opened
        stopped.kill()
        await until(lambda: link.statistics().breakers["nats"].opened > opened)


async def test_credentials_that_are_refused_at_a_reconnect_end_the_client(stopped):
    stopped.users = {"node": "right"}
    stopped.start()
    stopped.wait_until_ready()
    async with connected(settings_of(stopped, user="node", password=Secret("right"))) as link:
        stopped.kill()
        stopped.users = {"node": "other"}
        stopped.start()
        await until(lambda: link.state is LinkState.DOWN)
        assert link.statistics().reason == REFUSED


async def test_a_subject_that_the_user_may_not_use_is_told_once(stopped):
    stopped.further = (
        "authorization { users: [{user: node, password: right, permissions: {publish: { deny: a }}}] }\n"
    )
    stopped.start()
    stopped.wait_until_ready()
    with structlog.testing.capture_logs() as logs:
        async with connected(settings_of(stopped, user="node", password=Secret("right")), "b") as link:
            for _ in range(3):
                assert link.publish("a", b"")
            assert link.publish("b", b"")
            assert await received(link, 1) == [b""]
            await link.flush()
    assert [entry["reason"] for entry in logs if "refuses" in entry["event"]] == [
        'permissions violation for publish to "a"'
    ]


async def test_credentials_files_are_read_at_each_new_client(stopped, tmp_path):
    operator, other = Operator(), Operator()
    stopped.further, stopped.jetstream = operator.settings, False
    stopped.start()
    stopped.wait_until_ready()
    path = tmp_path / "node.creds"
    path.write_text(other.creds())
    settings = link_settings(ClusterConfig(servers=[stopped.url], node="a", creds=str(path)), {})
    async with open_link(msgspec.structs.replace(settings, bucket=None)) as link:
        link.subscribe("a")
        await until(lambda: link.statistics().reason == REFUSED)
        path.write_text("damaged")
        await until(lambda: "no credentials file" in link.statistics().reason)
        path.write_text(operator.creds())
        await link.flush(WAIT_S)
        assert link.publish("a", b"signed")
        assert await received(link, 1) == [b"signed"]


def tls_files(folder):
    """Write a certificate for 127.0.0.1; return its authority's file, and what the server's settings say."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    text = f'tls {{ cert_file: "{folder / "cert.pem"}", key_file: "{folder / "key.pem"}" }}\n'
    return str(folder / "ca.pem"), text


def tls_settings(server, **keys):
    return link_settings(
        ClusterConfig(servers=[server.url.replace("nats://", "tls://")], node="a", replicas=1, **keys), {}
    )


async def test_tls(stopped, tmp_path):
    ca, stopped.further = tls_files(tmp_path)
    stopped.start()
    stopped.wait_until_ready()
    async with connected(tls_settings(stopped, tls_ca=ca), "a") as link:
        assert link.publish("a", b"private")
        assert await received(link, 1) == [b"private"]
    async with open_link(tls_settings(stopped)) as stranger:
        await until(
            lambda: stranger.statistics().reason.startswith("TLS: the server's certificate is refused")
        )
        assert stranger.state is not LinkState.CONNECTED


@pytest.mark.parametrize("user", [None, "node"])
async def test_a_server_without_tls_gets_no_password_and_no_messages(server, user):
    """Such as one that stands in between, and offers no TLS."""
    settings = tls_settings(server)
    password = None if user is None else Secret("right")
    settings = settings_of(server, tls=settings.tls, user=user, password=password)
    async with open_link(settings) as link:
        await until(lambda: link.state is LinkState.DOWN)
        assert link.statistics().reason == "the NATS server has no TLS, and cluster.servers has tls://"


# The end.


async def ends(link):
    """Wait until the thread of ``link``, which is closed, has ended."""
    with trio.fail_after(WAIT_S):
        await trio.to_thread.run_sync(link._thread._thread.join)
    assert link.statistics().reason == "the link to NATS has ended"
    with pytest.raises(trio.ClosedResourceError):
        await link.receive()
    with pytest.raises(ClusterError, match="the link to NATS has ended"):
        await link.flush()


async def test_a_link_ends_while_no_server_is_there(stopped):
    with trio.fail_after(WAIT_S):
        async with open_link(settings_of(stopped)) as link:
            await until(lambda: link.statistics().reason == "Connection refused")
    await ends(link)


async def test_a_link_ends_after_its_server_was_killed(server):
    with trio.fail_after(WAIT_S):
        async with connected(settings_of(server)) as link:
            server.kill()
    await ends(link)


async def test_a_link_ends_while_its_server_does_not_read(server):
    with trio.fail_after(WAIT_S):
        async with connected(settings_of(server, queue_bytes=64 << 20)) as link:
            server.pause()
            for _ in range(600):
                assert link.publish("a", bytes(100_000))
    await ends(link)


async def test_a_link_ends_while_it_waits_after_a_refusal(stopped):
    stopped.users = {"node": "other"}
    stopped.start()
    stopped.wait_until_ready()
    with trio.fail_after(WAIT_S):
        async with open_link(settings_of(stopped, user="node", password=Secret("right"))) as link:
            await until(lambda: link.state is LinkState.DOWN)
    await ends(link)


async def test_the_end_resolves_requests_and_receivers(stopped):
    found: list[object] = []

    async def ask(link):
        try:
            await link.get("k", WAIT_S)
        except ClusterError as error:
            found.append(str(error))

    async def receive(link):
        try:
            await link.receive()
        except trio.ClosedResourceError as error:
            found.append(type(error))

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery, open_link(settings_of(stopped, bucket=BUCKET)) as link:
            nursery.start_soon(ask, link)
            nursery.start_soon(receive, link)
            await until(lambda: link.statistics().reason == "Connection refused")
    assert set(found) == {"the link to NATS has ended", trio.ClosedResourceError}


async def test_a_cancelled_request_leaves_nothing_behind(stopped):
    async with open_link(settings_of(stopped, bucket=BUCKET)) as link:
        with trio.move_on_after(0.01) as scope:
            await link.get("k", WAIT_S)
        assert scope.cancelled_caught
        assert not link._requests


async def test_a_cancelled_block_ends_its_link(server):
    with trio.CancelScope() as scope:
        async with connected(settings_of(server)) as link:
            scope.cancel()
            await trio.sleep_forever()
    await ends(link)


# Without it.


def test_without_a_cluster_nothing_imports_nats():
    code = "import sys, marketfeed.cli.serve, marketfeed.engine; assert 'nats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=WAIT_S)
