"""Which names a listener answers to, as a protection against DNS rebinding.

A web page may have its own name resolve to the engine's address, and is then of one origin with the engine
for a browser: requests come without Origin, answers may be read. What tells them apart is the Host header,
which has the page's name. An address or ``localhost`` there cannot be the name of somebody else's page.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from marketfeed.core.authority import parse_authority

if TYPE_CHECKING:
    from collections.abc import Iterable


class Hosts:
    """The names in a configuration: ``feed.example.com``, ``*.example.com`` (sub-domains alone), ``*``."""

    def __init__(self, names: Iterable[str]) -> None:
        lower = {name.lower().removesuffix(".") for name in names}
        self._any = "*" in lower
        self._names = frozenset(lower)
        self._below = (".localhost", *(name[1:] for name in lower if name.startswith("*.")))

    def serves(self, authority: str) -> bool:
        """Tell whether a request for ``authority``, a Host header's value, is to be served."""
        return self._any or self.knows(authority)

    def knows(self, authority: str) -> bool:
        """Tell whether ``authority`` is an address or a name that is known, without the help of ``*``."""
        parsed = parse_authority(authority)
        if parsed is None:
            return False
        host = parsed.host
        return parsed.literal or host == "localhost" or host in self._names or host.endswith(self._below)


def own_names(configured: Iterable[str], bound: str) -> list[str]:
    """Return ``configured``, the name that the listener is bound to if it is one, and this machine's."""
    return [*configured, bound, socket.gethostname()]
