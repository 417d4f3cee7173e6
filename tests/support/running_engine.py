"""An engine in the process of the test, whose life a test can exchange."""

from __future__ import annotations

import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from marketfeed.admin.metrics import exposition
from marketfeed.config.schema import load
from marketfeed.engine import Engine
from tests.support.admin_client import samples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RINGS = "memfd:marketfeed-rings"


@asynccontextmanager
async def running_engine(text: str, folder: Path, origin: bool = True) -> AsyncIterator[Engine]:
    """Run an engine with the configuration ``text`` on free ports until the end of the block."""
    path = folder / "config.toml"
    path.write_text(text)
    engine = Engine(load(path, ["gateway.port=0", "admin.port=0"]), "error", origin=origin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run)
        await engine.serving.wait()
        yield engine
        nursery.cancel_scope.cancel()


def ring_files() -> tuple[int, int]:
    """Return how many descriptors and mappings of rings this process has."""
    fds = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds += RINGS in os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # that of the listing itself
            continue
    return fds, len(re.findall(RINGS, Path("/proc/self/maps").read_text()))


async def asked(engine: Engine, target: str) -> tuple[int, Any, dict[str, str]]:
    """Return status, JSON and headers of a request to the gateway."""
    stream = await trio.open_tcp_stream("127.0.0.1", engine.port)
    async with stream:
        head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{engine.port}\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode())
        answer = b""
        while more := await stream.receive_some():
            answer += more
    first, _, body = answer.partition(b"\r\n\r\n")
    line, *lines = first.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
    return int(line.split()[1]), json.loads(body) if body else None, headers


async def samples_of(engine: Engine) -> dict[tuple[str, ...], float]:
    """Return the metrics of ``engine``."""
    return samples(await exposition(engine.parts))
