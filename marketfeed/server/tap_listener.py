"""The tap's door: hands the rings, and a doorbell each, to readers on this machine.

What a reader then does costs the engine nothing: it looks at memory. The
doorbells are eventfds that add up what is not looked at, so ringing one never
waits, whether its reader is quick, asleep or gone. marketfeed/shm/tap.py is the
readers' side.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.socket import SocketType

    from marketfeed.core.rings import Rings

MODE: Final = 0o600
MAX_PATH_BYTES: Final = 107  # linux/un.h
BACKLOG: Final = 64
_UCRED: Final = struct.Struct("3i")  # pid, uid, gid

log = structlog.get_logger()


class Taps:
    """The readers that are connected, and the socket at which they come."""

    def __init__(self, rings: Rings, path: Path | None, most: int) -> None:
        """Prepare to hand out ``rings``, which lie in a memfd, to ``most`` readers at a time.

        Without ``path`` there is no door. Raises ConfigError for one that cannot be.
        """
        if path is not None:
            check_path(path)
        self._rings = rings
        self._path = path
        self.most = most
        self._door: SocketType | None = None
        self._file: tuple[int, int] | None = None  # the socket's, while it listens
        self._trouble: str | None = None  # why the last connection could not be accepted
        self._bells: dict[int, None] = {}
        self.accepted = 0
        self.refused: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many readers are connected."""
        return len(self._bells)

    def ring(self) -> None:
        """Ring every reader's doorbell; never waits."""
        for bell in self._bells:
            try:
                os.eventfd_write(bell, 1)
            except BlockingIOError:  # rung 2**64 times and never looked at; it is still ringing
                continue

    def problem(self) -> str | None:
        """Return why readers cannot connect now, None if they can or are not meant to."""
        if self._path is not None and self._file is not None:
            try:
                if _identity(self._path) != self._file:
                    return f"{self._path} is another process's now"
            except OSError as error:
                return f"{self._path}: {error.strerror}"
        return self._trouble

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Listen, for our own user alone, until the block ends; raises StartError.

        A socket left by an engine that died is replaced; one that answers, and any other file, stays.
        """
        if self._path is None:
            yield
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            try:
                _remove_stale(self._path)
                # The file takes its mode from the socket's, so there is no moment when others can connect.
                os.fchmod(door.fileno(), MODE)
                door.bind(str(self._path))
                door.listen(BACKLOG)
                self._file = file = _identity(self._path)
            except OSError as error:
                why = error.strerror or str(error)
                raise StartError(f"engine.tap: cannot listen at {self._path}: {why}") from None
            self._door = trio.socket.from_stdlib_socket(door)
            log.info("tap listening", path=str(self._path))
            try:
                yield
            finally:
                self._file = None
                with contextlib.suppress(OSError):  # its folder may be gone, or the file another's
                    if _identity(self._path) == file:
                        self._path.unlink()

    async def accept(self, readers: trio.Nursery) -> None:
        """Accept for ever; each reader's connection is watched in the nursery ``readers``."""
        while self._door is not None:
            try:
                connection, _ = await self._door.accept()
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
            pid, uid, _ = _UCRED.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            )
            if len(self._bells) >= self.most:
                await self._refuse(connection, "too many taps", f"limits.taps is {self.most}", pid)
                return
            try:
                bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            except OSError as error:
                await self._refuse(connection, "no doorbell", error.strerror or str(error), pid)
                return
            self._bells[bell] = None
            try:
                await self._attend(connection, bell, pid, uid)
            except OSError:
                log.info("tap left", pid=pid)  # killed, or in the middle of its connecting
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
        # Readers have nothing to say; what one says is not answered.
        log.info("tap closed", pid=pid, reason="it spoke" if said else "by the reader")

    async def _refuse(self, connection: SocketType, reason: str, detail: str, pid: int) -> None:
        self.refused[reason] += 1
        log.warning("tap refused", reason=reason, detail=detail, pid=pid)
        with contextlib.suppress(OSError):
            await _send(connection, Hello(version=VERSION, refused=f"{reason}: {detail}"), [])


def check_path(path: Path) -> None:
    """Raise ConfigError if there can be no socket at ``path``."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ConfigError(f"engine.tap: at most {MAX_PATH_BYTES} bytes with its folder, not {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"engine.tap: {path}: there is no folder {path.parent}")
    if problem := folder_problem(path.parent):
        raise ConfigError(f"engine.tap: {problem}")


async def _send(connection: SocketType, hello: Hello, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    await connection.sendmsg([msgspec.json.encode(hello)], rights)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file is there that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)  # a full backlog, too, is an answer
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another engine answers there")


def _identity(path: Path) -> tuple[int, int]:
    at = path.lstat()
    return at.st_dev, at.st_ino
