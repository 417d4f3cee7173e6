"""The event loop that runs the caller, trio or asyncio, as far as code that runs under both needs it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import sniffio

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop(Protocol):
    """What is needed of an event loop."""

    def event(self) -> Any:
        """Return an event with ``set`` and ``wait``."""
        ...

    def soon(self, call: Callable[[], object]) -> None:
        """Call ``call`` in the loop, from any thread."""
        ...

    async def checkpoint(self) -> None:
        """Let other tasks run."""
        ...


class TrioLoop:
    """The loop of trio that runs the caller."""

    def __init__(self) -> None:
        import trio

        self._trio, self._token = trio, trio.lowlevel.current_trio_token()
        self.event, self.checkpoint = trio.Event, trio.lowlevel.checkpoint

    def soon(self, call: Callable[[], object]) -> None:
        with suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(call)


class AsyncioLoop:
    """The loop of asyncio that runs the caller."""

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self.event, self._sleep = asyncio.Event, asyncio.sleep

    def soon(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    async def checkpoint(self) -> None:
        await self._sleep(0)


def running_loop() -> Loop:
    """Return the loop that runs the caller; raises RuntimeError for another library."""
    library = sniffio.current_async_library()
    if library == "trio":
        return TrioLoop()
    if library == "asyncio":
        return AsyncioLoop()
    raise RuntimeError(f"this runs under trio and asyncio, not under {library}")
