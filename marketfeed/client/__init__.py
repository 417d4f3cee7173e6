"""Client side of the wire protocol: connecting to an engine's stream, and publishing to a ``push`` feed."""

import importlib
from typing import Any

_HOMES = {
    "BlockingPublisher": "publishers",
    "Cut": "publishing",
    "Publisher": "publishers",
    "PublisherFullError": "publishing",
    "PublisherStatistics": "publishers",
    "UnsentError": "publishers",
    "publisher": "publishers",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is first asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
