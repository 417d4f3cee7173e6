"""What a feed needs of an event loop: trio_backend.py and asyncio_backend.py provide it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    Task = Callable[[], Coroutine[Any, Any, None]]

RECEIVE_BYTES: Final = 1 << 18  # at a time
BY_CA: Final = "ca="  # how a caller trusts a certificate


class Event(Protocol):
    """A flag that tasks can wait for."""

    def set(self) -> Any:
        """Set the flag."""
        ...

    async def wait(self) -> Any:
        """Wait until it is set."""
        ...


class Stream(Protocol):
    """A TCP connection, perhaps with TLS. Errors are ConnectError."""

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        ...

    async def receive(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        ...

    async def close(self) -> None:
        """Close at once."""
        ...


class Backend(Protocol):
    """An event loop."""

    def now(self) -> float:
        """Return the loop's time, in seconds."""
        ...

    def event(self) -> Event:
        """Return a new event."""
        ...

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float) -> Stream:
        """Connect, with TLS if there is a context. Raises ConnectError with the reason."""
        ...

    async def wait(self, event: Event, until_s: float) -> None:
        """Wait for ``event``, until ``until_s`` at most."""
        ...

    async def together(self, *tasks: Task) -> None:
        """Run ``tasks`` until one of them returns; then cancel the others."""
        ...

    async def shielded(self, task: Task, timeout_s: float) -> None:
        """Run ``task`` for ``timeout_s`` at most, even if the caller is cancelled."""
        ...

    async def limited(self, task: Awaitable[Any], timeout_s: float) -> Any:
        """Return the result of ``task``; raises TimeoutError after ``timeout_s``."""
        ...

    def soon(self, call: Callable[[], object]) -> None:
        """Call ``call`` in the loop, from any thread; not if the loop has ended."""
        ...

    async def checkpoint(self) -> None:
        """Let other tasks run."""
        ...

    def background(self, task: Task) -> AbstractAsyncContextManager[None, None]:
        """Run ``task`` while the context is entered; leaving it cancels the task and waits for its end."""
        ...
