"""Metrics in Prometheus's text format, from counters that the engine has anyway.

A scrape reads plain integers, those of sessions from the statistics of the session server. Nothing is
counted per tick for metrics only.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as MetricSource

from marketfeed import __version__
from marketfeed.admin.access_metrics import access_metrics
from marketfeed.admin.alert_metrics import alert_metrics
from marketfeed.admin.breaker_metrics import breaker_metrics, breakers
from marketfeed.admin.cluster_metrics import cluster_metrics
from marketfeed.admin.families import PREFIX, Samples, counter, gauge, histogram, histograms
from marketfeed.admin.health import KINDS, Health
from marketfeed.admin.usage_metrics import usage_metrics
from marketfeed.core.records import CHANNELS
from marketfeed.fanout.figures import FLUSH_BOUNDS_S
from marketfeed.fanout.ledger import Ledger
from marketfeed.fanout.round_trips import ROUND_TRIP_BOUNDS_S
from marketfeed.gateway.limits import DURATION_BOUNDS_S, Admission
from marketfeed.gateway.protocol import VERSION
from marketfeed.ingest.supervise import FeedState
from marketfeed.server.process_usage import cpu_s, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from marketfeed.admin.cluster import ClusterSource
    from marketfeed.latency.aggregator import Aggregator
    from marketfeed.server.access_control import AccessControl
    from marketfeed.server.alerting import Alerting
    from marketfeed.server.conditions import Condition
    from marketfeed.server.lives import Lives
    from marketfeed.server.metering import Metering
    from marketfeed.server.overview import EngineOverview
    from marketfeed.server.stats import ServerStats
    from marketfeed.server.tap_listener import Taps

FRAME_BOUNDS = tuple(2**bits for bits in range(6, 21))
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sources:
    """The objects that metrics are read from."""

    lives: Lives
    taps: Taps
    aggregator: Aggregator
    admission: Admission
    health: Health
    alerting: Alerting
    metering: Metering
    overview: EngineOverview
    access: AccessControl | None = None
    cluster: ClusterSource | None = None


async def exposition(sources: Sources) -> bytes:
    """Return all metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    dead = await sources.alerting.dead_letter_counts()
    registry.register(_Snapshot(sources, await sources.lives.statistics(), dead))
    return generate_latest(registry)


class _Snapshot(MetricSource):
    """The metrics of one scrape."""

    def __init__(self, sources: Sources, report: ServerStats, dead: Mapping[str, int]) -> None:
        self._sources = sources
        self._report = report
        self._dead = dead

    def collect(self) -> Iterable[Metric]:
        yield from self._engine()
        yield from self._sessions()
        yield from self._ticks()
        yield from self._latencies()
        yield from self._feeds()
        yield from alert_metrics(self._sources.alerting, self._sources.lives.rings.head(), self._dead)
        if self._sources.access is not None:
            yield from access_metrics(self._sources.access)
        yield from usage_metrics(self._sources.metering)
        link = None
        if self._sources.cluster is not None:
            figures = self._sources.cluster.figures()
            link = figures.link
            yield from cluster_metrics(figures)
        sources = self._sources
        peers = breakers(sources.lives.roster.supervisors, sources.access, sources.alerting.escalator, link)
        yield from breaker_metrics(peers)
        yield from self._process()

    def _engine(self) -> Iterable[Metric]:
        build = (__version__, platform.python_version(), str(VERSION))
        yield gauge("build_info", "1, labelled with the versions.", "version python protocol", {build: 1})
        health = self._sources.health
        ready = health.status() == "ready"
        yield gauge("ready", "1 if subscribers can be served, as in /readyz.", "", {(): ready})
        text = "1 for each condition that makes the engine not ready."
        yield gauge("problem", text, "kind subject", _present(health.problems()))
        text = "1 for each condition under which subscribers are still served."
        yield gauge("warning", text, "kind subject", _present(health.warnings()))

    def _sessions(self) -> Iterable[Metric]:
        report = self._report
        yield gauge("sessions", "Sessions now.", "transport tier", report.sessions)
        yield gauge(
            "clients", "Sessions now, by protocol and SDK of the client.", "protocol sdk", report.clients
        )
        lagging = dict.fromkeys(((tier,) for _, tier in report.sessions), 0)
        lagging |= {(tier,): n for tier, n in report.lagging.items()}
        yield gauge("lagging_sessions", "Sessions that lag now.", "tier", lagging)
        most = self._sources.admission.limits.sessions
        yield gauge("sessions_limit", "limits.sessions.", "", {(): most})
        yield histogram(
            "session_seconds",
            "Durations of ended sessions.",
            DURATION_BOUNDS_S,
            report.durations,
            report.duration_s,
        )
        trips = {(t,): (n, report.round_trip_s.get(t, 0.0)) for t, n in report.round_trips.items()}
        text = "Round trips of WebSocket pings."
        yield histograms("round_trip_seconds", text, "tier", ROUND_TRIP_BOUNDS_S, trips)
        yield counter("accepted_total", "Sessions that began.", "", {(): report.accepted})
        text = "Most handshakes in one second, summed over processes."
        yield gauge("handshakes_shown_per_s", text, "", {(): report.handshakes_per_s})
        closes = {(str(code),): n for code, n in report.closes.items()}
        yield counter("closes_total", "Ended sessions, by close code.", "code", closes)
        refused = {(reason,): n for reason, n in report.refused.items()}
        yield counter("refused_total", "Connections refused before a session, by reason.", "reason", refused)
        requests = {(route or "none", str(status)): n for (route, status), n in report.requests.items()}
        yield counter(
            "http_requests_total",
            "HTTP requests to the gateway, by route and status.",
            "route status",
            requests,
        )
        yield gauge("waiting_polls", "Long polls that wait now.", "", {(): report.polls})
        errors = {(str(code),): n for code, n in report.errors.items()}
        presented = {(result,): n for result, n in report.authentications.items()}
        yield counter("auth_total", "Tokens, keys and tickets presented, by result.", "result", presented)
        yield counter("errors_total", "Error messages sent, by code.", "code", errors)

    def _ticks(self) -> Iterable[Metric]:
        report = self._report
        for name in (field.name for field in fields(Ledger)):
            samples = {(tier,): getattr(ledger, name) for tier, ledger in report.ledgers.items()}
            if name == "pending":
                yield gauge("pending", "Ticks matched and not accounted for yet.", "tier", samples)
            else:
                yield counter(f"{name}_total", f"Ticks {name}; see the ledger.", "tier", samples)
        yield counter("frames_total", "Frames offered to sockets.", "", {(): report.frames})
        sizes = _by_size(report.frame_sizes)
        yield histogram("frame_bytes", "Sizes of frames of flushes.", FRAME_BOUNDS, sizes, report.sent_bytes)
        text = "Time to collect, encode and send one flush."
        yield histogram("flush_seconds", text, FLUSH_BOUNDS_S, report.flush_counts, report.flush_seconds)
        lives = self._sources.lives
        rings, count = lives.rings, len(lives.symbols)
        laps = {
            (name,): int((rings.published(c, count) // rings.depth).sum()) for c, name in enumerate(CHANNELS)
        }
        yield counter("ring_laps_total", "Ring wrap-arounds, all symbols.", "channel", laps)
        yield gauge("published_g", "g of the newest tick in the rings.", "", {(): rings.head()})
        yield gauge("symbols", "Names in the symbol table.", "", {(): count})
        yield gauge("epoch_info", "1, labelled with the epoch.", "epoch", {(rings.epoch,): 1})
        source = lives.source
        stale = {} if source is None else {(source.shard,): source.state == "stale"}
        yield gauge("source_stale", "1 while the source of a shard's ticks is not heard.", "shard", stale)
        text = "Changes of the state of the source of ticks."
        yield counter("source_changes_total", text, "", {(): lives.source_changes})
        yield counter("epochs_total", "Epochs that followed another.", "", {(): lives.exchanges})
        yield gauge("groups", "Groups that share frames.", "", {(): report.groups})

    def _latencies(self) -> Iterable[Metric]:
        aggregator = self._sources.aggregator
        text = "Latency of every delivery, by hop; updated every latency.interval_s."
        hops = HistogramMetricFamily(PREFIX + "hop_seconds", text, labels=["hop", "tier"])
        beyond = {}
        for key, sums in aggregator.sums.items():
            hops.add_metric(key, *aggregator.buckets(key))
            beyond[key] = sums.beyond
        yield hops
        yield counter("hop_beyond_total", "Latencies above 60 s, which are in no bucket.", "hop tier", beyond)
        text = "Waits of the self-probe for a tick that exceeded latency.interruption_s."
        seen = {(tier,): n for tier, n in self._report.interruptions.items()}
        yield counter("probe_interruptions_total", text, "tier", seen)
        waited = {(tier,): s for tier, s in self._report.interrupted_s.items()}
        yield counter("probe_interrupted_seconds_total", "Total duration of these waits.", "tier", waited)
        unplaced = {(tier,): n for tier, n in self._report.unplaced.items()}
        yield counter(
            "unplaced_total",
            "Deliveries of batches too old for ring and wait to be measured.",
            "tier",
            unplaced,
        )
        file = aggregator.log
        yield gauge("latency_log_writable", "1 if the last write succeeded.", "", {(): file.problem is None})
        yield counter("latency_log_failures_total", "Writes that failed.", "", {(): file.failures})
        yield counter("latency_log_bytes_total", "Bytes written.", "", {(): file.written_bytes})

    def _feeds(self) -> Iterable[Metric]:
        ticks: dict[tuple[str, ...], float] = {}
        events: dict[tuple[str, ...], float] = {}
        failures: dict[tuple[str, ...], float] = {}
        states: dict[tuple[str, ...], float] = {}
        for supervisor in self._sources.lives.roster.supervisors:
            intake = supervisor.intake
            for channel, count in zip(CHANNELS, intake.ticks, strict=True):
                ticks[intake.name, channel] = count
            for event, count in intake.events.items():
                events[intake.name, event] = count
            failures[(intake.name,)] = supervisor.failures
            for state in FeedState:
                states[intake.name, state.value] = supervisor.state() is state
        yield counter("ticks_total", "Ticks received from feeds.", "feed channel", ticks)
        yield counter(
            "feed_events_total", "Events that feeds counted, such as invalid lines.", "feed event", events
        )
        yield counter(
            "feed_failures_total", "Failures of feeds; each is followed by a restart.", "feed", failures
        )
        yield gauge("feed_state", "1 for the current state of a feed.", "feed state", states)

    def _process(self) -> Iterable[Metric]:
        report = self._report
        runs = {(str(g),): n for g, n in enumerate(report.gc_collections)}
        seconds = {(str(g),): n for g, n in enumerate(report.gc_seconds)}
        yield counter("gc_collections_total", "Garbage collections.", "generation", runs)
        yield counter("gc_seconds_total", "Time in garbage collections.", "generation", seconds)
        yield gauge("gc_longest_seconds", "The longest garbage collection.", "", {(): report.gc_longest_s})
        longest = {(): report.gc_longest_cpu_s}
        yield gauge("gc_longest_cpu_seconds", "CPU time of the longest garbage collection.", "", longest)
        cpu, resident = dict(report.cpu_s), dict(report.resident_bytes)
        if "engine" not in resident:  # with workers, the session server reports only theirs
            cpu["engine"], resident["engine"] = cpu_s(), resident_bytes()
        text = "CPU time of a process and its successors."
        yield counter("cpu_seconds_total", text, "process", {(name,): s for name, s in cpu.items()})
        text = "Resident memory of a process, including shared memory."
        yield gauge("resident_bytes", text, "process", {(name,): n for name, n in resident.items()})
        workers = {(worker,): n for worker, n in report.workers.items()}
        yield gauge("worker_connections", "Connections now, by worker process.", "worker", workers)
        restarts = {(): report.worker_restarts}
        yield counter(
            "worker_restarts_total", "Workers that ended unexpectedly and were replaced.", "", restarts
        )
        yield counter(
            "failures_total", "Sessions closed because of an error in the fan-out.", "", {(): report.failures}
        )
        taps = self._sources.taps
        yield gauge("taps", "Taps connected now.", "", {(): len(taps)})
        yield counter("taps_total", "Taps that connected.", "", {(): taps.accepted})
        refused = {(reason,): n for reason, n in taps.refused.items()}
        yield counter("taps_refused_total", "Taps that were refused, by reason.", "reason", refused)


def _present(conditions: Sequence[Condition]) -> Samples:
    """Return 1 for each of ``conditions``, and 0 for each kind, so that every series exists."""
    return dict.fromkeys(((kind, "") for kind in KINDS), 0) | {(c.kind, c.subject): 1 for c in conditions}


def _by_size(by_bits: list[int]) -> list[int]:
    """Return frames per bucket of FRAME_BOUNDS and one above, from counts by the bit length of their size."""
    first, last = (int(bound).bit_length() - 1 for bound in (FRAME_BOUNDS[0], FRAME_BOUNDS[-1]))
    counts = by_bits or [0] * (last + 2)
    return [sum(counts[: first + 1]), *counts[first + 1 : last + 1], sum(counts[last + 1 :])]
