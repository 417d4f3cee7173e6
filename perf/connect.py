"""What does a session cost the server to set up, step by step, and how much of that is its token?

    one session after another, each with its own draw of ten of fifty symbols ──► engine

    connect ──► accepted │ (TLS handshake) │ request ──► `connected` │ subscribe ──► `synced` │ close

Kinds, in turns: a WebSocket in JSON; one that returns with a cursor, as after a restart; one in binary; an
event stream; a WebSocket in JSON over TLS. With ``--tokens``: without access control; a token each in the
header (HS256, EdDSA), or in `auth`; one token for all.

Reports: CPU of the engine per session from accept to `synced`, at full speed and by step, less that of the
idle engine; medians of the rounds. After each step the engine is left alone for a moment, so a step includes
what follows its answer, and costs more than at full speed: its code and data have left the caches. Kernel
time for the receipt of the engine's bytes counts for the client.
Not covered: networks, sessions that arrive at once, which share passes of the event loop.
A session that is not synced, or that returns and is not resumed, fails the run.

    python -m perf.connect
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import ssl
import struct
import tempfile
import time
from collections import defaultdict, deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jwt
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.table import Table

from perf import bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perf.servers import Server

AIM_MS: Final = 0.7  # from accept to `synced`, for a WebSocket in JSON
AIM_RETURN: Final = 1.2  # a session that returns, over a new one
AIM_TOKEN_MS: Final = 0.3  # more CPU with a token of HS256 than without
IDLE_S: Final = 1.5
WARM_S: Final = 5.0  # until every symbol has a tick
SETTLE_S: Final = 0.0015  # after a step
BURST: Final = 20  # sessions that are set up at full speed, one after the other, and then closed
RATE: Final = 50.0
UNIVERSE: Final = 50
SYMBOLS: Final = 10
AWAY: Final = 50  # sessions between the end of one and its return
FAST: Final = "at full speed"
STEPS: Final = ("accept", "TLS", "open", "subscribe", "close")
LIMITS: Final = "[limits]\nrequests_per_s = 1000\n"
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
CLAIMS: Final = {"sub": "bench", "tier": "vip", "symbols": ["*"]}


@dataclass(frozen=True)
class Kind:
    """One kind of session, on an engine with the lines ``auth``; ``token`` gives each session its own."""

    name: str
    encoding: str = "json"
    sse: bool = False
    tls: bool = False
    returns: bool = False
    auth: str = ""
    token: Callable[[int], str] | None = None
    by_header: bool = True


KINDS: Final = (
    Kind("WebSocket, JSON"),
    Kind("WebSocket, JSON, returns", returns=True),
    Kind("WebSocket, binary", encoding="binary"),
    Kind("Server-Sent Events", sse=True),
    Kind("WebSocket, JSON, TLS", tls=True),
)


def with_tokens(folder: Path) -> Iterator[Kind]:
    """Yield kinds that differ in access control, the first without; keys lie in ``folder``."""
    secret, public = folder / "secret", folder / "public.pem"
    secret.write_text("a secret for benchmarks, of more than 32 bytes")
    key = Ed25519PrivateKey.generate()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    secret.chmod(0o600)

    def hs256(number: int) -> str:
        return jwt.encode(
            CLAIMS | {"exp": time.time() + 3600, "jti": str(number)}, secret.read_text(), "HS256"
        )

    def eddsa(number: int) -> str:
        return jwt.encode(CLAIMS | {"exp": time.time() + 3600, "jti": str(number)}, key, "EdDSA")

    def auth(algorithm: str, file: Path) -> str:
        return f'[auth]\nmode = "jwt"\nalgorithm = "{algorithm}"\nkey_file = "{file}"\n'

    same = hs256(0)
    yield Kind("without")
    yield Kind("HS256, header", auth=auth("HS256", secret), token=hs256)
    yield Kind("HS256, `auth`", auth=auth("HS256", secret), token=hs256, by_header=False)
    yield Kind("HS256, the same token", auth=auth("HS256", secret), token=lambda number: same)
    yield Kind("EdDSA, header", auth=auth("EdDSA", public), token=eddsa)


def cpu_ms(server: Server) -> float:
    """Return the CPU of the engine so far: exact while none of its threads runs."""
    total = 0
    for pid in server.pids():
        for thread in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e6


def masked(request: dict[str, object]) -> bytes:
    """Return a text frame of a client."""
    payload = json.dumps(request).encode()
    size = len(payload)
    head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
    return head + bytes(4) + payload


def until(sock: socket.socket, words: bytes) -> bytes:
    """Read until ``words`` have come; return all bytes."""
    data = b""
    while words not in data:
        more = sock.recv(65536)
        if not more:
            raise AssertionError(f"closed before {words.decode()}: {data[-200:]!r}")
        data += more
    return data


class Visitor:
    """Sets up sessions one after the other, and measures what their steps cost the engine."""

    def __init__(self, server: Server, kind: Kind, trusted: ssl.SSLContext) -> None:
        self._server = server
        self._kind = kind
        self._tls = trusted if kind.tls else None
        self._rng = random.Random(1)
        self._left: deque[tuple[list[str], str]] = deque()  # names and cursor of sessions that may return
        self._at_ms = 0.0
        self.by_step = True  # else at full speed, without measurements
        self.spent_ms: defaultdict[str, float] = defaultdict(float)

    def _done(self, step: str) -> None:
        """Charge ``step`` with what the engine has used since the last one."""
        if not self.by_step:
            return
        time.sleep(SETTLE_S)
        now_ms = cpu_ms(self._server)
        self.spent_ms[step] += now_ms - self._at_ms
        self._at_ms = now_ms

    def visit(self, token: str = "") -> None:
        """Set up one session, and close it."""
        sock = self.open(token)
        sock.close()
        self._done("close")

    def at_full_speed(self, tokens: list[str], idle: float) -> float:
        """Return the CPU of a session from accept to `synced` without pauses, in ms.

        ``idle`` is what the idle engine uses, in ms per second.
        """
        self.by_step = False
        spent_ms = 0.0
        for start in range(0, len(tokens), BURST):
            before_ms, begun_s = cpu_ms(self._server), time.monotonic()
            opened = [self.open(token) for token in tokens[start : start + BURST]]
            time.sleep(SETTLE_S)
            spent_ms += cpu_ms(self._server) - before_ms - idle * (time.monotonic() - begun_s)
            for sock in opened:
                sock.close()
            time.sleep(10 * SETTLE_S)
        return spent_ms / len(tokens)

    def open(self, token: str = "") -> socket.socket:
        """Set up one session; return its socket."""
        kind = self._kind
        names, cursor = [f"SY{number:04}" for number in self._rng.sample(range(UNIVERSE), SYMBOLS)], ""
        if kind.returns and len(self._left) > AWAY:
            names, cursor = self._left.popleft()
        if self.by_step:
            self._at_ms = cpu_ms(self._server)
        sock = socket.create_connection(("127.0.0.1", self._server.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._done("accept")
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_hostname="localhost")
            self._done("TLS")
        header = f"Authorization: Bearer {token}\r\n" if token and kind.by_header else ""
        if kind.sse:
            sock.sendall(
                f"GET /v1/events?quotes={','.join(names)} HTTP/1.1\r\nHost: localhost\r\n"
                f"Accept: text/event-stream\r\n{header}\r\n".encode()
            )
        else:
            sock.sendall(
                f"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{header}\r\n".encode()
            )
            until(sock, b'"connected"')
            self._done("open")
            if token and not kind.by_header:
                sock.sendall(masked({"action": "auth", "token": token}))
                until(sock, b'"authenticated"')
            request: dict[str, object] = {"action": "subscribe", "quotes": names, "encoding": kind.encoding}
            sock.sendall(masked(request | ({"after": cursor} if cursor else {})))
        data = until(sock, b'"synced"')
        self._done("subscribe")
        if cursor and b'"resumed":true' not in data:
            raise AssertionError(f"not resumed: {data[:300]!r}")
        self._left.append((names, data.rpartition(b'"cursor":"')[2].partition(b'"')[0].decode()))
        return sock


def per_session_ms(kind: Kind, sessions: int, gateway: str, trusted: ssl.SSLContext) -> dict[str, float]:
    """Return the engine's CPU per session in ms, by step."""
    tokens = [kind.token(number) if kind.token else "" for number in range(sessions)]
    with bench.marketfeed(
        RATE,
        UNIVERSE,
        gateway=gateway if kind.tls else "",
        feed=LIMITS + kind.auth,
        latency="enabled = false",
    ) as server:
        time.sleep(WARM_S)
        visitor = Visitor(server, kind, trusted)
        with visitor.open(tokens[0]):  # its lane stays, as in a server with other sessions
            for number in range(AWAY + 1):  # first uses, of imports too
                visitor.visit(tokens[number % sessions])
            before_ms, begun_s = cpu_ms(server), time.monotonic()
            time.sleep(IDLE_S)
            idle = (cpu_ms(server) - before_ms) / (time.monotonic() - begun_s)
            visitor.spent_ms.clear()
            begun_s = time.monotonic()
            for token in tokens:
                visitor.visit(token)
            idle_ms = idle * (time.monotonic() - begun_s)
            fast_ms = visitor.at_full_speed(tokens, idle)
    # Each step takes about as long: it is left alone for SETTLE_S.
    spent = visitor.spent_ms
    return {step: (spent[step] - idle_ms / len(spent)) / sessions for step in spent} | {FAST: fast_ms}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.connect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--tokens", action="store_true", help="compare access control instead of transports")
    parser.add_argument("--only", default="", help="only kinds whose name contains this")
    options = parser.parse_args()
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority, trusted = trustme.CA(), ssl.create_default_context()
        authority.configure_trust(trusted)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "tls.pem")
        gateway = f'tls_cert = "{folder}/tls.pem"\ntls_key = "{folder}/tls.pem"'
        kinds = list(with_tokens(folder)) if options.tokens else list(KINDS)
        kinds = [kind for kind in kinds if options.only in kind.name]
        found: dict[str, list[dict[str, float]]] = {kind.name: [] for kind in kinds}
        for number in range(options.rounds):
            for kind in kinds[:: 1 if number % 2 else -1]:
                found[kind.name].append(per_session_ms(kind, options.sessions, gateway, trusted))
    table = Table(title=f"CPU of the engine per session in ms, {options.sessions} sessions each")
    for title in ("", FAST, "min to max", "over the first", *STEPS):
        table.add_column(title, justify="right")
    totals = {name: [one[FAST] for one in rounds] for name, rounds in found.items()}
    first = bench.middle(next(iter(totals.values())))
    for name, rounds in found.items():
        steps = [
            f"{bench.middle([one[step] for one in rounds]):.3f}" if step in rounds[0] else ""
            for step in STEPS
        ]
        total, values = bench.middle(totals[name]), totals[name]
        more = f"{total - first:+.3f}" if options.tokens else f"{total / first:.2f} times"
        table.add_row(name, f"{total:.3f}", f"{min(values):.3f} to {max(values):.3f}", more, *steps)
    say(table)
    if options.tokens:
        say(f"aim: at most {AIM_TOKEN_MS} ms more with HS256")
    else:
        say(f"aims: {AIM_MS} ms for a WebSocket in JSON, {AIM_RETURN} times that for one that returns")


if __name__ == "__main__":
    main()
