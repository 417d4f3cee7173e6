"""The client on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Final

from marketfeed.client.backend import BY_CA, RECEIVE_BYTES
from marketfeed.client.unreachable import plainly, tls_reason
from marketfeed.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from marketfeed.client.backend import Event, Task

_FALLBACK_S: Final = 0.25  # before the next address of a host is tried too: RFC 8305


class AsyncioStream:
    """A pair of asyncio streams as a feed uses it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send all of ``data``; raises ConnectError."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise ConnectError(plainly(error)) from None

    async def receive(self) -> bytes:
        """Return the next bytes, b"" at the end; raises ConnectError."""
        try:
            return await self._reader.read(RECEIVE_BYTES)
        except OSError as error:  # ssl.SSLError too
            raise ConnectError(plainly(error)) from None

    async def close(self) -> None:
        """Close at once."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class AsyncioBackend:
    """The event loop of asyncio that runs the caller."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        """Return the loop's time, in seconds."""
        return self._loop.time()

    def event(self) -> Event:
        """Return a new event."""
        return asyncio.Event()

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float) -> AsyncioStream:
        """Connect, with TLS if there is a context. Raises ConnectError with the reason."""
        more: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": host}
        if tls is not None:
            more["ssl_handshake_timeout"] = timeout_s
        try:
            async with asyncio.timeout(timeout_s * (1 if tls is None else 2)):
                reader, writer = await asyncio.open_connection(
                    host, port, limit=RECEIVE_BYTES, happy_eyeballs_delay=_FALLBACK_S, **more
                )
        except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
            if tls is None:
                raise ConnectError(plainly(error)) from None
            raise ConnectError(f"TLS: {tls_reason(_cause(error), timeout_s, BY_CA)}") from None
        except (OSError, UnicodeError) as error:
            raise ConnectError(plainly(error)) from None
        return AsyncioStream(reader, writer)

    async def wait(self, event: Event, until_s: float) -> None:
        """Wait for ``event``, until ``until_s`` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if until_s == float("inf") else until_s):
                await event.wait()

    async def together(self, *tasks: Task) -> None:
        """Run ``tasks`` until one of them returns; then cancel the others."""
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(task()) for task in tasks]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for one in running:
                one.cancel()

    async def shielded(self, task: Task, timeout_s: float) -> None:
        """Run ``task`` for ``timeout_s`` at most; a caller that was cancelled before may do so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await task()

    async def limited(self, task: Awaitable[Any], timeout_s: float) -> Any:
        """Return the result of ``task``; raises TimeoutError after ``timeout_s``."""
        async with asyncio.timeout(timeout_s):
            return await task

    def soon(self, call: Callable[[], object]) -> None:
        """Call ``call`` in the loop, from any thread; not if the loop has ended."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    async def checkpoint(self) -> None:
        """Let other tasks run."""
        await asyncio.sleep(0)

    def background(self, task: Task) -> _Background:
        """Run ``task`` while the context is entered; leaving it cancels the task and waits for its end."""
        return _Background(task)


class _Background:
    """A task that ends with the context. An exception of the body leaves the context as it is."""

    def __init__(self, task: Task) -> None:
        self._function = task

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._function())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error


def _cause(error: BaseException) -> BaseException:
    """Return what asyncio's ConnectionAbortedError for a late handshake means."""
    return TimeoutError() if isinstance(error, ConnectionAbortedError) else error
