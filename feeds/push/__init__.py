"""Feed type ``push``: publishers connect and send binary frames, each with its own symbol ids.

    publisher ──► kernel ──► parser ──► map ids to the engine's ──► publish
    publisher ──►   …

Each connection is a task that yields after every batch, and batches are bounded. A flooding
publisher delays others by at most one batch; its own data waits in its socket.
An error of a publisher closes only its own connection.
"""

from __future__ import annotations

import math
import resource
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import trio
from msgspec import Meta

from marketfeed.feeds.push.address import Listener, parse_address
from marketfeed.feeds.push.publisher import Publisher, PublisherCut

if TYPE_CHECKING:
    from marketfeed.ingest.feed import Intake, Publish

READ_BYTES: Final = 262_144  # 4096 records
FRAME_S: Final = 10.0  # timeout for the rest of a frame
REST_S: Final = 0.1  # delay after accept failed, for example without free file descriptors
KEPT_FILES: Final = 64  # file descriptors reserved for the admin port and logs


class PushConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of a ``[[feeds]]`` table of type ``push``."""

    listen: str = "127.0.0.1:8770"  # or the path of a Unix socket, with a /
    max_publishers: Annotated[int, Meta(ge=1, le=1024)] = 64


class PushFeed:
    """Listens for publishers and publishes their ticks, without end."""

    Config = PushConfig
    start_sessions = 0

    def __init__(self, config: PushConfig, intake: Intake) -> None:
        self._address = parse_address(config.listen, intake.base)
        self._max_publishers = config.max_publishers
        self._connected = 0
        self._intake = intake

    @property
    def listens(self) -> str | None:
        """Listening address, which the engine compares with other listeners; None for port 0."""
        return self._address.shown

    async def run(
        self, publish: Publish, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept publishers; raises OSError if the address is not available.

        Once publishers can connect, reports the address through ``task_status``,
        with the actual port for port 0.
        """
        listener = await self._address.open()
        try:
            async with trio.open_nursery() as publishers:
                self._intake.log.info("listening for publishers", address=listener.address)
                task_status.started(listener.address)
                await self._accept(listener, publish, publishers)
        finally:
            listener.close()

    async def _accept(self, listener: Listener, publish: Publish, publishers: trio.Nursery) -> None:
        files = _files()
        while True:
            try:
                connection, peer = await listener.accept()
            except OSError as error:
                self._intake.count("accept_failed")
                self._intake.log.error("cannot accept a publisher", reason=str(error))
                await trio.sleep(REST_S)
                continue
            # A new descriptor gets the lowest free number, so all lower ones are open.
            if connection.fileno() >= files:
                connection.close()
                self._intake.count("publisher_refused")
                self._intake.log.warning("publisher refused: see ulimit -n", publisher=peer, files=files)
                await trio.sleep(REST_S)
                continue
            if self._connected >= self._max_publishers:
                connection.close()
                self._intake.count("publisher_refused")
                self._intake.log.warning("publisher refused", publisher=peer, limit=self._max_publishers)
                continue
            self._connected += 1
            publishers.start_soon(self._serve, connection, peer, publish)

    async def _serve(self, connection: trio.socket.SocketType, peer: str, publish: Publish) -> None:
        """Serve one publisher until its connection ends; never raises."""
        log = self._intake.log.bind(publisher=peer)
        log.info("publisher connected")
        self._intake.count("publisher_connected")
        try:
            await self._receive(connection, publish)
            log.info("publisher left")
        except PublisherCut as cut:
            self._intake.count("publisher_cut")
            self._intake.count(f"publisher_cut_{cut.reason}")
            log.warning("publisher cut", reason=cut.reason, detail=str(cut))
        except OSError as error:
            self._intake.count("publisher_lost")
            log.warning("publisher lost", reason=str(error))
        except Exception:
            self._intake.count("publisher_failed")
            log.exception("publisher failed unexpectedly")
        finally:
            self._connected -= 1
            connection.close()

    async def _receive(self, connection: trio.socket.SocketType, publish: Publish) -> None:
        """Publish the connection's frames until it closes; raises PublisherCut and OSError."""
        publisher = Publisher(self._intake.symbol, self._intake.count)
        deadline_s = math.inf
        while True:
            data = await _read(connection, deadline_s)
            if not data:
                break
            publisher.feed(data)
            turns = 0
            while (batch := publisher.next_batch()) is not None:
                if turns:
                    await trio.lowlevel.checkpoint()
                turns += 1
                if len(batch):
                    publish(batch)
            if not publisher.started_bytes:
                deadline_s = math.inf
            elif turns or deadline_s == math.inf:
                deadline_s = trio.current_time() + FRAME_S
        if publisher.started_bytes:
            raise PublisherCut(
                "unfinished", f"closed within a frame, after {publisher.started_bytes} bytes of it"
            )


def _files() -> int:
    """Return the number of open files up to which publishers are accepted."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - min(KEPT_FILES, soft // 8)


async def _read(connection: trio.socket.SocketType, deadline_s: float) -> bytes:
    """Return received bytes, b"" at the end; raises PublisherCut at ``deadline_s``."""
    if deadline_s == math.inf:  # the usual case, without the cost of a cancel scope
        return await connection.recv(READ_BYTES)
    with trio.CancelScope(deadline=deadline_s):
        return await connection.recv(READ_BYTES)
    raise PublisherCut("stalled", f"a frame was not completed within {FRAME_S:g} s")
