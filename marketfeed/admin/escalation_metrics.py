"""Metrics of escalations: messages by outcome, what is pending, and the circuit breakers of peers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from marketfeed.admin.families import counter, gauge
from marketfeed.core.breaker import BreakerState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from marketfeed.alerts.escalator import Escalator

PHASES: Final = ("waiting", "sending", "sent", "ending")


def escalation_metrics(escalator: Escalator) -> Iterable[Metric]:
    """Return the metrics of all escalations; those of one end when its table is removed."""
    lanes = escalator.lanes
    text = "Messages of an escalation, by outcome; failed and deferred are attempts."
    outcomes = {
        (name, outcome): count
        for name, lane in lanes.items()
        for outcome, count in msgspec.structs.asdict(lane.figures).items()
    }
    yield counter("escalation_messages_total", text, "escalation outcome", outcomes)
    pending = {(name, phase): 0 for name in lanes for phase in PHASES}
    for name, lane in lanes.items():
        pending |= {
            (name, phase): count
            for phase, count in Counter(one.phase for one in lane.schedule.pending()).items()
        }
    text = "Episodes of an escalation: not sent yet, being sent, sent, and being ended."
    yield gauge("escalation_episodes", text, "escalation phase", pending)
    peers = {(name, peer): one for name, lane in lanes.items() for peer, one in lane.statistics().items()}
    text = "1 if the circuit breaker of a peer admits no message, or only one to probe it."
    broken = {labels: one.state is not BreakerState.CLOSED for labels, one in peers.items()}
    yield gauge("escalation_breaker_open", text, "escalation peer", broken)
    text = "Times that the circuit breaker of a peer opened."
    opened = {labels: one.opened for labels, one in peers.items()}
    yield counter("escalation_breaker_opened_total", text, "escalation peer", opened)
    text = "1 if an escalation's messages do not arrive, as in /readyz."
    failing = {(name,): lane.trouble() is not None for name, lane in lanes.items()}
    yield gauge("escalation_failing", text, "escalation", failing)
