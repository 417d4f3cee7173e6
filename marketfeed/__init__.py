"""marketfeed: a real-time market-data distribution engine."""

import importlib
from typing import Any

from marketfeed.core.records import QUOTE, TRADE
from marketfeed.shm.tap import tap

__all__ = ["QUOTE", "TRADE", "__version__", "tap"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import ``marketfeed.recordings`` and the client when they are first asked for."""
    if name in ("client", "recordings"):
        return importlib.import_module(f"marketfeed.{name}")
    if name in ("connect", "stream"):
        return getattr(importlib.import_module("marketfeed.client"), name)
    raise AttributeError(f"module 'marketfeed' has no attribute {name!r}")
