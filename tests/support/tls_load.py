"""An engine behind TLS under attack: longest silence of a session, and memory."""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

from websockets.asyncio.client import connect

from tests.support.peers import Files

if TYPE_CHECKING:
    from tests.support.process import Engine

FEED = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'
MOST_SILENT_S = 0.3
# On a busy machine at least one round passes; a vulnerable engine fails in all.
ROUNDS = 6
MIB = 1 << 20


def tls_config(folder: Path) -> tuple[str, ssl.SSLContext]:
    files = Files(folder)
    context = ssl.create_default_context(cafile=str(files.authority))
    return FEED + f'[gateway]\ntls_cert = "{files.cert}"\ntls_key = "{files.key}"\n', context


def resident_bytes(running: Engine) -> int:
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def longest_silence_s(url: str, context: ssl.SSLContext | None, seconds: float) -> float:
    """Return the longest time between two ticks of a reading session."""
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
