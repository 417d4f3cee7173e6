"""Listener of the tap: passes the rings and a doorbell to each reader on this machine.

Readers then access shared memory only, at no cost to the engine. The doorbells are eventfds, which
accumulate signals, so ringing one never waits, whether its reader runs, sleeps or is gone.
marketfeed/shm/tap.py is the readers' side.
"""

from __future__ import annotations

import contextlib
import os
import socket
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from marketfeed.core.layout import block_bytes
from marketfeed.errors import ConfigError, StartError
from marketfeed.folders import folder_problem
from marketfeed.gateway.listener import OUT_OF_FILES, REST_S
from marketfeed.shm.tap import VERSION, Hello
from marketfeed.unix_sockets import UnixListener, path_problem, peer_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.socket import SocketType

    from marketfeed.core.rings import Rings

BACKLOG: Final = 64

log = structlog.get_logger()


class Taps:
    """The connected readers, and the socket that they connect to."""

    def __init__(self, rings: Rings, path: Path | None, most: int) -> None:
        """Prepare to pass ``rings``, which are in a memfd, to at most ``most`` readers at a time.

        Without ``path`` there is no socket. Raises ConfigError for an invalid path.
        """
        if path is not None:
            check_path(path)
        self._rings = rings
        self._path = path
        self.most = most
        self._listener: UnixListener | None = None  # while it listens
        self._trouble: str | None = None  # why the last connection could not be accepted
        self._bells: dict[int, trio.CancelScope] = {}
        self.accepted = 0
        self.refused: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many readers are connected."""
        return len(self._bells)

    def exchange(self, rings: Rings) -> None:
        """Pass ``rings`` to readers that connect from now on, and end the connections of all others.

        To a reader, the end of its connection is the end of its epoch; what is in its rings stays readable.
        """
        self._rings = rings
        for scope in self._bells.values():
            scope.cancel()

    def ring(self) -> None:
        """Ring every reader's doorbell; never waits."""
        for bell in self._bells:
            try:
                os.eventfd_write(bell, 1)
            except BlockingIOError:  # its counter is at its maximum, so the eventfd is readable
                continue

    def problem(self) -> str | None:
        """Return why readers cannot connect now; None if they can, or if there is no tap."""
        if self._listener is not None and (problem := self._listener.problem()) is not None:
            return problem
        return self._trouble

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Listen for readers of the engine's own user until the block ends; raises StartError."""
        if self._path is None:
            yield
            return
        try:
            listener = UnixListener(self._path, socket.SOCK_SEQPACKET, BACKLOG)
        except OSError as error:
            why = error.strerror or str(error)
            raise StartError(f"engine.tap: cannot listen at {self._path}: {why}") from None
        self._listener = listener
        log.info("tap listening", path=str(self._path))
        try:
            yield
        finally:
            self._listener = None
            listener.close()

    async def accept(self, readers: trio.Nursery) -> None:
        """Accept readers for ever; serve each in the nursery ``readers``."""
        if self._listener is None:
            return
        listening = trio.socket.from_stdlib_socket(self._listener.sock)
        while True:
            try:
                connection, _ = await listening.accept()
            except OSError as error:
                if error.errno in OUT_OF_FILES:
                    self._trouble = f"a reader cannot be accepted: {error.strerror}"
                    log.error("cannot accept a tap", reason=error.strerror)
                    await trio.sleep(REST_S)
                continue
            self._trouble = None
            readers.start_soon(self._serve, connection)

    async def _serve(self, connection: SocketType) -> None:
        with connection:
            pid, uid = peer_credentials(connection)
            if len(self._bells) >= self.most:
                await self._refuse(connection, "too many taps", f"limits.taps is {self.most}", pid)
                return
            try:
                bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            except OSError as error:
                await self._refuse(connection, "no doorbell", error.strerror or str(error), pid)
                return
            scope = self._bells[bell] = trio.CancelScope()
            try:
                with scope:
                    await self._attend(connection, bell, pid, uid)
                if scope.cancelled_caught:
                    log.info("tap closed", pid=pid, reason="its epoch has ended")
            except OSError:
                log.info("tap left", pid=pid)  # it ended while it connected
            finally:
                del self._bells[bell]
                os.close(bell)

    async def _attend(self, connection: SocketType, bell: int, pid: int, uid: int) -> None:
        rings = self._rings
        hello = Hello(
            version=VERSION,
            epoch=rings.epoch,
            max_symbols=rings.max_symbols,
            ring_depth=rings.depth,
            block_bytes=block_bytes(rings.max_symbols, rings.depth),
        )
        await _send(connection, hello, [rings.fd, bell])
        self.accepted += 1
        log.info("tap connected", pid=pid, uid=uid)
        said = await connection.recv(1)
        # Readers do not send anything; a byte ends the connection as its close does.
        log.info("tap closed", pid=pid, reason="it spoke" if said else "by the reader")

    async def _refuse(self, connection: SocketType, reason: str, detail: str, pid: int) -> None:
        self.refused[reason] += 1
        log.warning("tap refused", reason=reason, detail=detail, pid=pid)
        with contextlib.suppress(OSError):
            await _send(connection, Hello(version=VERSION, refused=f"{reason}: {detail}"), [])


def check_path(path: Path) -> None:
    """Raise ConfigError if no socket can be created at ``path``."""
    if problem := path_problem(path):
        raise ConfigError(f"engine.tap: {problem}")
    if problem := folder_problem(path.parent):
        raise ConfigError(f"engine.tap: {problem}")


async def _send(connection: SocketType, hello: Hello, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    await connection.sendmsg([msgspec.json.encode(hello)], rights)
