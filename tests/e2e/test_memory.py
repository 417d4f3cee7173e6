"""What a stranger's subscription costs in memory, of whole processes."""

from __future__ import annotations

import json
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from crowd import workers
from process import engine
from websockets.sync.client import connect

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 100\n'
KIB = 1024
FIRST, MORE = 15, 40


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

        def subscribe(stack: ExitStack) -> None:
            nonlocal subscribed
            ws = stack.enter_context(connect(url, compression=None, max_size=None, ssl=context))
            subscribed += 1
            names = [f"U{subscribed:011}{number:012}" for number in range(5000)]
            ws.send(json.dumps({"action": "subscribe", "quotes": names}))
            while '"synced"' not in ws.recv(timeout=20):
                pass

        with ExitStack() as stack:
            for _ in range(FIRST):
                subscribe(stack)
            before = resident(pids)
            for _ in range(MORE):
                subscribe(stack)
            most = resident(pids)
        assert (most - before) / MORE <= 256 * KIB
        with ExitStack() as stack:
            for _ in range(FIRST + MORE):
                subscribe(stack)
            # What those before had serves these: nothing of them is left.
            assert resident(pids) - most <= MORE * 64 * KIB
