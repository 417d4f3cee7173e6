"""Alerts while engines, workers and consumers are killed at random moments.

MARKETFEED_PROVE=1 (`make prove`) does 200 kills over 10,000 alerts, and leaves one of every hundred
deliveries unacknowledged. `pytest -s` prints the figures.
"""

from __future__ import annotations

import os

import pytest

from tests.support.alert_storm import CONSUMER, ENGINE, WORKER, Storm

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
SHORT = [
    ({ENGINE: 10, CONSUMER: 2}, 300),
    ({ENGINE: 2, WORKER: 2, CONSUMER: 1}, 150),
    ({CONSUMER: 5}, 200),
]
LONG = [
    ({ENGINE: 200, CONSUMER: 50}, 10_000),
    ({ENGINE: 100, WORKER: 100, CONSUMER: 50}, 10_000),
    ({CONSUMER: 200}, 10_000),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "alerts"), LONG if PROVE else SHORT, ids=["engines", "workers", "consumers"]
)
def test_no_alert_is_lost_and_none_comes_after_its_answered_acknowledgement(tmp_path, kills, alerts):
    figures = Storm(tmp_path, kills, alerts, ignored=0.01 if PROVE else 0.0).run()
    print(figures)
    assert figures.problems == []
    assert figures.alerts >= alerts
    assert figures.kills.total() == sum(kills.values())
