"""Peers that make TLS itself send records, and do not read: they are cut, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import tlspeer
from peers import Files
from process import Engine, engine
from tlspeer import TLS1_2, TLS1_3, UPGRADE, TlsPeer
from websockets.asyncio.client import connect

FEED = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'
ATTACKERS = 4
FLOOD_S = 3
MOST_SILENT_S = 0.3
ROUNDS = (
    3  # on a machine that others keep busy one of them holds; an engine that can be silenced fails in all
)
MIB = 1 << 20
PEERS = 8  # of which the memory is measured together: the kernel hands it out in pages of up to 2 MiB


def tls_config(folder: Path) -> tuple[str, ssl.SSLContext]:
    files = Files(folder)
    context = ssl.create_default_context(cafile=str(files.authority))
    return FEED + f'[gateway]\ntls_cert = "{files.cert}"\ntls_key = "{files.key}"\n', context


def resident_bytes(running: Engine) -> int:
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def longest_silence_s(url: str, context: ssl.SSLContext, seconds: float) -> float:
    """Return the longest time between two ticks of a session that reads all the time."""
    longest_s = 0.0
    async with connect(url, ssl=context, compression=None) as ws:
        await ws.send('{"action":"subscribe","quotes":["*"]}')
        while '"synced"' not in await ws.recv():
            pass
        last_s = began_s = time.monotonic()
        while last_s < began_s + seconds:
            while not any(message["T"] == "q" for message in json.loads(await ws.recv())):
                pass
            now_s = time.monotonic()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
    return longest_s


@pytest.mark.parametrize("upgraded", [1, 0], ids=["on a WebSocket", "before any request"])
def test_key_updates_of_peers_that_do_not_read_silence_nobody(tmp_path, upgraded):
    tlspeer.libssl()
    config, context = tls_config(tmp_path)
    with engine(config, tmp_path, "--set", "limits.stall_s=2.0") as running:
        # Attackers are other machines: they are not to take the engine's time on this one.
        command = ["nice", sys.executable, tlspeer.__file__]
        command += map(str, (running.port, upgraded, TLS1_3, FLOOD_S))
        tlspeer.flood(running.port, bool(upgraded), TLS1_3, 0.5)  # so that what any first ones cost is there
        asyncio.run(longest_silence_s(running.url, context, 0.5))
        before = resident_bytes(running)
        silences_s, cut = [], 0
        while len(silences_s) < ROUNDS and min(silences_s, default=1.0) >= MOST_SILENT_S:
            attackers = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(ATTACKERS)
            ]
            silences_s.append(asyncio.run(longest_silence_s(running.url, context, FLOOD_S)))
            cut += sum(int(attacker.communicate(timeout=60)[0]) for attacker in attackers)
        assert min(silences_s) < MOST_SILENT_S, silences_s
        assert cut > 0
        assert resident_bytes(running) - before < (ATTACKERS + cut) * MIB
        counted = 'marketfeed_closes_total{code="4503"' if upgraded else 'reason="TLS abuse"'
        assert metric_with(running, counted) >= cut


def metric_with(running: Engine, text: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.admin_port}/metrics") as answer:
        rows = answer.read().decode().splitlines()
    return sum(float(row.split()[-1]) for row in rows if text in row)


def test_a_flood_of_key_updates_is_cut_within_a_megabyte(tmp_path):
    config, _ = tls_config(tmp_path)
    with engine(config, tmp_path) as running:
        before = resident_bytes(running)
        for _ in range(PEERS):
            with TlsPeer(running.port) as peer:
                peer.write(UPGRADE)
                peer.read_until(b"connected")
                sent = 0
                while peer.update_key():
                    sent += 1
                    assert sent < 100_000  # 2.7 MB of answers
        assert running.logged("session closed")["code"] == 4503
        assert resident_bytes(running) - before < PEERS * MIB


def test_a_few_key_updates_are_answered_and_the_session_lives(tmp_path):
    config, _ = tls_config(tmp_path)
    with engine(config, tmp_path) as running, TlsPeer(running.port) as peer:
        peer.write(UPGRADE)
        peer.read_until(b"connected")
        for _ in range(20):
            assert peer.update_key()
        ping = b'{"action":"ping","t":1}'
        mask = b"\0\0\0\0"
        peer.write(bytes([0x81, 0x80 | len(ping)]) + mask + ping)
        peer.read_until(b'"T":"pong"')


def test_renegotiations_are_refused_and_cost_nothing(tmp_path):
    config, context = tls_config(tmp_path)
    with engine(config, tmp_path) as running, contextlib.ExitStack() as opened:
        asyncio.run(longest_silence_s(running.url, context, 0.5))
        before = resident_bytes(running)
        for _ in range(PEERS):
            peer = opened.enter_context(TlsPeer(running.port, TLS1_2))
            peer.write(UPGRADE)
            peer.read_until(b"connected")
            for _ in range(1000):
                peer.renegotiate()
        silences_s = [asyncio.run(longest_silence_s(running.url, context, 0.5)) for _ in range(ROUNDS)]
        assert min(silences_s) < MOST_SILENT_S, silences_s
        assert resident_bytes(running) - before < PEERS * MIB
