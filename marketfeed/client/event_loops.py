"""The event loop that runs the caller, trio or asyncio, as backend.py describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sniffio

from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from marketfeed.client.backend import Backend


def running_backend() -> Backend:
    """Return the backend for the event loop that runs the caller; raises ConfigError if there is none."""
    library = sniffio.current_async_library()
    if library == "trio":
        from marketfeed.client.trio_backend import TrioBackend

        return TrioBackend()
    if library == "asyncio":
        from marketfeed.client.asyncio_backend import AsyncioBackend

        return AsyncioBackend()
    raise ConfigError(f"marketfeed.client runs on trio and asyncio, not on {library}")
