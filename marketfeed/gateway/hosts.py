"""Host names that a listener serves: protection against DNS rebinding.

An attacker may have the host name of a web page resolve to the engine's address. For a browser the page and
the engine are then one origin: it sends requests without Origin, and lets the page read the responses. Only
the Host header reveals the page's name. An IP address or ``localhost`` there cannot be the attacker's.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from marketfeed.core.authority import parse_authority

if TYPE_CHECKING:
    from collections.abc import Iterable


class Hosts:
    """Configured names: ``feed.example.com``, ``*.example.com`` (sub-domains only), ``*`` (any)."""

    def __init__(self, names: Iterable[str]) -> None:
        lower = {name.lower().removesuffix(".") for name in names}
        self._any = "*" in lower
        self._names = frozenset(lower)
        self._below = (".localhost", *(name[1:] for name in lower if name.startswith("*.")))

    def serves(self, authority: str) -> bool:
        """Return whether to serve a request for ``authority``, the value of a Host header."""
        return self._any or self.knows(authority)

    def knows(self, authority: str) -> bool:
        """Return whether ``authority`` is an IP address or a configured name; ``*`` does not count."""
        parsed = parse_authority(authority)
        if parsed is None:
            return False
        host = parsed.host
        return parsed.literal or host == "localhost" or host in self._names or host.endswith(self._below)


def own_names(configured: Iterable[str], bound: str) -> list[str]:
    """Return ``configured``, the host that the listener is bound to, and this machine's host name."""
    return [*configured, bound, socket.gethostname()]
