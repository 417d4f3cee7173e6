"""Alerts while the engine, its workers and consumers are killed at random moments.

MARKETFEED_PROVE=1 (`make prove`) does 200 kills over 10,000 alerts.
"""

from __future__ import annotations

import os

import pytest

from tests.support.alert_storm import Storm

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))


@pytest.mark.parametrize(("workers", "kills", "alerts"), [(0, 10, 300), (2, 4, 150)])
def test_no_alert_is_lost_and_none_comes_after_its_answered_acknowledgement(tmp_path, workers, kills, alerts):
    kills, alerts = (200, 10_000) if PROVE else (kills, alerts)
    figures = Storm(tmp_path, kills=kills, alerts=alerts, workers=workers, ignored=PROVE * 0.01).run()
    print(figures)
    assert figures.problems == []
    assert figures.alerts >= alerts
    assert sum(figures.engine_kills.values()) + figures.worker_kills == kills
