"""No sequence of what clients and operators do delivers a message that is not entitled: engines, and workers.

The sequences and their model are those of tests/gateway/test_entitled_sequences.py.
"""

from __future__ import annotations

import json
import os
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import jwt
import numpy as np
import pytest
import trio

from marketfeed import QUOTE, TRADE
from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame
from tests.support.access import SECRET
from tests.support.entitled_sequences import EXPIRING_S, SYMBOLS, Seen, Sequence
from tests.support.process import engine
from tests.support.publishers import address_of, connect

if TYPE_CHECKING:
    import socket

    from tests.support.process import Engine

SEQUENCES = 500 if os.environ.get("MARKETFEED_PROVE") else 50
AT_ONCE = 5
CONFIG = """
[engine]
workers = {workers}
[auth]
mode = "jwt"
algorithm = "HS256"
key_file = "secret"
[tiers.vip]
interval_ms = 0
[tiers.premium]
interval_ms = 20
[limits]
requests_per_s = 1000000
[latency]
enabled = false
[[feeds]]
name = "push"
type = "push"
listen = "./push.sock"
"""


class Remote:
    """An engine in a process of its own, with a publisher."""

    def __init__(self, running: Engine, publisher: socket.socket) -> None:
        self.port, self._admin_port, self._publisher = running.port, running.admin_port, publisher
        self._ids: dict[str, int] = {}

    def token(self, symbols: list[str], **claims: Any) -> str:
        """Return a token; one that expires soon has done so, up to a second of the grace."""
        ttl_s, now_s = claims.pop("ttl_s"), time.time()
        until_s = now_s - 23.5 if ttl_s == EXPIRING_S else now_s + ttl_s
        payload = {"iat": now_s - 60, "exp": until_s, "symbols": symbols, **claims}
        return jwt.encode(payload, SECRET, algorithm="HS256")

    async def publish(self, channel: str, *symbols: str) -> None:
        new = {name: len(self._ids) + at for at, name in enumerate(s for s in symbols if s not in self._ids)}
        self._ids |= new
        ticks = np.zeros(len(symbols), QUOTE if channel == "quotes" else TRADE)
        ticks["symbol"] = [self._ids[name] for name in symbols]
        if channel == "quotes":
            ticks["bid_px"], ticks["ask_px"], ticks["bid_sz"], ticks["ask_sz"] = 10**9, 2 * 10**9, 1, 2
        else:
            ticks["price"], ticks["size"], ticks["side"] = 10**9, 1, ord("-")
        framed = quotes_frame if channel == "quotes" else trades_frame
        now_ns = time.time_ns()
        self._publisher.sendall((symbols_frame(new, now_ns) if new else b"") + framed(ticks, now_ns))

    async def revoke(self, sub: str) -> None:
        def post() -> int:
            connection = HTTPConnection("127.0.0.1", self._admin_port, timeout=30)
            connection.request("POST", "/v1/revoke", json.dumps({"sub": sub}))
            status = connection.getresponse().status
            connection.close()
            return status

        assert await trio.to_thread.run_sync(post) == 200

    async def expire(self) -> None:
        """Wait for nothing: what expires soon has done so."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
async def test_nothing_arrives_that_is_not_entitled(tmp_path, workers):
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    seen = Seen()
    with engine(CONFIG.format(workers=workers), tmp_path) as running:
        publisher = connect(str(tmp_path / address_of(running, "push")))
        with publisher:
            world = Remote(running, publisher)
            await world.publish("quotes", *SYMBOLS)
            await world.publish("trades", *SYMBOLS)
            seeds = iter(range(1_000_000, 1_000_000 + SEQUENCES))

            async def run() -> None:
                for seed in seeds:
                    seen.add(await Sequence(world, seed).run())

            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(run)
        assert not [entry for entry in running.log if entry["level"] in ("error", "critical")]
        assert SECRET not in "".join(running.stderr)
    assert seen.ticks > 100
    assert min(seen.refused, seen.ended) > 0
