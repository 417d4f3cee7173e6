"""What a stranger's subscription costs in memory, of whole processes."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme

# Not the client in threads: before Python 3.13 two of them may not use one TLS connection.
from websockets.asyncio.client import connect

from tests.support.crowd import workers
from tests.support.process import engine

pytestmark = pytest.mark.alone

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 100\n'
KIB = 1024
FIRST, MORE = 15, 60  # sessions: those that fill what the process has anyway, and those that are measured
TRIES = 3  # engines: on a busy machine one may hold garbage for longer; what sessions hold shows in each


def resident(pids: list[int]) -> int:
    """Return how many bytes the processes hold. Source: proc_pid_statm(5)."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids)


def held_by_sessions(folder: Path, options: list[str], context: ssl.SSLContext | None) -> tuple[float, float]:
    """Return the bytes that a session of 5,000 unknown names holds, and how many stay after its end."""
    scheme = "ws" if context is None else "wss"
    with engine(SYNTHETIC, folder, *options) as running:
        pids = [running.process.pid, *workers(running)]
        url = f"{scheme}://127.0.0.1:{running.port}/v1/stream"
        subscribed = 0

        async def subscribe(stack: AsyncExitStack, count: int) -> int:
            """Open ``count`` sessions, each with names of its own; return the memory held then."""
            nonlocal subscribed
            for _ in range(count):
                connecting = connect(url, compression=None, max_size=None, ssl=context)
                ws = await stack.enter_async_context(connecting)
                subscribed += 1
                names = [f"U{subscribed:011}{number:012}" for number in range(5000)]
                await ws.send(json.dumps({"action": "subscribe", "quotes": names}))
                async with asyncio.timeout(20):
                    while '"synced"' not in await ws.recv():
                        pass
            return resident(pids)

        async def measure() -> tuple[int, int, int]:
            async with AsyncExitStack() as stack:
                before = await subscribe(stack, FIRST)
                most = await subscribe(stack, MORE)
            async with AsyncExitStack() as stack:
                return before, most, await subscribe(stack, FIRST + MORE)

        before, most, again = asyncio.run(measure())
        # What the first ones had serves those after them: nothing of them is left. Kept, it would double.
        return (most - before) / MORE, (again - most) / MORE


@pytest.mark.parametrize("count", [0, 1], ids=["one_process", "worker_and_tls"])
def test_5000_unknown_names_take_at_most_256_kib_and_are_gone_with_the_session(tmp_path, count):
    options, context = ["--set", f"engine.workers={count}"], None
    if count:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        options += ["--set", "gateway.tls_cert=cert.pem", "--set", "gateway.tls_key=key.pem"]
        context = ssl.create_default_context()
        authority.configure_trust(context)
    for _ in range(TRIES):
        each, left = held_by_sessions(tmp_path, options, context)
        if each <= 256 * KIB and left <= 128 * KIB:
            return
    pytest.fail(f"bytes of a session: {each:,.0f}, of which {left:,.0f} stay")
