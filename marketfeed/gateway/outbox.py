"""The outbox: a socket to which the shard writes without waiting, and sessions and HTTP with waiting.

    shard ──► offer ────────────┐
                                ├──► unsent bytes ──► drainer ──► kernel   (only while the kernel's
    session, HTTP ──► send_all ─┘                                          buffer is full)

Bytes are sent in the order in which they were accepted, and frames are never interleaved. Cancelling a caller
of ``send_all`` removes no bytes. There is no queue: the shard offers nothing to a session whose outbox holds
bytes.

Cost: ``offer`` is one ``send`` and about 0.2 µs (perf/fanout.py).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from marketfeed.errors import CloseCode
from marketfeed.gateway.scan import FramingAbuseError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from marketfeed.gateway.pacer import Pacer
    from marketfeed.gateway.scan import FrameScanner

TCP_NOTSENT_LOWAT: Final = 25  # linux/tcp.h; not in Python's socket module
SIOCOUTQ: Final = termios.TIOCOUTQ  # bytes not yet acknowledged
SIOCOUTQNSD: Final = 0x894B  # linux/sockios.h: bytes not yet sent
_RESET: Final = struct.pack("ii", 1, 0)  # linger on, 0 s: close() sends RST and discards unsent bytes


class Owner(Protocol):
    """The user of a connection, which its outbox calls back. No method waits or raises."""

    def drained(self) -> None:
        """Continue: all unsent bytes have gone out."""
        ...

    def ponged(self, payload: bytes) -> None:
        """Take the payload of a pong that is as long as the engine's pings."""
        ...

    def end(self, code: CloseCode) -> None:
        """End the session: its peer is gone or violates the framing rules, or the shard closes it."""
        ...


class Nobody:
    """An owner that ignores every call: of an outbox that nobody uses, and a base for owners of few calls."""

    def drained(self) -> None:
        """Do nothing."""

    def ponged(self, payload: bytes) -> None:
        """Do nothing."""

    def end(self, code: CloseCode) -> None:
        """Do nothing."""


_NOBODY: Final = Nobody()

log = structlog.get_logger()


class Outbox(trio.abc.HalfCloseableStream):
    """A TCP socket as a stream whose sending side can also be used without waiting.

    It calls back its owner: the one that it is created with, later the one passed to :meth:`attach`.
    """

    __slots__ = (
        "_empty", "_lost", "_nursery", "_owner", "_pacer", "_passed", "_progress", "_replay",
        "_scanner", "_send", "_shut", "_sock", "_tail", "_taken", "received",
    )  # fmt: skip

    def __init__(
        self, sock: socket.socket, nursery: trio.Nursery, owner: Owner, pacer: Pacer | None = None
    ) -> None:
        """Take ownership of ``sock``, a connected non-blocking socket.

        The drainer runs in ``nursery``, which many connections may share: it ends with the socket.
        ``pacer`` limits the rate at which received bytes are processed.
        """
        self._sock = sock
        self._owner: Owner = owner
        self._scanner: FrameScanner | None = None
        self._pacer = pacer
        self._send = sock.send
        self._nursery = nursery
        self._tail = bytearray()
        self._taken = 0  # bytes ever added to the tail; _passed of them were sent
        self._passed = 0
        self._progress: trio.lowlevel.ParkingLot | None = None  # tasks that wait for _passed to rise
        self._empty = False  # the last read emptied the kernel's buffer: the next one waits first
        self._shut = False
        self._lost = False  # the peer is gone
        self._replay = b""
        self.received = 0

    def attach(self, owner: Owner, scanner: FrameScanner | None = None) -> None:
        """Hand the connection over to ``owner``; ``scanner`` checks what is received from now on."""
        self._owner, self._scanner = owner, scanner

    # For the shard.

    def offer(self, frame: bytes) -> bool:
        """Hand ``frame`` to the kernel; return False if part of it remains unsent.

        Never waits and never raises. After False, offer nothing until the owner's ``drained`` is called, then
        advance the session from its position. Also returns False after :meth:`shut` and once the peer is
        gone.
        """
        if self._tail or self._shut:
            if not self._shut:
                self._append(frame)
            return False
        try:
            sent = self._send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._break(CloseCode.ABNORMAL)
            return False
        if sent == len(frame):
            return True
        self._append(memoryview(frame)[sent:])
        self._nursery.start_soon(self._drain)
        return False

    def acknowledged(self) -> int:
        """Return a number that rises exactly when the peer acknowledges bytes while the outbox holds some."""
        return self._passed - self._ioctl(SIOCOUTQ)

    def unsent(self) -> int:
        """Return how many unsent bytes the kernel holds."""
        return self._ioctl(SIOCOUTQNSD)

    def pace(self, send_buffer_bytes: int) -> None:
        """Limit the unsent bytes in the kernel to about ``send_buffer_bytes``, with TCP_NOTSENT_LOWAT."""
        if not self._shut:
            self._sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, send_buffer_bytes)

    def give_up_after(self, gone_s: float) -> None:
        """Set TCP_USER_TIMEOUT to ``gone_s``, the time without an acknowledgement."""
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(gone_s * 1000))

    def end(self, code: CloseCode) -> None:
        """Request the end of the session; it ends asynchronously."""
        self._owner.end(code)

    def shut(self) -> None:
        """Accept no more frames from the shard; unsent bytes are still sent."""
        self._shut = True

    @property
    def waiting_bytes(self) -> int:
        """Return how many bytes the outbox holds."""
        return len(self._tail)

    def _ioctl(self, request: int) -> int:
        try:
            answer = fcntl.ioctl(self._sock.fileno(), request, b"\0\0\0\0")
        except (OSError, ValueError):  # closed meanwhile
            return 0
        return int(struct.unpack("i", answer)[0])

    def _check_open(self) -> None:
        if self._lost:
            raise trio.BrokenResourceError("the peer is gone")
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("the outbox is closed")

    def _append(self, data: bytes | memoryview) -> None:
        self._tail += data
        self._taken += len(data)

    async def _drain(self) -> None:
        """Send the tail as the kernel accepts it; runs only while there is one."""
        try:
            while self._tail:
                await trio.lowlevel.wait_writable(self._sock)
                with memoryview(self._tail) as tail:
                    sent = self._sock.send(tail)
                del self._tail[:sent]
                self._passed += sent
                self._unpark()
        except BlockingIOError:
            self._nursery.start_soon(self._drain)
            return
        except trio.ClosedResourceError:
            return  # closed by aclose()
        except OSError:
            self._break(CloseCode.ABNORMAL)
            return
        if not self._shut:
            try:
                self._owner.drained()
            except Exception:  # a bug, which must not end the connections that share the nursery
                log.exception("session failed after a wait for its socket")
                self.end(CloseCode.INTERNAL)

    async def _wait_progress(self) -> None:
        if self._progress is None:
            self._progress = trio.lowlevel.ParkingLot()
        await self._progress.park()

    def _unpark(self) -> None:
        if self._progress is not None:
            self._progress.unpark_all()

    def _break(self, code: CloseCode) -> None:
        if not self._lost:
            self._lost = self._shut = True
            self._tail.clear()
            self._passed = self._taken
            self._unpark()
            self.end(code)

    # trio.abc.HalfCloseableStream, for sessions and HTTP.

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` after the unsent bytes, and wait until the kernel has accepted it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        data = self._wire(data)
        sent = 0
        if not self._tail:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._break(CloseCode.ABNORMAL)
                raise trio.BrokenResourceError(str(error)) from error
            if sent < len(data):
                self._nursery.start_soon(self._drain)
        if sent < len(data):
            self._append(memoryview(data)[sent:])
            until = self._taken
            while self._passed < until:
                await self._wait_progress()
            self._check_open()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _wire(self, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        """Return the bytes to send for ``data``."""
        return data

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the outbox holds no bytes; then a send goes to the kernel at once."""
        await trio.lowlevel.checkpoint()
        # Do not wait for the socket: the drainer does, and only one task may.
        while self._tail:
            await self._wait_progress()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return received bytes, b"" at the end; end sessions that violate the framing limits.

        Pongs go to the owner and are dropped here: the shard sent the pings, and the library would need more
        time for a pong than a quiet session needs in all.
        """
        data = await self._receive(max_bytes or 65536)
        if self._scanner is not None:
            try:
                while self._scanner.feed(data, trio.current_time(), self._owner.ponged):
                    data = await self._receive(max_bytes or 65536)
            except FramingAbuseError:
                self.end(CloseCode.ABUSE)
                # Read and discard: unread bytes would turn the close that follows into a reset, and the peer
                # would not receive the reason.
                while data:
                    data = await self._receive(65536)
        return data

    def replay(self, data: bytes) -> None:
        """Let ``data``, which was received and not used, be received once more."""
        self._replay = data + self._replay

    def _receive(self, max_bytes: int) -> Awaitable[bytes]:
        # Not async: each level of coroutines takes 220 bytes in a quiet session.
        return self._replayed(max_bytes) if self._replay else self._read(max_bytes)

    async def _replayed(self, max_bytes: int) -> bytes:
        data, self._replay = self._replay[:max_bytes], self._replay[max_bytes:]
        await trio.lowlevel.checkpoint()
        return data

    async def _read(self, max_bytes: int) -> bytes:
        data: bytes | None = None
        try:
            if not self._empty:
                await trio.lowlevel.checkpoint_if_cancelled()
                data = self._arrived(max_bytes)
                if data is not None:
                    await trio.lowlevel.cancel_shielded_checkpoint()
            while data is None:
                self._check_open()
                await trio.lowlevel.wait_readable(self._sock)
                data = self._arrived(max_bytes)
        except OSError as error:
            self._break(CloseCode.ABNORMAL)
            raise trio.BrokenResourceError(str(error)) from error
        self.received += len(data)
        if self._pacer is not None:
            try:
                await self._pacer.turn()
            except trio.Cancelled:
                self._give_back(data)  # the next reader gets it, such as after a long poll
                raise
        return data

    def _arrived(self, max_bytes: int) -> bytes | None:
        """Return what the kernel has received, b"" at the end; None if nothing has arrived yet."""
        try:
            data = self._sock.recv(max_bytes)
        except BlockingIOError:
            self._empty = True
            return None
        self._empty = 0 < len(data) < max_bytes
        return data

    def _give_back(self, data: bytes) -> None:
        """Let ``data``, which :meth:`_read` received, be read once more."""
        self.replay(data)

    async def send_eof(self) -> None:
        """Send FIN after the unsent bytes."""
        await self.wait_send_all_might_not_block()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def aclose(self) -> None:
        """Close the socket, as :meth:`close` does."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close the socket. Unsent bytes are discarded, and then the peer is reset. Idempotent."""
        # Session, outbox and subscriber form a cycle through the owner. Without the cycle, each is freed with
        # its last reference; the garbage collector does not look at old objects.
        self.attach(_NOBODY)
        if self._tail:
            self.reset()
        self._shut = True
        self._tail.clear()
        self._passed = self._taken
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._unpark()

    def reset(self) -> None:
        """Make the next close send RST, for a peer that does not read."""
        if self._sock.fileno() >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
