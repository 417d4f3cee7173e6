"""Metrics of all circuit breakers, one family for every kind of peer.

Peers are those of the configuration, so their number is bounded. An escalation of a third party's type names
its addresses itself: MOST_ADDRESSES of them are shown.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from marketfeed.admin.families import counter, gauge
from marketfeed.core.breaker import BreakerState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from marketfeed.alerts.escalator import Escalator
    from marketfeed.cluster.link_state import LinkStatistics
    from marketfeed.core.breaker import BreakerStatistics
    from marketfeed.ingest.supervise import Supervisor
    from marketfeed.server.access_control import AccessControl

    Peers = Mapping[tuple[str, str], BreakerStatistics]  # by peer, and its address where it may have several

MOST_ADDRESSES: Final = 32  # of one escalation; an Alertmanager cluster has no more


def breakers(
    supervisors: Iterable[Supervisor],
    access: AccessControl | None,
    escalator: Escalator | None,
    link: LinkStatistics | None = None,
) -> Peers:
    """Return the figures of the circuit breakers of an engine, of all that it has."""
    found = {(f"feed:{one.intake.name}", ""): one.statistics() for one in supervisors}
    if access is not None and (fetches := access.fetches()) is not None:
        found["jwks", ""] = fetches
    if escalator is not None:
        for name, lane in escalator.lanes.items():
            for address, figures in islice(lane.statistics().items(), MOST_ADDRESSES):
                found[f"escalation:{name}", address] = figures
    if link is not None:
        found |= {(name, ""): one for name, one in link.breakers.items()}
    return found


def breaker_metrics(peers: Peers) -> Iterable[Metric]:
    """Return the metrics of the circuit breakers of ``peers``; those of a peer begin anew when it changes."""
    text = "1 for the current state of the circuit breaker of a peer."
    states = {
        (*peer, state.value): one.state is state for peer, one in peers.items() for state in BreakerState
    }
    yield gauge("breaker_state", text, "peer address state", states)
    text = "Times that the circuit breaker of a peer opened."
    yield counter("breaker_opened_total", text, "peer address", {p: one.opened for p, one in peers.items()})
    text = "Calls to a peer, by result; those refused were not made, because its circuit breaker was open."
    calls = {
        (*peer, result): getattr(one, result)
        for peer, one in peers.items()
        for result in ("succeeded", "failed", "refused")
    }
    yield counter("breaker_calls_total", text, "peer address result", calls)
