"""State of a recording in progress: completeness and the cursor to resume from."""

from __future__ import annotations

import numpy as np
import pytest

from marketfeed.core.binary import FrameParser, quotes_frame, symbols_frame
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTE
from marketfeed.recordings.progress import RecordingProgress

BEGUN = {"T": "success", "msg": "connected", "epoch": "e1"}
SYNCED = {"T": "synced", "cursor": "e1:0"}


def quotes(*ns, snapshot=False):
    records = np.zeros(len(ns), QUOTE)
    records["n"] = records["g"] = ns
    records["flags"] = FLAG_SNAPSHOT * snapshot
    parser = FrameParser()
    parser.feed(quotes_frame(records, 1))
    (frame,) = parser
    return frame


def recorded(*what):
    one = RecordingProgress()
    for message in what:
        if isinstance(message, dict):
            one.note(message)
        else:
            one.take(message)
    return one


@pytest.mark.parametrize(
    ("what", "complete"),
    [
        ([BEGUN, SYNCED, quotes(1, 2, 3)], True),
        ([BEGUN, quotes(7, snapshot=True), SYNCED, quotes(8)], True),
        ([BEGUN, SYNCED, quotes(1, 3)], False),
        ([BEGUN, SYNCED, quotes(1), {"T": "lag", "on": True}], False),  # current losses are not announced yet
        (
            [BEGUN, SYNCED, quotes(1), {"T": "lag", "on": True}, {"T": "lag", "on": False, "conflated": 0}],
            True,
        ),
        ([BEGUN, SYNCED, quotes(1), {**BEGUN, "epoch": "e2"}], False),
    ],
)
def test_it_is_complete_if_every_tick_is_there(what, complete):
    assert recorded(*what).complete == complete


def test_a_connection_cut_before_the_first_tick_goes_on_from_there():
    # Without a cursor, a snapshot with any n would replace the missed ticks.
    assert recorded(BEGUN).cursor is None
    assert recorded(BEGUN, SYNCED).cursor == "e1:0"
    assert recorded(BEGUN, SYNCED, quotes(1, 2)).cursor == "e1:2"
    assert recorded(BEGUN, SYNCED, {**BEGUN, "epoch": "e2"}).cursor is None


def test_a_cursor_is_sent_back_as_it_came_but_for_the_g_of_a_later_tick():
    of_several = {"T": "synced", "cursor": "a:17,b:30"}  # of a later version
    assert recorded(BEGUN, of_several).cursor == "a:17,b:30"
    assert recorded(BEGUN, of_several, quotes(31)).cursor == "a:17,b:31"
    assert recorded(BEGUN, SYNCED, quotes(31), {"T": "synced", "cursor": "e1:40"}).cursor == "e1:40"


def test_what_comes_after_a_cut_moves_the_cursor_only_if_all_of_it_resumes():
    cut = [BEGUN, SYNCED, quotes(1, 2), BEGUN]
    resumed = {"T": "subscription", "resumed": True}
    assert recorded(*cut, resumed, quotes(3)).cursor == "e1:3"
    assert recorded(*cut, {**resumed, "resumed": False}, quotes(3)).cursor == "e1:2"


def test_names_of_all_connections_are_kept():
    one = RecordingProgress()
    for symbols in ({"A": 0}, {"B": 1}):
        parser = FrameParser()
        parser.feed(symbols_frame(symbols, 1))
        for frame in parser:
            one.take(frame)
        one.announced = {}
    assert one.names == {"A", "B"}


def test_a_recording_of_which_nothing_was_written_has_no_ratio():
    assert RecordingProgress().figures(raw_bytes=10_000, written_bytes=0) == "0 quotes, 0 trades  ·  0.0 MB"
