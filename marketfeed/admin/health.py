"""Health of the engine: problems, which make it not ready, and warnings.

A problem means that subscribers cannot be served; a load balancer then removes the engine. All
other conditions are warnings. For example, a silent venue affects all engines behind a balancer;
removing all of them would cause an outage. Operators can make the state of a feed a problem with
``required = true``.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from marketfeed.ingest.supervise import STALE_S, FeedState
from marketfeed.server.conditions import Condition

if TYPE_CHECKING:
    from marketfeed.admin.cluster import ClusterSource
    from marketfeed.latency.aggregator import Aggregator
    from marketfeed.server.access_control import AccessControl
    from marketfeed.server.alerting import Alerting
    from marketfeed.server.lives import Lives
    from marketfeed.server.metering import Metering
    from marketfeed.server.tap_listener import Taps

# All kinds of conditions, for metrics. no_worker and alert_log are always problems, feed_* if the feed is
# required, cluster if the node has no ticks to serve.
KINDS: Final = (
    "no_worker",
    "feed_stale",
    "feed_down",
    "feed_failed",
    "worker_down",
    "workers_full",
    "alert_log",
    "alert_rule",
    "escalation",
    "jwks",
    "revocations",
    "latency_log",
    "usage",
    "tap",
    "symbols_full",
    "reload",
    "cluster",
)
_AMISS: Final = {
    FeedState.STALE: f"stale: it runs, and has brought no tick for {STALE_S:g} s",
    FeedState.DOWN: "down: it failed, and is run again after a delay",
    FeedState.FAILED: "failed, and is not run again",
}


class Phase(enum.Enum):
    """Phase of the engine's life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Health:
    """Collects the current problems and warnings from the parts of the engine."""

    def __init__(
        self,
        lives: Lives,
        aggregator: Aggregator,
        taps: Taps,
        alerting: Alerting,
        metering: Metering,
        access: AccessControl | None = None,
        cluster: ClusterSource | None = None,
    ) -> None:
        self._lives = lives
        self._aggregator = aggregator
        self._taps = taps
        self._alerting = alerting
        self._metering = metering
        self._access = access
        self._cluster = cluster
        self.phase = Phase.STARTING
        self.reload_failure: str | None = None  # why the configuration file could not be put in force

    def status(self) -> str:
        """Return ``"ready"``, ``"not ready"``, ``"starting"`` or ``"draining"``."""
        if self.phase is not Phase.SERVING:
            return str(self.phase.value)
        return "not ready" if self.problems() else "ready"

    def problems(self) -> list[Condition]:
        """Return why subscribers cannot be served."""
        found = [*self._feeds(required=True), *self._lives.problems()]
        if trouble := self._alerting.problem():
            found.append(Condition("alert_log", "", f"alert log: {trouble}"))
        return found if self._cluster is None else [*found, *self._cluster.problems()]

    def warnings(self) -> list[Condition]:
        """Return the conditions under which subscribers are still served."""
        found = [*self._feeds(required=False), *self._lives.warnings()]
        found += [
            Condition("alert_rule", name, f"alert rule {name} failed, and is off: {why}")
            for name, why in self._alerting.failed_rules().items()
        ]
        found += [
            Condition("escalation", name, f"escalation {name} {trouble}")
            for name, trouble in self._alerting.failing_escalations().items()
        ]
        for kind, trouble in (
            *({} if self._access is None else self._access.troubles()).items(),
            ("latency_log", self._aggregator.log.problem),
            ("usage", self._metering.problem),
            ("tap", self._taps.problem()),
            ("symbols_full", self._full()),
            ("reload", self.reload_failure),
        ):
            if trouble:
                found.append(Condition(kind, "", f"{kind.replace('_', ' ')}: {trouble}"))
        return found if self._cluster is None else [*found, *self._cluster.warnings()]

    def feeds(self) -> dict[str, str]:
        """Return the state of each feed, by name."""
        return {one.intake.name: one.state().value for one in self._lives.roster.supervisors}

    def _feeds(self, required: bool) -> list[Condition]:
        states = {one.intake.name: one.state() for one in self._lives.roster.supervisors}
        return [
            Condition(f"feed_{state.value}", name, f"feed {name} is {_AMISS[state]}")
            for name, state in states.items()
            if state in _AMISS and (name in self._lives.roster.required) is required
        ]

    def _full(self) -> str | None:
        symbols = self._lives.symbols
        most = symbols.max_symbols
        return f"engine.max_symbols is {most}: new names are left out" if len(symbols) >= most else None
