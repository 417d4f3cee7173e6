"""curl, node and nginx against a real engine: they see every tick once, over each transport."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect

from tests.support import SUPPORT
from tests.support.conformance import check_messages
from tests.support.nginx import running_nginx
from tests.support.peers import MODULES, ROOT, Files, Follower, curl, events, need
from tests.support.ports import free_port
from tests.support.process import Engine, engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'
CUTS = 5
BUSY = ("--set", "limits.requests_per_s=10000")  # this machine's address stands for many


def http(running: Engine) -> str:
    return running.ready.split()[2]


def follow_events(url: str, *arguments: str) -> None:
    """Read events over CUTS connections, each begun where the one before was cut."""
    follower, last = Follower(), ""
    for cut in range(CUTS):
        resume = ["-H", f"Last-Event-ID: {last}"] if last else []
        with events(url, *arguments, *resume) as source:
            for last, messages in source:
                if messages[0]["T"] == "subscription":
                    assert messages[0].get("resumed") == (True if resume else None)
                follower.take(messages)
                if last and follower.ticks >= 100 * (cut + 1):
                    break
    assert follower.ticks >= 100 * CUTS


async def follow_websocket(url: str, context: ssl.SSLContext) -> None:
    # Not the client with threads: over TLS 1.3 it reads the server's tickets in one while it writes its
    # request in another, which OpenSSL does not allow: about one handshake in 200 hung.
    follower = Follower()
    async with connect(url, ssl=context, compression=None) as ws:
        await ws.send('{"action":"subscribe","quotes":["*"],"trades":["*"]}')
        while follower.ticks < 300:
            async with asyncio.timeout(10):
                messages = json.loads(await ws.recv())
                check_messages(messages)
                follower.take(messages)


@pytest.mark.parametrize("workers", [0, 2])
def test_curl_reads_events_and_resumes(tmp_path, workers):
    # With workers, each connection may meet another process: the cursor is good in all of them.
    with engine(SYNTHETIC, tmp_path, "--set", f"engine.workers={workers}") as running:
        follow_events(f"{http(running)}/v1/events?quotes=*&trades=*")


def follow_polls(url: str, *arguments: str) -> None:
    """Poll again and again, each time from the cursor of the answer before."""
    follower, cursor = Follower(), ""
    while follower.ticks < 200:
        after = f"&after={cursor}" if cursor else ""
        status, headers, body = curl(f"{url}/v1/poll?quotes=*&trades=*{after}", *arguments)
        assert status == 200
        answer = json.loads(body)
        assert (answer["resumed"], answer["reset"]) == (True, [])
        follower.take(answer["messages"])
        cursor = answer["cursor"]
        assert headers["x-cursor"] == cursor


def test_curl_polls_without_a_hole_and_is_told_where_nothing_is_new(tmp_path):
    with engine(SYNTHETIC, tmp_path, *BUSY) as running:
        url = http(running)
        follow_polls(url)
        status, headers, body = curl(f"{url}/v1/poll?quotes=NONE&timeout_s=0.1")
        assert (status, body, headers["x-cursor"].count(":")) == (204, b"", 1)
        _, _, body = curl(f"{url}/v1/symbols")
        names = [row["S"] for row in json.loads(body)["symbols"]]
        assert len(names) == 10
        quotes = f"{url}/v1/quotes?symbols={','.join(names)}&tier=basic"
        _, headers, body = curl(quotes)
        assert {message["S"] for message in json.loads(body)} <= set(names)
        seen = {curl(quotes, "-H", f"If-None-Match: {headers['etag']}")[0] for _ in range(3)}
        assert seen <= {200, 304}
        _, headers, _ = curl(f"{url}/v1/quotes?symbols=NONE")
        assert curl(f"{url}/v1/quotes?symbols=NONE", "-H", f"If-None-Match: {headers['etag']}")[0] == 304


def test_curl_gets_the_static_files_and_nothing_beside_them(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running:
        url = f"{http(running)}/robots.txt"
        status, headers, body = curl(url)
        assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert b"Disallow: /" in body
        assert curl(url, "-H", f"If-None-Match: {headers['etag']}")[::2] == (304, b"")
        for path in (
            "/robots.txt/",
            "/../pyproject.toml",
            "/robots.txt/../../../etc/passwd",
            "/%2e%2e/robots.txt",
        ):
            assert curl(http(running) + path, "--path-as-is")[0] == 404


@pytest.mark.parametrize("workers", [0, 1])
def test_curl_over_tls_and_a_certificate_that_is_checked(tmp_path, workers):
    files = Files(tmp_path)
    tls = f'[gateway]\ntls_cert = "{files.cert.name}"\ntls_key = "{files.key.name}"\n'
    with engine(tls + SYNTHETIC, tmp_path, "--set", f"engine.workers={workers}") as running:
        assert http(running).startswith("https://")
        follow_events(f"{http(running)}/v1/events?quotes=*", "--cacert", str(files.authority))
        context = ssl.create_default_context(cafile=files.authority)
        asyncio.run(follow_websocket(running.url, context))
        plain = http(running).replace("https:", "http:")
        status, _, body = curl(plain)
        assert (status, "TLS" in json.loads(body)["error"]["msg"]) == (400, True)


def test_node_reads_a_websocket(tmp_path):
    node = need("node")
    if not (MODULES / "ws").is_dir():
        pytest.skip("needs: npm install --prefix .venv/foreign ws@8")
    with engine(SYNTHETIC, tmp_path) as running:
        request = json.dumps({"action": "subscribe", "quotes": ["*"], "trades": ["*"]})
        script = SUPPORT / "subscribe.mjs"
        done = subprocess.run(
            [node, script, MODULES, running.url, request, "500"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        follower = Follower()
        frames = [json.loads(line) for line in done.stdout.splitlines()]
        assert frames[-1] == [{"T": "closed", "code": 1000}]
        for messages in frames:
            follower.take(messages)
        assert follower.ticks >= 500


# nginx, with the configuration that is shipped.


@contextmanager
def nginx(engine_port: int, files: Files, folder: Path) -> Iterator[int]:
    """Run nginx in front of the engine, with what is shipped but for ports and files; yield its port."""
    port = free_port()
    shipped = (ROOT / "deploy" / "nginx.conf").read_text()
    for what, instead in (
        ("server 127.0.0.1:8765;", f"server 127.0.0.1:{engine_port};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("/etc/ssl/certs/feed.example.com.pem", str(files.cert)),
        ("/etc/ssl/private/feed.example.com.key", str(files.key)),
    ):
        assert what in shipped
        shipped = shipped.replace(what, instead)
    with running_nginx(shipped, port, folder):
        yield port


@pytest.fixture
def proxied(tmp_path):
    files = Files(tmp_path)
    trusting = '[gateway]\ntrusted_proxies = ["127.0.0.1"]\nhosts = ["feed.example.com"]\n'
    with (
        engine(trusting + SYNTHETIC, tmp_path, *BUSY) as running,
        nginx(running.port, files, tmp_path) as port,
    ):
        yield running, files, f"https://127.0.0.1:{port}"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_events_come_through_nginx_as_they_happen(proxied, version):
    _, files, url = proxied
    follow_events(f"{url}/v1/events?quotes=*&trades=*", "--cacert", str(files.authority), version)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_polls_come_through_nginx(proxied, version):
    _, files, url = proxied
    follow_polls(url, "--cacert", str(files.authority), version)


def test_a_websocket_comes_through_nginx(proxied):
    _, files, url = proxied
    context = ssl.create_default_context(cafile=files.authority)
    asyncio.run(follow_websocket(f"wss{url.removeprefix('https')}/v1/stream", context))


def test_a_page_that_came_through_nginx_may_connect_through_it(proxied):
    _, files, url = proxied
    port = url.rpartition(":")[2]
    named = f"https://feed.example.com:{port}"
    here = ("--cacert", str(files.authority), "--insecure", "--resolve", f"feed.example.com:{port}:127.0.0.1")
    for version in ("--http1.1", "--http2"):
        status, headers, _ = curl(f"{named}/v1/symbols", *here, version, "-H", f"Origin: {named}")
        assert (status, headers["access-control-allow-origin"]) == (200, named)
        assert curl(f"{named}/v1/symbols", *here, version, "-H", "Origin: https://evil.example")[0] == 403
        assert curl(f"{url}/v1/symbols", *here, version, "-H", "Host: evil.example")[0] == 421


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_events_behind_nginx_are_an_empty_stream_while_the_engine_restarts(tmp_path, version):
    files, gone = Files(tmp_path), free_port()
    arguments = ("--cacert", str(files.authority), version, "-H", "Origin: https://page.example")
    with nginx(gone, files, tmp_path) as port:
        url = f"https://127.0.0.1:{port}"
        status, headers, body = curl(f"{url}/v1/events?quotes=*", *arguments)
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert headers["access-control-allow-origin"] == "https://page.example"
        assert headers["cache-control"] == "no-store"
        assert body == b"retry: 2000\n\n"
        assert curl(f"{url}/v1/symbols", *arguments)[0] == 502
        trusting = '[gateway]\ntrusted_proxies = ["127.0.0.1"]\n'
        with engine(trusting + SYNTHETIC, tmp_path, *BUSY, "--set", f"gateway.port={gone}"):
            follow_events(f"{url}/v1/events?quotes=*", "--cacert", str(files.authority), version)
            # What is wrong with a request is passed on as the engine says it.
            assert curl(f"{url}/v1/events", "--cacert", str(files.authority), version)[0] == 400
        assert curl(f"{url}/v1/events?quotes=*", *arguments)[2] == b"retry: 2000\n\n"


def test_events_behind_nginx_are_an_empty_stream_while_there_is_no_room(tmp_path):
    files, trusting = Files(tmp_path), '[gateway]\ntrusted_proxies = ["127.0.0.1"]\n'
    with (
        engine(trusting + SYNTHETIC, tmp_path, *BUSY, "--set", "limits.sessions=1") as running,
        nginx(running.port, files, tmp_path) as port,
    ):
        url, trust = f"https://127.0.0.1:{port}/v1/events?quotes=*", ("--cacert", str(files.authority))
        with events(url, *trust) as source:
            next(source)
            assert curl(url, *trust)[::2] == (200, b"retry: 2000\n\n")
            assert curl(f"{http(running)}/v1/events?quotes=*")[0] == 503


def test_the_address_behind_nginx_is_the_clients_whatever_the_client_says(proxied):
    running, files, url = proxied
    made_up = ("--interface", "127.0.0.2", "-H", "X-Forwarded-For: 6.6.6.6")
    with events(f"{url}/v1/events?quotes=*", "--cacert", str(files.authority), *made_up) as source:
        next(source)
        _, _, body = curl(f"http://127.0.0.1:{running.admin_port}/v1/sessions")
        (row,) = json.loads(body)["shown"]
        assert (row["address"], row["transport"]) == ("127.0.0.2", "sse")
