"""Metrics of alerts: what the rules saw and found, and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.admin.families import counter, gauge, histogram
from marketfeed.alerts.log import COMMIT_BUCKETS_S
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from marketfeed.server.alerting import Alerting


def alert_metrics(alerting: Alerting, head: int) -> Iterable[Metric]:
    """Return the metrics of alerts; none without rules. ``head`` is that of the rings."""
    watcher, log = alerting.watcher, alerting.log
    if watcher is None or log is None:
        return
    yield counter("alerts_total", "Alerts in the log, by rule and state.", "rule state", watcher.raised)
    yield counter("alert_ticks_total", "Ticks that the alert rules evaluated.", "", {(): watcher.ticks})
    text = "Ticks that the rings overwrote before the alert rules evaluated them."
    yield counter("alert_lost_ticks_total", text, "", {(): watcher.lost_ticks})
    text = "Ticks in the rings that the alert rules have not evaluated yet."
    yield gauge("alert_lag_ticks", text, "", {(): max(head - watcher.position, 0)})
    yield gauge("alerts_held", "Alerts that are not in the log yet.", "", {(): watcher.held})
    statistics = log.statistics()
    text = "1 if the last commit of the alert log succeeded."
    yield gauge("alert_log_writable", text, "", {(): statistics.problem is None})
    yield counter("alert_log_failures_total", "Commits that failed.", "", {(): statistics.failures})
    text = "Durations of commits of the alert log."
    yield histogram(
        "alert_commit_seconds",
        text,
        COMMIT_BUCKETS_S,
        statistics.commit_buckets,
        statistics.commit_ns / S,
    )
