"""Metrics of alerts: what the rules saw and found, consumers, and the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from marketfeed.admin.escalation_metrics import escalation_metrics
from marketfeed.admin.families import counter, gauge, histogram
from marketfeed.alerts.log import COMMIT_BUCKETS_S
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from marketfeed.alerts.dispatch import Dispatch
    from marketfeed.alerts.watcher import Watcher
    from marketfeed.server.alerting import Alerting


STATES: Final = ("live", "stalled", "away")


def alert_metrics(alerting: Alerting, head: int, dead: Mapping[str, int]) -> Iterable[Metric]:
    """Return the metrics of alerts; none if alerts are off.

    ``head`` is that of the rings, ``dead`` the number of dead letters by consumer.
    """
    watcher, log, dispatch = alerting.watcher, alerting.log, alerting.dispatch
    if log is None or dispatch is None:
        return
    if watcher is not None:
        yield from _watching(watcher, head)
    text = "Alerts in the log that are not delivered: inhibited by a rule, or silenced by a person."
    muted = {(mark,): count for mark, count in dispatch.muted.items()}
    yield counter("alerts_muted_total", text, "mark", muted)
    yield from _consumers(dispatch, dead)
    if alerting.escalator is not None:
        yield from escalation_metrics(alerting.escalator)
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


def _watching(watcher: Watcher, head: int) -> Iterable[Metric]:
    yield counter("alerts_total", "Alerts in the log, by rule and state.", "rule state", watcher.raised)
    yield counter("alert_ticks_total", "Ticks that the alert rules evaluated.", "", {(): watcher.ticks})
    text = "Ticks that the rings overwrote before the alert rules evaluated them."
    yield counter("alert_lost_ticks_total", text, "", {(): watcher.lost_ticks})
    text = "Ticks in the rings that the alert rules have not evaluated yet."
    yield gauge("alert_lag_ticks", text, "", {(): max(head - watcher.position, 0)})
    yield gauge("alerts_held", "Alerts that are not in the log yet.", "", {(): watcher.held})


def _consumers(dispatch: Dispatch, dead: Mapping[str, int]) -> Iterable[Metric]:
    """Return the metrics of durable consumers; those of a consumer end when it is dropped."""
    now_ns = time.time_ns()
    found = dispatch.statistics()
    for name, text in (
        ("delivered", "First deliveries of alerts to a consumer."),
        ("redelivered", "Repeated deliveries of alerts to a consumer."),
        ("acknowledged", "Alerts that a consumer has acknowledged."),
        ("parked", "Alerts that became dead letters of a consumer."),
    ):
        samples = {(consumer,): getattr(one, name) for consumer, one in found.items()}
        yield counter(f"alerts_{name}_total", text, "consumer", samples)
    text = "1 for the state that a consumer is in."
    states = {(name, state): one.state == state for name, one in found.items() for state in STATES}
    yield gauge("alert_consumer_state", text, "consumer state", states)
    text = "Alerts that were delivered to a consumer, and neither acknowledged nor parked."
    unacknowledged = {(name,): one.unacknowledged for name, one in found.items()}
    yield gauge("alerts_unacknowledged", text, "consumer", unacknowledged)
    text = "Age of a consumer's oldest unsettled alert; 0 if there is none."
    ages = {
        (name,): max(now_ns - one.oldest_ns, 0) / S if one.oldest_ns else 0 for name, one in found.items()
    }
    yield gauge("alerts_oldest_seconds", text, "consumer", ages)
    text = "Entries of the log that were not read for a consumer yet."
    waiting = {(name,): max(dispatch.newest - one.position, 0) for name, one in found.items()}
    yield gauge("alerts_waiting", text, "consumer", waiting)
    text = "Alerts that a consumer did not acknowledge in alerts.max_tries deliveries."
    yield gauge("alert_dead_letters", text, "consumer", {(name,): count for name, count in dead.items()})
