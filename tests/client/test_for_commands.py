"""What commands say where there is no connection, or another server than an engine."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import trio
import trio.lowlevel
import trio.socket
import trustme

from marketfeed.client.address import endpoint, endpoint_of
from marketfeed.client.for_commands import ENDS, command_feed, lost, why
from marketfeed.client.messages import Disconnected
from marketfeed.config.schema import GatewayConfig

NOT_TLS = tuple(
    f"{what}; does this port serve wss://?"
    for what in ("connection closed without an answer", "the answer is not HTTP")
)
PAST = datetime.now(UTC) - timedelta(days=2)


class Server:
    """A certificate authority and a TLS server with a certificate of it."""

    def __init__(self, folder, *names, **validity):
        self.authority = trustme.CA()
        self.issued = self.authority.issue_cert(*(names or ("127.0.0.1", "localhost")), **validity)
        self.ca, self.cert = folder / "ca.pem", folder / "cert.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in self.issued.cert_chain_pems))

    @asynccontextmanager
    async def serving(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issued.configure_cert(context)

        async def handle(stream):
            try:
                await stream.send_all(b"hello")
            except trio.BrokenResourceError:
                await trio.lowlevel.checkpoint()  # refused by the client, or plain

        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            assert isinstance(listener.transport_listener, trio.SocketListener)
            yield listener.transport_listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def refusal(engine, within_s=5.0):
    """Return what is said of an engine to which there is no session."""

    async def follow():
        async with command_feed(engine, None) as feed:
            async for message in feed:
                if isinstance(message, Disconnected):
                    lost(message, feed)

    with trio.fail_after(within_s), pytest.raises(ENDS) as caught:
        await follow()
    said = why(caught.value, engine, named=False)
    assert "\n" not in said
    assert why(caught.value, engine) == f"cannot connect to {engine.url}: {said}"
    return said


async def connects(engine):
    """Return whether TLS has accepted the server, which is none of HTTP."""
    return (await refusal(engine)).startswith("the answer is not HTTP")


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


async def test_an_untrusted_certificate_is_said_at_once_and_what_would_trust_it(server):
    async with server.serving() as port:
        said = await refusal(endpoint(f"wss://localhost:{port}/"))
        assert said == (
            "TLS: certificate verify failed: unable to get local issuer certificate;"
            " to trust this certificate or its authority, use --ca FILE"
        )
        other = trustme.CA()
        other.cert_pem.write_to_path(server.ca)
        assert "certificate verify failed" in await refusal(endpoint(f"wss://localhost:{port}/", server.ca))


async def test_with_its_authority_or_itself_as_ca_it_is_trusted(server):
    async with server.serving() as port:
        for ca in (server.ca, server.cert):
            assert await connects(endpoint(f"wss://localhost:{port}/", ca))
            assert await connects(endpoint(f"wss://127.0.0.1:{port}/", ca))


async def test_an_expired_certificate(tmp_path):
    server = Server(tmp_path, not_before=PAST - timedelta(days=1), not_after=PAST)
    async with server.serving() as port:
        said = await refusal(endpoint(f"wss://127.0.0.1:{port}/", server.ca))
        assert "certificate has expired; --ca FILE cannot fix this" in said
        gateway = GatewayConfig(port=port, tls_cert=str(server.cert), tls_key="")
        assert "certificate has expired" in await refusal(endpoint_of(gateway))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_certificate_for_another_name(tmp_path, host):
    server = Server(tmp_path, "feed.example.com")
    async with server.serving() as port:
        said = await refusal(endpoint(f"wss://{host}:{port}/", server.ca))
        assert f"certificate is not valid for '{host}'" in said
        # The engine's own configuration names the certificate: that it is this one is what counts.
        assert await connects(endpoint_of(GatewayConfig(host=host, port=port, tls_cert=str(server.cert))))


async def test_by_a_configuration_no_other_certificate_is_trusted(tmp_path, server):
    async with server.serving() as port:
        (tmp_path / "other").mkdir()
        other = Server(tmp_path / "other")
        gateway = GatewayConfig(port=port, tls_cert=str(other.cert))
        assert "certificate verify failed" in await refusal(endpoint_of(gateway))
        assert await connects(endpoint_of(gateway, server.ca))  # --ca stands above it


async def test_tls_spoken_to_a_port_that_does_not():
    async def answer(stream):
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.socket.getsockname()[1]
        said = await refusal(endpoint(f"wss://127.0.0.1:{port}/"))
        assert said.startswith("TLS: ")
        assert said.endswith("does this port serve ws://?")
        nursery.cancel_scope.cancel()


async def test_a_port_that_hangs_up_in_the_handshake():
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, trio.aclose_forcefully, [listener])
        port = listener.socket.getsockname()[1]
        assert "during the handshake" in await refusal(endpoint(f"wss://127.0.0.1:{port}/"))
        nursery.cancel_scope.cancel()


async def say_nothing(stream):
    await trio.sleep_forever()


async def test_a_port_that_says_nothing_is_told_from_one_that_is_slow(autojump_clock):
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, say_nothing, [listener])
        port = listener.socket.getsockname()[1]
        said = await refusal(endpoint(f"wss://127.0.0.1:{port}/"), 60)
        assert said == "TLS: no answer within 10 s; does this port serve ws://?"
        assert await refusal(endpoint(f"ws://127.0.0.1:{port}/"), 60) == "no answer within 10 s"
        nursery.cancel_scope.cancel()


def answered(status, body, kind, *headers):
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{''.join(headers)}Content-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


NGINX = (
    "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n<body>\r\n"
    "<center><h1>400 Bad Request</h1></center>\r\n"
    "<center>The plain HTTP request was sent to HTTPS port</center>\r\n"
    "<hr><center>nginx/1.24.0</center>\r\n</body>\r\n</html>\r\n"
)
APACHE = (
    '<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN">\n<html><head>\n<title>400 Bad Request</title>\n'
    "</head><body>\n"
    "<h1>Bad Request</h1>\n<p>Your browser sent a request that this server could not understand.<br />\n"
    "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />\n</p>\n</body></html>\n"
)
GO = "Client sent an HTTP request to an HTTPS server.\n"
TOMCAT = "This combination of host and port requires TLS."


async def test_a_port_of_tls_that_is_spoken_to_without_it(server):
    async with server.serving() as port:
        assert await refusal(endpoint(f"ws://127.0.0.1:{port}/")) in NOT_TLS


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", NOT_TLS[0]),
        (b"\x15\x03\x01\x00\x02\x02\x46", NOT_TLS[1]),  # a TLS alert
        (b"220 mail.example.com ESMTP\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "refused with HTTP status 404"),
        (
            b'HTTP/1.1 403 F\r\nContent-Length: 42\r\n\r\n{"error":{"code":403,"msg":"no\\u001b[1m"}} ',
            "refused with HTTP status 403: no\\x1b[1m",
        ),
        *(
            (answered("400 Bad Request", body, kind), f"refused with HTTP status 400: {said}; try wss://")
            for body, kind, said in (
                (NGINX, "text/html", "400 The plain HTTP request was sent to HTTPS port"),
                (APACHE, "text/html; charset=iso-8859-1", "400 Bad Request"),
                (NGINX, "", "400 The plain HTTP request was sent to HTTPS port"),
                (GO, "text/plain", GO.strip()),
                ("This combination of host and port requires TLS.\r\n", "text/plain", TOMCAT),
            )
        ),
        (
            answered(
                "301 Moved Permanently", NGINX, "text/html", "Location: https://x.example/v1/stream\r\n"
            ),
            "refused with HTTP status 301, a redirect to https://x.example/v1/stream; try wss://",
        ),
        (
            answered("302 Found", "", "text/html", "Location: http://x.example/\x1b[1m\r\n"),
            "refused with HTTP status 302, a redirect to http://x.example/\\x1b[1m",
        ),
        (
            answered(
                "502 Bad Gateway",
                "<html><body><script>x()</script><p>no &amp; no</p>" + "<p>so " * 99,
                "text/html",
            ),
            "refused with HTTP status 502: no & no so" + " so" * 63 + "…",
        ),
        (
            answered("400 Bad Request", "this port speaks TLS: https:// or wss://", "text/plain"),
            "refused with HTTP status 400: this port speaks TLS: https:// or wss://",
        ),
        (
            answered("404 Not Found", "HTTPS is elsewhere", "text/plain"),
            "refused with HTTP status 404: HTTPS is elsewhere",
        ),
    ],
)
async def test_a_port_that_opens_no_websocket(answer, said):
    async def handle(stream):
        await stream.receive_some()
        if answer:
            await stream.send_all(answer)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        assert await refusal(endpoint(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/")) == said
        nursery.cancel_scope.cancel()


class NoSuchName(trio.abc.HostnameResolver):
    """A resolver that knows no name."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr, flags):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("host", ["nope.invalid", "256.1.1.1"])
async def test_a_host_without_an_address_is_said_so(host):
    trio.socket.set_custom_hostname_resolver(NoSuchName())
    said = await refusal(endpoint(f"wss://{host}/"))
    assert said.startswith("cannot resolve its host name: ")
    assert "Errno" not in said


async def test_where_no_url_was_given_the_way_to_give_one_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert await refusal(endpoint_of(GatewayConfig(port=port))) == (
        "connection refused, is the engine running?"
        "; for an engine at another address, use --url http://HOST:PORT"
    )
