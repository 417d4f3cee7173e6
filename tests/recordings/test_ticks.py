"""Ticks of recordings for rules: in order, complete, and with the times at which they arrived."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import numpy as np
import pytest

from marketfeed.core.binary import messages_frame, quotes_frame, symbols_frame, trades_frame
from marketfeed.core.records import FLAG_SNAPSHOT
from marketfeed.errors import ConfigError, ContentError, RecordingError
from marketfeed.ingest.registry import feed_specs
from marketfeed.recordings.ticks import MarketfeedTicks, ReplayedTicks
from tests.support.recordings import NAMES, START_NS, S, quotes, recording, trades, write

MAX_SYMBOLS = 8
CSV = {"format": "csv", "symbol": "A", "columns": {"time": 0, "price": 1, "size": 2}, "time": "s"}


def all_of(ticks):
    """Return all quotes and all trades."""
    steps = list(ticks.steps())
    return tuple(np.concatenate([step[channel] for step in steps]) for channel in (0, 1))


def replayed(folder, **settings):
    (spec,) = feed_specs([{"type": "replay", "name": "recording", **settings}])
    return ReplayedTicks(spec, folder, MAX_SYMBOLS)


# Recordings of marketfeed.


@pytest.mark.parametrize("name", ["day.mfr", "day.mfr.zst"])
def test_a_recording_gives_its_ticks_with_their_times_in_order_of_both_channels(tmp_path, name):
    q, t = recording(tmp_path / name)
    ticks = MarketfeedTicks(tmp_path / name, MAX_SYMBOLS)
    found_q, found_t = all_of(ticks)
    q["g"], t["g"] = 2 * np.arange(len(q)) + 1, 2 * np.arange(len(t)) + 2
    assert found_q.tobytes() == q.tobytes()
    assert found_t.tobytes() == t.tobytes()
    assert ticks.names() == list(NAMES)
    assert (ticks.share(), ticks.damage(), ticks.notes()) == (1.0, "", [])


def test_connections_follow_each_other_though_their_numbers_begin_again(tmp_path):
    frames = []
    for connection, names in enumerate(({"A": 0, "B": 1}, {"B": 0, "C": 1})):
        frames += [
            symbols_frame(names, 10 * connection + 1),
            quotes_frame(quotes(4, 2, seed=connection), 10 * connection + 2),
            trades_frame(trades(3, 2, first_g=9), 10 * connection + 2),
        ]
    ticks = MarketfeedTicks(write(tmp_path / "day.mfr", frames), MAX_SYMBOLS)
    found_q, found_t = all_of(ticks)
    assert found_q["g"].tolist() == [1, 2, 3, 4, 8, 9, 10, 11]
    assert found_t["g"].tolist() == [5, 6, 7, 12, 13, 14]
    assert ticks.names() == ["A", "B", "C"]


def test_snapshots_and_symbols_without_a_place_are_left_out(tmp_path):
    q, t = quotes(50, 3), trades(50, 3)
    q["flags"][:10] = FLAG_SNAPSHOT
    frames = [
        symbols_frame({"A": 0, "B": 1, "C": 2}, 1),
        messages_frame([b'{"T":"gap","S":"B","channel":"quotes","lost":7,"n":9}'], 2),
        quotes_frame(q, 3),
        trades_frame(t, 3),
    ]
    ticks = MarketfeedTicks(write(tmp_path / "day.mfr", frames), 2)
    found_q, found_t = all_of(ticks)
    assert len(found_q) == np.count_nonzero(q["symbol"][10:] < 2)
    assert len(found_t) == np.count_nonzero(t["symbol"] < 2)
    assert ticks.names() == ["A", "B"]
    beyond = np.count_nonzero(q["symbol"] == 2) + np.count_nonzero(t["symbol"] == 2)
    assert ticks.notes() == [
        "the recording has 1 gap, of 7 ticks",
        f"left out {beyond} ticks of symbols beyond engine.max_symbols",
    ]


def test_a_recording_that_was_cut_gives_what_is_before_the_cut(tmp_path):
    path = tmp_path / "day.mfr"
    recording(path, 300)
    path.write_bytes(path.read_bytes()[:-10])
    ticks = MarketfeedTicks(path, MAX_SYMBOLS)
    found_q, found_t = all_of(ticks)
    assert (len(found_q), len(found_t)) == (296, 300)  # the last frame is cut: 4 quotes
    assert "cut short" in ticks.damage()


def test_what_is_no_recording_is_refused(tmp_path):
    (tmp_path / "day.mfr").write_bytes(b"something else entirely, and long enough")
    with pytest.raises(RecordingError, match="not a recording"):
        MarketfeedTicks(tmp_path / "day.mfr", MAX_SYMBOLS)


# Other formats.


def test_the_recorded_time_is_the_time_of_arrival(tmp_path):
    (tmp_path / "day.csv").write_text(
        f"{START_NS // S},10.5,1\n"
        f"{START_NS // S + 2},10.75,-1\n"  # a size that an engine rejects
        f"{START_NS // S + 3},10.25,2\n"
        f"{START_NS // S + 1},10.0,3\n"  # back in time
    )
    ticks = replayed(tmp_path, path="day.csv", **CSV)
    found_q, found_t = all_of(ticks)
    assert len(found_q) == 0
    assert found_t["size"].tolist() == [1, 2, 3]
    assert found_t["ts_recv"].tolist() == [START_NS, START_NS + 3 * S, START_NS + 3 * S]
    assert found_t["g"].tolist() == [1, 2, 3]
    assert ticks.names() == ["A"]
    assert (ticks.share(), ticks.damage()) == (None, "")
    assert len(ticks.notes()) == 1


def test_quotes_and_trades_keep_their_order(tmp_path):
    names = {"A": 0}
    q, t = quotes(40, 1), trades(40, 1)
    q["g"], t["g"] = 2 * q["g"], 2 * t["g"] + 1
    q["ts_recv"] = START_NS + np.arange(40) * S
    t["ts_recv"] = q["ts_recv"] + 5
    write(tmp_path / "day.mfr", [symbols_frame(names, 1), quotes_frame(q, 2), trades_frame(t, 2)])
    ticks = replayed(tmp_path, path="day.mfr", format="marketfeed")
    found_q, found_t = all_of(ticks)
    assert found_q["g"].tolist() == list(range(1, 81, 2))
    assert found_t["g"].tolist() == list(range(2, 81, 2))
    assert found_q["ts_recv"].tolist() == q["ts_recv"].tolist()
    assert found_t["ts_recv"].tolist() == t["ts_recv"].tolist()


def test_a_file_that_was_cut_gives_what_is_before_the_cut(tmp_path):
    rows = "".join(f"{START_NS // S + number},10.5,1\n" for number in range(20_000))
    (tmp_path / "day.csv.gz").write_bytes(gzip.compress(rows.encode())[:-2000])
    ticks = replayed(tmp_path, path="day.csv.gz", **CSV)
    _, found_t = all_of(ticks)
    assert 0 < len(found_t) < 20_000
    assert "day.csv.gz" in ticks.damage()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"path": "gone.gz"}, ConfigError),
        ({"path": "day.txt"}, ContentError),
        ({"path": "day.txt", "format": "odd"}, ConfigError),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, settings, error):
    (tmp_path / "day.txt").write_text("no ticks\n")
    with pytest.raises(error) as caught:
        replayed(tmp_path, **settings)
    assert len(str(caught.value).splitlines()) == 1


def test_a_decoder_that_fails_ends_the_ticks_with_a_reason(tmp_path):
    def chunks():
        raise RuntimeError("odd\nbytes")
        yield

    made = SimpleNamespace(chunks=chunks, damage="")
    spec = SimpleNamespace(name="recording", settings=None, factory=lambda settings, intake: made)
    ticks = ReplayedTicks(spec, tmp_path, MAX_SYMBOLS)  # type: ignore[arg-type]
    assert list(ticks.steps()) == []
    assert ticks.damage() == "unreadable after 0 ticks: RuntimeError: odd bytes"
