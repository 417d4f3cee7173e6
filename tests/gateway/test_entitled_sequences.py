"""No sequence of what clients and operators do delivers a message that is not entitled: in one process.

tests/e2e/test_entitled_workers.py runs the same sequences against engines with and without workers.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from marketfeed.core.records import QUOTE, TRADE, Batch
from marketfeed.gateway.limits import Limits
from tests.support.access import Control
from tests.support.entitled_sequences import EXPIRING_S, SYMBOLS, TIERS, Seen, Sequence
from tests.support.live import serving

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
SEQUENCES = 10_000 if PROVE else 200
PER_GATEWAY = 50
LIMITS = Limits(
    request_bytes=65536, symbols_per_session=500, sessions=500, sessions_per_ip=500, requests_per_s=1e6,
    handshake_s=20.0,
)  # fmt: skip


class Local:
    """The gateway in this process."""

    def __init__(self, live, control):
        self._live, self._control = live, control
        self.port = live.port

    def token(self, symbols, ttl_s=3600.0, **claims):
        return self._control.token(symbols, ttl_s, **claims)

    async def publish(self, channel, *symbols):
        ticks = np.zeros(len(symbols), QUOTE if channel == "quotes" else TRADE)
        ticks["symbol"] = [self._live.shard.symbols.intern(name) for name in symbols]
        ticks["ts_recv"] = time.time_ns()
        if channel == "quotes":
            ticks["bid_px"], ticks["ask_px"], ticks["bid_sz"], ticks["ask_sz"] = 10**9, 2 * 10**9, 1, 2
            self._live.write(Batch(quotes=ticks))
        else:
            ticks["price"], ticks["size"], ticks["side"] = 10**9, 1, ord("-")
            self._live.write(Batch(trades=ticks))

    async def revoke(self, sub):
        self._control.revoke("sub", sub)

    async def expire(self):
        self._control.passed_s += EXPIRING_S + 26


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEQUENCES, PER_GATEWAY))
async def test_nothing_arrives_that_is_not_entitled(first):
    control, seen = Control(), Seen()
    async with serving(LIMITS, symbols=4096, access=control.access, seconds=600) as live:
        world = Local(live, control)
        await world.publish("quotes", *SYMBOLS)
        await world.publish("trades", *SYMBOLS)
        for seed in range(first, first + PER_GATEWAY):
            seen.add(await Sequence(world, seed).run())
    assert tuple(live.service.tiers) == TIERS
    assert seen.ticks > 100
    assert min(seen.refused, seen.ended) > 0
