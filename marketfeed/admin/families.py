"""Families of metrics, with the engine's prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

PREFIX: Final = "marketfeed_"
Samples = Mapping[Any, float]  # by the values of the labels, in order


def gauge(name: str, text: str, labels: str, samples: Samples) -> Metric:
    """Return a gauge; ``labels`` are their names, separated by spaces."""
    return _filled(GaugeMetricFamily(PREFIX + name, text, labels=labels.split()), samples)


def counter(name: str, text: str, labels: str, samples: Samples) -> Metric:
    """Return a counter; ``labels`` are their names, separated by spaces."""
    return _filled(CounterMetricFamily(PREFIX + name, text, labels=labels.split()), samples)


def histogram(
    name: str, text: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> HistogramMetricFamily:
    """Return a histogram of ``counts``, which are per bucket of ``bounds`` and one above, not cumulative."""
    return histograms(name, text, "", bounds, {(): (counts, total)})


def histograms(
    name: str,
    text: str,
    labels: str,
    bounds: Sequence[float],
    samples: Mapping[Any, tuple[Sequence[int], float]],
) -> HistogramMetricFamily:
    """Return a histogram per entry of ``samples``, each with its counts, as above, and its sum."""
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels.split())
    edges = [*map(str, bounds), "+Inf"]
    for values, (counts, total) in samples.items():
        running = accumulate(counts or [0] * len(edges))
        buckets = [(edge, float(n)) for edge, n in zip(edges, running, strict=True)]
        family.add_metric(values, buckets, total)
    return family


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for values, value in samples.items():
        family.add_metric(values, value)
    return family
