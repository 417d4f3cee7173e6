"""Kind ``alertmanager``: alerts of Alertmanager's API v2, posted to every peer of a cluster.

Alertmanagers do not tell each other of alerts, so each gets all of them. An alert that is not posted again
ends by itself there; so it is posted every ``resend_s``, with an end that lies ``LASTS`` times as far ahead.
Source: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import trio
from msgspec import Meta

from marketfeed.alerts.escalation.endpoint import Endpoint, Timeout, endpoint
from marketfeed.alerts.escalation.message import Message, Outcome, Setup, Verdict, rfc3339
from marketfeed.core.units import S
from marketfeed.errors import ConfigError, gathered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketfeed.core.breaker import BreakerStatistics

BATCH: Final = 256  # alerts of a post: about 100 KiB
LASTS: Final = 4  # as Prometheus does: three lost posts end nothing
_PATH: Final = "/api/v2/alerts"
# If the peers differ, the episode counts as the best of theirs: one that has it notifies people.
_BEST: Final = (Verdict.DELIVERED, Verdict.FAILED, Verdict.DEFERRED)


class AlertmanagerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of an ``[[alerts.escalate]]`` table of kind ``alertmanager``."""

    urls: Annotated[list[str], Meta(min_length=1, max_length=32)]  # of each peer, without /api/v2
    resend_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    allow_private: bool = False
    timeout_s: Timeout = 10.0


class Alertmanager:
    """Posts up to BATCH alerts at a time to all peers at once; delivered if one peer accepts them."""

    Config = AlertmanagerConfig
    batch: int = BATCH

    def __init__(self, config: AlertmanagerConfig, setup: Setup) -> None:
        found: list[str] = []
        self._peers: dict[str, Endpoint] = {}
        for index, url in enumerate(config.urls):
            with gathered(found):
                peer = endpoint(url, f"urls.{index}", config.allow_private, config.timeout_s, _PATH)
                if any(peer.url == other.url for other in self._peers.values()):
                    raise ConfigError(f"urls.{index}: must be another peer: {peer.url} is there already")
                # Peers behind one proxy differ in their paths alone.
                name = str(peer.url)
                self._peers[f"{name}#{index}" if name in self._peers else name] = peer
        if found:
            raise ConfigError(*found)
        self.resend_s: float | None = config.resend_s
        self._lasts_ns = round(LASTS * config.resend_s * S)

    async def send(self, messages: Sequence[Message], now_ns: int) -> Outcome:
        """Post ``messages`` to every peer; return the best outcome of all peers."""
        alerts = [alertmanager_alert(message, now_ns + self._lasts_ns) for message in messages]
        body = msgspec.json.encode(alerts)
        outcomes: list[Outcome] = []

        async def post(name: str, peer: Endpoint) -> None:
            answer = await peer.post(body, {}, now_ns)
            told = answer.outcome()
            outcomes.append(msgspec.structs.replace(told, reason=f"{name}: {told.reason}"))

        # A peer that hangs does not delay the others; the nursery ends with the slowest attempt.
        async with trio.open_nursery() as nursery:
            for name, peer in self._peers.items():
                nursery.start_soon(post, name, peer)
        return min(outcomes, key=lambda outcome: _BEST.index(outcome.verdict))

    def statistics(self, now_ns: int) -> Mapping[str, BreakerStatistics]:
        """Return the figures of each peer; ``now_ns`` is the event loop's clock."""
        return {name: peer.statistics(now_ns) for name, peer in self._peers.items()}


def alertmanager_alert(message: Message, until_ns: int) -> dict[str, Any]:
    """Return the alert of ``message`` as a ``postableAlert``.

    While the episode lasts, the alert ends at ``until_ns``, unless it is posted again. What changes from post
    to post is in the annotations: alerts with other labels are other alerts.
    """
    alert, end = message.alert, message.end
    began_ns = alert.r_ns or alert.t_ns
    labels = {"alertname": alert.rule, "severity": alert.severity, "symbol": alert.symbol, "key": alert.key}
    annotations = {
        "summary": message.summary,
        "value": "" if alert.value is None else f"{alert.value:.15g}",
        "threshold": "" if alert.threshold is None else f"{alert.threshold:.15g}",
    }
    if end is not None and end.cause == "resolved":
        annotations |= {"resolved_by": end.by, "comment": end.comment}
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": rfc3339(began_ns),
        # An end before the start is refused.
        "endsAt": rfc3339(max(until_ns if end is None else end.at_ns, began_ns)),
    }
