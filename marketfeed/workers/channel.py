"""One end of the control channel between the engine and a worker.

Messages travel in both directions, file descriptors of connections from the engine to the
worker. Sending never waits: :meth:`Channel.drain` sends what the kernel did not accept at once.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from marketfeed.workers.framing import Unframer, encode
from marketfeed.workers.messages import Connection, Down, Up

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BYTES: Final = 65536
# A message carries one descriptor. Room for more: the kernel drops descriptors that do not fit.
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4 * 16)

M = TypeVar("M")


class Channel(Generic[M]):
    """One end of a control socket, which receives messages of type ``M``."""

    def __init__(self, sock: socket.socket, direction: type[M]) -> None:
        """Take over ``sock``; ``direction`` is that of the received messages: :data:`Down` or :data:`Up`."""
        sock.setblocking(False)
        self._sock = sock
        self._trio_sock = trio.socket.from_stdlib_socket(sock)
        self._unframer = Unframer(direction)
        self._messages: Iterator[M] = iter(())
        self._descriptors: deque[int | None] = deque()  # None: the kernel could not deliver it
        self._unsent: deque[tuple[bytes, int | None]] = deque()
        self._more = trio.Event()
        self._empty = trio.Event()
        self._broken = False

    def send(self, message: Down | Up, descriptor: int | None = None) -> None:
        """Send ``message`` with a copy of ``descriptor``; never waits.

        The message is lost if the peer has closed its end.
        """
        if self._broken:
            return
        self._unsent.append((encode(message), descriptor))
        if len(self._unsent) == 1 and not self._push():
            self._empty = trio.Event()
            self._more.set()

    def _push(self) -> bool:
        """Send what the kernel accepts; return whether nothing is unsent."""
        while self._unsent:
            data, descriptor = self._unsent[0]
            rights = [] if descriptor is None else [_rights(descriptor)]
            try:
                sent = self._sock.sendmsg([data], rights)
            except BlockingIOError:
                return False
            except OSError:
                self._broken = True
                self._unsent.clear()
                break
            # The descriptor is sent with the first byte.
            self._unsent[0] = (data[sent:], None)
            if sent == len(data):
                self._unsent.popleft()
        self._empty.set()
        return True

    async def drain(self) -> None:
        """Send the unsent messages whenever the socket is writable. Runs for ever."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._unsent:
                await trio.lowlevel.wait_writable(self._sock)
                self._push()

    async def flushed(self) -> None:
        """Wait until nothing is unsent."""
        if self._unsent:
            await self._empty.wait()

    async def receive(self) -> tuple[M, int | None] | None:
        """Return the next message, and the descriptor of a Connection; None at the end of the channel.

        A Connection comes without its descriptor if this process had too many files open.
        Raises ControlError.
        """
        while True:
            message = next(self._messages, None)
            if message is not None:
                with_one = isinstance(message, Connection) and self._descriptors
                return message, self._descriptors.popleft() if with_one else None
            try:
                data, ancillary, flags, _ = await self._trio_sock.recvmsg(
                    READ_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except OSError:
                return None
            if not data:
                return None
            came = array.array("i")
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    came.frombytes(content[: len(content) - len(content) % came.itemsize])
            self._descriptors += came
            if flags & socket.MSG_CTRUNC:
                self._descriptors.append(None)
            self._messages = self._unframer.feed(data)

    def close(self) -> None:
        """Close the socket, and the descriptors of messages that were not read."""
        self._broken = True
        self._unsent.clear()
        self._trio_sock.close()
        for descriptor in self._descriptors:
            if descriptor is not None:
                os.close(descriptor)
        self._descriptors.clear()


def _rights(descriptor: int) -> tuple[int, int, array.array[int]]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor])
