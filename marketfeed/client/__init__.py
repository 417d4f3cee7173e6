"""The client of an engine: ticks, resumed over reconnects, alerts, notices. docs/clients.md shows it.

    from marketfeed.client import connect, stream

Names are imported when they are first asked for, since commands need only some of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from marketfeed.client.batch import Batch
    from marketfeed.client.connect import connect
    from marketfeed.client.core import State
    from marketfeed.client.feed import Feed
    from marketfeed.client.messages import (
        Alert,
        Closing,
        Connected,
        Disconnected,
        Error,
        Gap,
        Lag,
        Message,
        Quote,
        Reset,
        Resumed,
        Subscription,
        Synced,
        Trade,
    )
    from marketfeed.client.statistics import Latency, Statistics
    from marketfeed.errors import ConnectError, RefusedError, RequestRefusedError

_MODULES: Final = {
    "marketfeed.client.batch": ("Batch",),
    "marketfeed.client.connect": ("connect",),
    "marketfeed.client.core": ("State",),
    "marketfeed.client.feed": ("Feed",),
    "marketfeed.client.messages": (
        "Alert", "Closing", "Connected", "Disconnected", "Error", "Gap", "Lag", "Message", "Quote", "Reset",
        "Resumed", "Subscription", "Synced", "Trade",
    ),
    "marketfeed.client.statistics": ("Latency", "Statistics"),
    "marketfeed.errors": ("ConnectError", "RefusedError", "RequestRefusedError"),
}  # fmt: skip
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "Alert",
    "Batch",
    "Closing",
    "ConnectError",
    "Connected",
    "Disconnected",
    "Error",
    "Feed",
    "Gap",
    "Lag",
    "Latency",
    "Message",
    "Quote",
    "RefusedError",
    "RequestRefusedError",
    "Reset",
    "Resumed",
    "State",
    "Statistics",
    "Subscription",
    "Synced",
    "Trade",
    "connect",
]


def __getattr__(name: str) -> Any:
    """Import ``name`` from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'marketfeed.client' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # a submodule of the same name does not take its place again
    return value
