"""Floods of small pieces, over plain connections and TLS: the sessions of others go on."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.support import SUPPORT
from tests.support.process import engine
from tests.support.tls_load import (
    FEED,
    MIB,
    MOST_SILENT_S,
    ROUNDS,
    longest_silence_s,
    resident_bytes,
    tls_config,
)

pytestmark = pytest.mark.alone

FLOOD_S = 3
CONNECTIONS = 100


@pytest.mark.parametrize("kind", ["fragments", "records", "handshakes"])
def test_small_pieces_of_a_hundred_connections_silence_nobody(tmp_path, kind):
    config, context = (FEED, None) if kind == "fragments" else tls_config(tmp_path)
    with engine(config, tmp_path) as running:
        script = SUPPORT / "pieces.py"
        # Attackers are other machines: they are not to take the engine's time on this one.
        command = ["nice", sys.executable, str(script), kind, str(FLOOD_S), str(running.port)]
        asyncio.run(longest_silence_s(running.url, context, 0.5))
        before = resident_bytes(running)
        silences_s: list[float] = []
        while len(silences_s) < ROUNDS and min(silences_s, default=1.0) >= MOST_SILENT_S:
            flood = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            silences_s.append(asyncio.run(longest_silence_s(running.url, context, FLOOD_S)))
            assert int(flood.communicate(timeout=60)[0]) >= CONNECTIONS
        assert min(silences_s) < MOST_SILENT_S, silences_s
        assert resident_bytes(running) - before < CONNECTIONS * MIB
