"""State of a recording in progress: counts and completeness."""

from __future__ import annotations

import numpy as np
import pytest

from marketfeed.client.batch import Batch
from marketfeed.client.messages import Connected, Disconnected, Gap, Lag
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTE
from marketfeed.recordings.progress import RecordingProgress

BEGUN = Connected("e1", "s1", 1, {})
RESTARTED = Connected("e2", "s2", 1, {})
CUT = Disconnected(1006, "connection lost", 500)


def quotes(*ns, snapshot=False):
    records = np.zeros(len(ns), QUOTE)
    records["n"] = records["g"] = ns
    records["flags"] = FLAG_SNAPSHOT * snapshot
    return Batch([], 0, b"as received", records)


def recorded(*what):
    one = RecordingProgress()
    for each in what:
        if isinstance(each, Batch):
            one.take(each)
        else:
            one.note(each)
    return one


@pytest.mark.parametrize(
    ("what", "complete"),
    [
        ([BEGUN, quotes(1, 2, 3)], True),
        ([BEGUN, quotes(7, snapshot=True), quotes(8)], True),
        ([BEGUN, quotes(1, 3)], False),
        ([BEGUN, quotes(1), Lag(True)], False),  # current losses are not announced yet
        ([BEGUN, quotes(1), Lag(True), Lag(False, 0)], True),
        ([BEGUN, quotes(1), CUT, BEGUN, quotes(2)], True),
        ([BEGUN, quotes(1), CUT, BEGUN, quotes(4, snapshot=True)], False),
        ([BEGUN, quotes(1), CUT, RESTARTED], False),
    ],
)
def test_it_is_complete_if_every_tick_is_there(what, complete):
    assert recorded(*what).complete == complete


def test_gaps_that_the_engine_announced_are_counted_and_those_that_the_client_found_are_missing_ticks():
    announced, found = (Gap(S="A", channel="quotes", lost=3, n=5, announced=told) for told in (True, False))
    one = recorded(BEGUN, quotes(1), announced, found, quotes(5))
    assert (one.announced_gaps, one.missing) == (1, 3)


def test_names_of_all_connections_are_kept_and_ids_of_the_last_one():
    one = RecordingProgress()
    for symbols in ({"A": 0}, {"B": 1}):
        one.note(BEGUN)
        one.take(Batch([], 0, b"", symbols=symbols))
    assert (one.names, one.announced) == ({"A", "B"}, {"B": 1})


def test_ends_of_connections_and_of_engines_are_counted():
    one = recorded(BEGUN, CUT, CUT, BEGUN, CUT, RESTARTED)
    assert (one.reconnects, one.restarts) == (3, 1)


def test_a_recording_of_which_nothing_was_written_has_no_ratio():
    assert RecordingProgress().figures(raw_bytes=10_000, written_bytes=0) == "0 quotes, 0 trades  ·  0.0 MB"
