"""The connection of a publisher to a ``push`` feed, kept by a thread, whatever event loop the program has.

    caller ──► Publishing ──► send without waiting ──► socket
                   ▲
    thread: connects, sends what did not fit, notices the end, sends heartbeats, connects again

The caller sends by itself while the kernel takes everything, so a tick does not wait for a thread. State is
shared under one lock, which is never held while waiting.

Once a second the thread asks whether the engine has read everything (unread.py). The engine publishes what it
has read before it reads again. So when it has read a later frame, such as a heartbeat, everything that it had
read before is published, and is no longer in doubt.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from marketfeed.client.push_socket import end_of, kernel_bytes, push_address, push_socket
from marketfeed.client.unreachable import plainly
from marketfeed.client.unread import unread_bytes
from marketfeed.core.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.client.publishing import Cut, Publishing

CONNECT_S: Final = 5.0
FIRST_RETRY_S: Final = 0.25
MAX_RETRY_S: Final = 5.0
STEADY_S: Final = 5.0  # a connection that lasted as long resets the backoff
CONFIRM_S: Final = 1.0
GRACE_S: Final = 0.5  # at an end by an exception, for what the kernel takes at once
MS: Final = 1000

log: Final = logging.getLogger("marketfeed.client.publisher")


class PushLink:
    """Keeps ``core`` connected to ``address`` from :meth:`start` to :meth:`end`.

    ``state`` is ``disconnected``, ``connecting`` or ``connected``.
    """

    def __init__(
        self,
        address: str,
        core: Publishing,
        heartbeat_s: float,
        close_s: float,
    ) -> None:
        self.core = core
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)  # notified when state, or what waits, has changed
        self.wakers: list[Callable[[], None]] = []  # called with the lock held, at the same changes
        self.state = "disconnected"
        self.reason = ""  # why it is disconnected
        self.connects = self.cuts = 0
        self.ended = False  # the thread has ended
        self.failure: BaseException | None = None  # which ended it
        self.shown = address
        self._address = push_address(address)
        self._heartbeat_s, self._close_s = heartbeat_s, close_s
        self._on_cut: Callable[[Cut], object] | None = None
        self._backoff = Backoff(FIRST_RETRY_S, MAX_RETRY_S)
        self._sock: socket.socket | None = None  # connected
        self._lost = ""  # why a send failed
        self._sent_s = 0.0  # when anything was last sent; monotonic
        self._closing_s: float | None = None  # when to stop, sent or not
        self._hasty = False  # do not connect again to send the rest
        self._wake = -1  # an eventfd
        self._thread = threading.Thread(target=self._run, name="marketfeed publisher", daemon=True)

    def start(self, on_cut: Callable[[Cut], object] | None) -> None:
        """Begin to connect; the thread will call ``on_cut``."""
        self._on_cut = on_cut
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread.start()

    def end(self, *, flush: bool) -> None:
        """Stop once all was sent and the engine has read it, after ``close_s`` at the latest.

        Without ``flush`` it stops soon, and does not connect again to send the rest.
        """
        with self.lock:
            self._closing_s = time.monotonic() + (self._close_s if flush else min(self._close_s, GRACE_S))
            self._hasty = self._hasty or not flush
            self._wake_thread()

    def join(self) -> None:
        """Wait for the thread, after ``end``."""
        self._thread.join()

    def send(self) -> None:
        """Hand over what waits, as far as the kernel takes it; the lock must be held."""
        sock, core = self._sock, self.core
        if sock is None:
            return
        try:
            while core.pending:
                core.hand_over(sock.sendmsg(core.chunks()))
                self._sent_s = time.monotonic()
        except OSError as error:  # BlockingIOError: the thread waits for room; others: it finds the end
            if isinstance(error, ConnectionResetError):  # which the socket reports once
                self._lost = f"connection lost: {plainly(error)}"
            if threading.current_thread() is not self._thread:
                self._wake_thread()

    def _wake_thread(self) -> None:
        if not self.ended:
            os.eventfd_write(self._wake, 1)

    def _notify(self) -> None:
        self.changed.notify_all()
        for wake in self.wakers:
            wake()

    def _set_state(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason
        self._notify()

    # The thread.

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._keep_connected()
        except BaseException as error:
            failure = error
            log.exception("%s: publisher failed", self.shown)
        with self.lock:
            self.ended, self.failure = True, failure
            os.close(self._wake)
            self._set_state("disconnected", self.reason or "closed")

    def _keep_connected(self) -> None:
        told = False  # that it cannot connect
        while not self._closed():
            with self.lock:
                self._set_state("connecting", self.reason)
            began_s = time.monotonic()
            try:
                sock = self._connect()
            except OSError as error:
                why = plainly(error)
                level = logging.DEBUG if told else logging.WARNING
                log.log(level, "%s: cannot connect, trying again: %s", self.shown, why)
                told = True
                with self.lock:
                    self._set_state("disconnected", why)
            else:
                if sock is None:
                    return
                told = False
                with sock:
                    self._serve(sock)
                if time.monotonic() - began_s >= STEADY_S:
                    self._backoff.reset()
            self._rest(self._backoff.next_s())

    def _closed(self) -> bool:
        """Whether to stop, while disconnected."""
        if self._closing_s is None:
            return False
        return self._hasty or not self.core.waiting or time.monotonic() >= self._closing_s

    def _rest(self, seconds: float) -> None:
        """Wait, but not beyond the moment at which to stop."""
        until_s = time.monotonic() + seconds
        while not self._closed() and (left_s := until_s - time.monotonic()) > 0:
            self._poll(None, 0, left_s)

    def _poll(self, sock: socket.socket | None, wanted: int, timeout_s: float) -> int:
        """Return the events of ``sock``, after at most ``timeout_s``; wakes earlier if anything was asked."""
        if self._closing_s is not None:
            timeout_s = min(timeout_s, max(self._closing_s - time.monotonic(), 0))
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        if sock is not None:
            poller.register(sock, wanted)
        found = dict(poller.poll(timeout_s * MS))
        if found.pop(self._wake, 0):
            os.eventfd_read(self._wake)
        return found.popitem()[1] if found else 0

    def _connect(self) -> socket.socket | None:
        """Return a connection, None if closed meanwhile; raises OSError."""
        if isinstance(self._address, str):
            return self._connected(socket.AF_UNIX, self._address)
        problem: OSError | None = None
        for family, _, _, _, where in socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM):
            try:
                return self._connected(family, where)
            except OSError as error:
                problem = error
        raise problem or OSError("no address")

    def _connected(self, family: int, where: Any) -> socket.socket | None:
        sock = push_socket(family)
        try:
            until_s = time.monotonic() + CONNECT_S
            try:
                sock.connect(where)
            except BlockingIOError:
                if family == socket.AF_UNIX:  # its backlog is full
                    raise
                while not self._poll(sock, select.POLLOUT, until_s - time.monotonic()):
                    if self._closed():
                        sock.close()
                        return None
                    if time.monotonic() >= until_s:
                        raise TimeoutError("no answer") from None
                if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error)) from None
        except BaseException:
            sock.close()
            raise
        return sock

    def _serve(self, sock: socket.socket) -> None:
        """Send until the connection ends, or until closed."""
        with self.lock:
            self.core.connected(kernel_bytes(sock), time.time_ns())
            self.connects += 1
            self._sock, self._lost = sock, ""
            self.send()
            self._set_state("connected")
        log.info("%s: connected", self.shown)
        reason = self._until_end(sock)
        with self.lock:
            self._sock = None
            if reason is None:
                self.core.confirm(self.core.handed_bytes)
            cut = self.core.cut(reason or "closed")
            self.cuts += reason is not None and self._closing_s is None
            self._set_state("disconnected", cut.reason)
        if reason is not None:
            log.warning("%s: %s", self.shown, cut)
            if self._on_cut is not None:
                self._on_cut(cut)

    def _until_end(self, sock: socket.socket) -> str | None:
        """Serve a connection; return why it ended, None if everything was published."""
        finishing, asked_s, read_upto = False, time.monotonic(), 0
        while True:
            with self.lock:
                self.send()
                if not self.core.waiting:
                    self._notify()
                wanted = select.POLLIN | (select.POLLOUT if self.core.pending else 0)
                if self._closing_s is not None:
                    if time.monotonic() >= self._closing_s:
                        return "closed before the engine had read everything"
                    if not self.core.pending and not finishing:
                        finishing = True
                        sock.shutdown(socket.SHUT_WR)  # the engine reads to the end, and closes
            if self._poll(sock, wanted, CONFIRM_S) & ~select.POLLOUT:
                reason = end_of(sock)
                if reason is not None:
                    reason = reason or self._lost
                    return None if finishing and not reason else reason or "the engine closed the connection"
            now_s = time.monotonic()
            if now_s - asked_s >= CONFIRM_S:
                asked_s = now_s
                with self.lock:
                    read_upto = self._confirm(sock, read_upto, now_s)

    def _confirm(self, sock: socket.socket, read_upto: int, now_s: float) -> int:
        """Confirm what is published; return how many bytes the engine has read, as far as is known.

        The kernel drops what was not read when the engine ends, so the connection must be open afterwards.
        """
        core, idle = self.core, now_s - self._sent_s >= self._heartbeat_s
        if core.in_flight and unread_bytes(sock) == 0 and not self._poll(sock, select.POLLIN, 0):
            if core.handed_bytes > read_upto:
                core.confirm(read_upto)
                read_upto = core.handed_bytes
            idle = idle or bool(core.in_flight)
        if idle and self._closing_s is None:
            core.heartbeat(time.time_ns())
        return read_upto
