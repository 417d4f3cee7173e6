"""Leases, mirrors and writers with one fault each, which the simulations have to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.cluster.lease import MARGIN_NS, Lease
from marketfeed.cluster.mirror import Mirror
from tests.cluster.virtual_rings import CheckedWriter

if TYPE_CHECKING:
    from marketfeed.cluster.frames import Header
    from marketfeed.cluster.lease_actions import Action


class EagerLease(Lease):
    """Holds until the end of the lease, without the margin."""

    def holds(self, now_ns: int) -> bool:
        return self._holding and self._head < 0 and now_ns < self._until_ns + MARGIN_NS

    def _ask(self, now_ns: int, actions: list[Action]) -> None:
        self._until_ns += MARGIN_NS
        super()._ask(now_ns, actions)
        self._until_ns -= MARGIN_NS


class HastyLease(Lease):
    """Claims after half the lease."""

    def _due(self, sighting, now_ns: int):
        return super()._due(sighting, now_ns if self._holding else now_ns + self._lease_ns // 2)


class DeafLease(Lease):
    """Does not look at the terms of others."""

    def saw(self, term: int, epoch: str, now_ns: int) -> list[Action]:
        return []


class OpenMirror(Mirror):
    """Takes frames of lower terms."""

    def _is_ours(self, header: Header, now_ns: int, out: list) -> bool:
        return header.term < self.term or super()._is_ours(header, now_ns, out)


class SilentWriter(CheckedWriter):
    """Adopts a state without ``base``: older ticks in the slots of the hole are taken for its ticks."""

    def adopt(self, quotes, trades, head, first_ns=None) -> None:
        super().adopt(quotes, trades, head, first_ns)
        self.rings.view.base[:] = 0
