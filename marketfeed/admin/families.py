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
    family = HistogramMetricFamily(PREFIX + name, text)
    labels = [*map(str, bounds), "+Inf"]
    running = accumulate(counts or [0] * len(labels))
    family.add_metric([], [(label, float(n)) for label, n in zip(labels, running, strict=True)], total)
    return family


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for values, value in samples.items():
        family.add_metric(values, value)
    return family
