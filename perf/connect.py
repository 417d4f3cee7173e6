"""What does a session cost the server to set up, and how much of that is its token?

    one session after another: handshake, `connected`, subscribe, `synced`, close ──► engine
    in turns: no access control; a token each in the header (HS256, EdDSA), or in `auth`; one token for all

Reports: CPU of the engine per session, less that of the idle engine; median of the rounds; what a token adds.
Not covered: TLS, networks, sessions that arrive at once.
A session that is not synced fails the run.

    python -m perf.connect
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.table import Table

from perf import bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perf.servers import Server

AIM_MS: Final = 0.3  # more CPU with a token of HS256 than without
IDLE_S: Final = 1.0
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
CLAIMS: Final = {"sub": "bench", "tier": "vip", "symbols": ["*"]}


@dataclass(frozen=True)
class Way:
    """One way to set up a session: the lines of ``[auth]``, and what gives each session its token."""

    name: str
    auth: str = ""
    token: Callable[[int], str] | None = None
    by_header: bool = True


def ways(folder: Path) -> Iterator[Way]:
    """Yield what is compared, the first without access control; keys lie in ``folder``."""
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
    yield Way("without")
    yield Way("HS256, header", auth("HS256", secret), hs256)
    yield Way("HS256, `auth`", auth("HS256", secret), hs256, by_header=False)
    yield Way("HS256, the same token", auth("HS256", secret), lambda number: same)
    yield Way("EdDSA, header", auth("EdDSA", public), eddsa)


def cpu_s(server: Server) -> float:
    """Return the CPU seconds of the engine so far."""
    ticks = 0
    for pid in server.pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def masked(request: dict[str, object]) -> bytes:
    """Return a text frame of a client."""
    payload = json.dumps(request).encode()
    size = len(payload)
    head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
    return head + bytes(4) + payload


def session(port: int, way: Way, token: str) -> None:
    """Set up one session, and close it."""
    header = f"Authorization: Bearer {token}\r\n" if token and way.by_header else ""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(
            f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{header}\r\n".encode()
        )
        until(sock, b'"connected"')
        if token and not way.by_header:
            sock.sendall(masked({"action": "auth", "token": token}))
            until(sock, b'"authenticated"')
        sock.sendall(masked({"action": "subscribe", "quotes": ["SY0000", "SY0001"]}))
        until(sock, b'"synced"')


def until(sock: socket.socket, words: bytes) -> None:
    """Read until ``words`` have come."""
    data = b""
    while words not in data:
        more = sock.recv(65536)
        if not more:
            raise AssertionError(f"closed before {words.decode()}: {data[-200:]!r}")
        data += more


def per_session_ms(way: Way, sessions: int) -> float:
    """Return the engine's CPU per session in ms."""
    tokens = [way.token(number) if way.token else "" for number in range(sessions)]
    with bench.marketfeed(1.0, 10, feed=way.auth, latency="enabled = false") as server:
        for token in tokens[:20]:  # first uses, of imports too
            session(server.port, way, token)
        before_s = cpu_s(server)
        time.sleep(IDLE_S)
        idle = (cpu_s(server) - before_s) / IDLE_S
        before_s, begun_s = cpu_s(server), time.monotonic()
        for token in tokens:
            session(server.port, way, token)
        took_s, lasted_s = cpu_s(server) - before_s, time.monotonic() - begun_s
        return 1000 * (took_s - idle * lasted_s) / sessions


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.connect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=1000)
    options = parser.parse_args()
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    with ExitStack() as stack:
        compared = list(ways(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        found: dict[str, list[float]] = {way.name: [] for way in compared}
        for number in range(options.rounds):
            for way in compared[:: 1 if number % 2 else -1]:
                found[way.name].append(per_session_ms(way, options.sessions))
    table = Table(title=f"CPU of the engine per session; aim: at most {AIM_MS} ms more with HS256")
    for title in ("", "ms", "min to max", "more"):
        table.add_column(title, justify="right")
    without = bench.middle(found["without"])
    for name, values in found.items():
        more = bench.middle(values) - without
        table.add_row(
            name, f"{bench.middle(values):.3f}", f"{min(values):.3f} to {max(values):.3f}", f"{more:+.3f}"
        )
    say(table)


if __name__ == "__main__":
    main()
