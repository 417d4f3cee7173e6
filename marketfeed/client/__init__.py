"""The client of an engine: ticks, resumed over reconnects, alerts, notices, publishing (docs/clients.md).

    from marketfeed.client import connect, publisher, stream

Names are imported when they are first asked for, since commands need only some of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from marketfeed.client.batch import Batch
    from marketfeed.client.blocking import BlockingFeed, stream
    from marketfeed.client.connecting import connect
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
        Source,
        Subscription,
        Synced,
        Trade,
    )
    from marketfeed.client.publishers import (
        BlockingPublisher,
        Publisher,
        PublisherStatistics,
        UnsentError,
        publisher,
    )
    from marketfeed.client.publishing import Cut, PublisherFullError
    from marketfeed.client.statistics import Latency, Statistics
    from marketfeed.errors import ConnectError, FeedClosedError, RefusedError, RequestRefusedError

_MODULES: Final = {
    "marketfeed.client.batch": ("Batch",),
    "marketfeed.client.blocking": ("BlockingFeed", "stream"),
    "marketfeed.client.connecting": ("connect",),
    "marketfeed.client.core": ("State",),
    "marketfeed.client.feed": ("Feed",),
    "marketfeed.client.messages": (
        "Alert", "Closing", "Connected", "Disconnected", "Error", "Gap", "Lag", "Message", "Quote", "Reset",
        "Resumed", "Source", "Subscription", "Synced", "Trade",
    ),
    "marketfeed.client.publishers": (
        "BlockingPublisher", "Publisher", "PublisherStatistics", "UnsentError", "publisher",
    ),
    "marketfeed.client.publishing": ("Cut", "PublisherFullError"),
    "marketfeed.client.statistics": ("Latency", "Statistics"),
    "marketfeed.errors": ("ConnectError", "FeedClosedError", "RefusedError", "RequestRefusedError"),
}  # fmt: skip
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "Alert",
    "Batch",
    "BlockingFeed",
    "BlockingPublisher",
    "Closing",
    "ConnectError",
    "Connected",
    "Cut",
    "Disconnected",
    "Error",
    "Feed",
    "FeedClosedError",
    "Gap",
    "Lag",
    "Latency",
    "Message",
    "Publisher",
    "PublisherFullError",
    "PublisherStatistics",
    "Quote",
    "RefusedError",
    "RequestRefusedError",
    "Reset",
    "Resumed",
    "Source",
    "State",
    "Statistics",
    "Subscription",
    "Synced",
    "Trade",
    "UnsentError",
    "connect",
    "publisher",
    "stream",
]


def __getattr__(name: str) -> Any:
    """Import ``name`` from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'marketfeed.client' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # it is not asked for again
    return value
