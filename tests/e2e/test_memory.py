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


def resident(pids: list[int]) -> int:
    """Return how many bytes the processes hold. Source: proc_pid_statm(5)."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids)


@pytest.mark.parametrize("count", [0, 1], ids=["one_process", "worker_and_tls"])
def test_5000_unknown_names_take_at_most_256_kib_and_are_gone_with_the_session(tmp_path, count):
    options, context, scheme = ["--set", f"engine.workers={count}"], None, "ws"
    if count:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        options += ["--set", "gateway.tls_cert=cert.pem", "--set", "gateway.tls_key=key.pem"]
        context, scheme = ssl.create_default_context(), "wss"
        authority.configure_trust(context)
    with engine(SYNTHETIC, tmp_path, *options) as running:
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
        assert (most - before) / MORE <= 256 * KIB
        # What the first ones had serves those after them: nothing of them is left. Kept, it would double.
        assert again - most <= MORE * 128 * KIB
