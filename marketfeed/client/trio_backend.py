"""The client on trio."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
import trio.lowlevel

from marketfeed.client.backend import BY_CA, RECEIVE_BYTES
from marketfeed.client.unreachable import plainly, tls_reason
from marketfeed.errors import ConnectError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from marketfeed.client.backend import Event, Task

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError)


class TrioStream:
    """A trio stream as a feed uses it."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        """Send all of ``data``; raises ConnectError."""
        try:
            await self._stream.send_all(data)
        except _BROKEN as error:
            raise ConnectError(plainly(error)) from None

    async def receive(self) -> bytes:
        """Return the next bytes, b"" at the end; raises ConnectError."""
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except _BROKEN as error:
            raise ConnectError(plainly(error)) from None

    async def close(self) -> None:
        """Close at once."""
        await trio.aclose_forcefully(self._stream)


class TrioBackend:
    """The event loop of trio that runs the caller."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    def now(self) -> float:
        """Return the loop's time, in seconds."""
        return trio.current_time()

    def event(self) -> Event:
        """Return a new event."""
        return trio.Event()

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float) -> TrioStream:
        """Connect, with TLS if there is a context. Raises ConnectError with the reason."""
        try:
            with trio.fail_after(timeout_s):
                stream = await trio.open_tcp_stream(host, port)
        except trio.TooSlowError:
            raise ConnectError(plainly(TimeoutError())) from None
        except OSError as error:
            raise ConnectError(plainly(error)) from None
        if tls is None:
            return TrioStream(stream)
        # https_compatible: many servers close without TLS's close_notify.
        sealed = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
        try:
            with trio.fail_after(timeout_s):
                await sealed.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError | trio.TooSlowError):
                slow = isinstance(error, trio.TooSlowError)
                reason = tls_reason(TimeoutError() if slow else error.__cause__ or error, timeout_s, BY_CA)
                raise ConnectError(f"TLS: {reason}") from None
            raise
        return TrioStream(sealed)

    async def wait(self, event: Event, until_s: float) -> None:
        """Wait for ``event``, until ``until_s`` at most."""
        with trio.move_on_at(until_s):
            await event.wait()

    async def together(self, *tasks: Task) -> None:
        """Run ``tasks`` until one of them returns; then cancel the others."""

        async def run(task: Task, nursery: trio.Nursery) -> None:
            await task()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(run, task, nursery)

    async def shielded(self, task: Task, timeout_s: float) -> None:
        """Run ``task`` for ``timeout_s`` at most, even if the caller is cancelled."""
        with trio.move_on_after(timeout_s, shield=True):
            await task()

    async def limited(self, task: Awaitable[Any], timeout_s: float) -> Any:
        """Return the result of ``task``; raises TimeoutError after ``timeout_s``."""
        with trio.move_on_after(timeout_s):
            return await task
        raise TimeoutError

    def soon(self, call: Callable[[], object]) -> None:
        """Call ``call`` in the loop, from any thread; not if the loop has ended."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call)

    async def checkpoint(self) -> None:
        """Let other tasks run."""
        await trio.lowlevel.checkpoint()

    def background(self, task: Task) -> _Background:
        """Run ``task`` while the context is entered; leaving it cancels the task and waits for its end."""
        return _Background(task)


class _Background:
    """A nursery with one task. An exception of the body leaves the context as it is, not in a group."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> None:
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._task)

    async def __aexit__(self, *_: object) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)
