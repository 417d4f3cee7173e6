"""marketfeed: a real-time market-data distribution engine."""

import importlib
from typing import Any

from marketfeed.core.records import QUOTE, TRADE
from marketfeed.shm.tap import tap

__all__ = ["QUOTE", "TRADE", "__version__", "tap"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import ``marketfeed.recordings`` when it is first asked for."""
    if name == "recordings":
        return importlib.import_module("marketfeed.recordings")
    raise AttributeError(f"module 'marketfeed' has no attribute {name!r}")
