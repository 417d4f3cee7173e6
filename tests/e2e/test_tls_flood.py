"""Peers that make TLS itself send records, and do not read: they are cut, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

import pytest

from tests.support import tls_peer
from tests.support.admin_client import get
from tests.support.process import Engine, engine
from tests.support.tls_load import MIB, MOST_SILENT_S, ROUNDS, longest_silence_s, resident_bytes, tls_config
from tests.support.tls_peer import TLS1_2, TLS1_3, UPGRADE, TlsPeer
from tests.support.ws_frames import masked

pytestmark = pytest.mark.alone

ATTACKERS = 4
FLOOD_S = 3
PEERS = 8  # of which the memory is measured together: the kernel hands it out in pages of up to 2 MiB


@pytest.mark.parametrize("upgraded", [1, 0], ids=["on a WebSocket", "before any request"])
def test_key_updates_of_peers_that_do_not_read_silence_nobody(tmp_path, upgraded):
    tls_peer.libssl()
    config, context = tls_config(tmp_path)
    with engine(config, tmp_path, "--set", "limits.stall_s=2.0") as running:
        # Attackers are other machines: they are not to take the engine's time on this one.
        command = ["nice", sys.executable, tls_peer.__file__]
        command += map(str, (running.port, upgraded, TLS1_3, FLOOD_S))
        tls_peer.flood(running.port, bool(upgraded), TLS1_3, 0.5)  # so that what any first ones cost is there
        asyncio.run(longest_silence_s(running.url, context, 0.5))
        before = resident_bytes(running)
        silences_s, cut = list[float](), 0
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
    rows = get(running.admin_port, "/metrics")[2].decode().splitlines()
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
        peer.write(masked(0x81, b'{"action":"ping","t":1}'))
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
