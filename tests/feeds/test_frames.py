"""Recordings of `marketfeed record`: recorded ticks in order, from complete and truncated files."""

from __future__ import annotations

import gzip

import numpy as np
import orjson
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketfeed.core.binary import heartbeat_frame, messages_frame, quotes_frame, symbols_frame
from marketfeed.core.records import FLAG_SNAPSHOT
from marketfeed.feeds.replay import ReplayFeed
from marketfeed.testing import check_feed
from tests.support.frames import START_NS, quotes, steps, trades
from tests.support.replay import damaged, make, names, refusal, replayed


def prices(intake):
    """Return the prices of all ticks in order of publication; a tick's price is its g."""
    found = []
    for batch in intake.batches:
        q, t = iter(batch.quotes["bid_px"].tolist()), iter(batch.trades["price"].tolist())
        found += [next(t if channel else q) // 10**9 for channel in batch.channels.tolist()]
    return found


PLAY = {"path": "day.mfr", "format": "marketfeed"}


async def test_ticks_of_both_channels_come_as_recorded_in_their_order_and_time(autojump_clock, tmp_path):
    (tmp_path / "day.mfr").write_bytes(b"".join(steps(20)))
    feed, intake = make(tmp_path, **PLAY)
    await feed.run(intake.publish)
    assert prices(intake) == list(range(1, 301))
    assert intake.published_at_s == pytest.approx(np.arange(300) / 1000)
    assert set(names(intake, intake.quotes)) == {"A"}
    for got, recorded in ((intake.quotes, quotes(1)), (intake.trades, trades(3))):
        for field in set(got.dtype.names) & {"ts_event", "bid_sz", "ask_sz", "size", "side", "trade_id"}:
            assert got[field][0] == recorded[field][0]
        for field in ("g", "n", "ts_recv", "flags", "feed"):
            assert not got[field].any()


async def test_a_recording_passes_the_conformance_suite(autojump_clock, tmp_path):
    (tmp_path / "day.mfr").write_bytes(b"".join(steps(100)))
    await check_feed(ReplayFeed, PLAY, base=tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.integers(1, 400), st.sampled_from(["", ".gz", ".zst"]))
async def test_a_file_cut_anywhere_loses_no_whole_step(tmp_path, cut, packed):
    frames = steps(8)
    packer = zstandard.ZstdCompressor().compressobj()
    written = [
        packer.compress(frame) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if packed == ".zst"
        else frame
        for frame in frames
    ]
    data = b"".join(written)
    if packed == ".gz":
        data = gzip.compress(data)
    keep = data[: len(data) * cut // 400]
    path = tmp_path / f"day.mfr{packed}"
    path.write_bytes(keep)
    if packed == ".gz":
        import zlib

        whole = zlib.decompressobj(31).decompress(keep)
        sizes = np.cumsum([len(frame) for frame in frames])
        count = int((sizes <= len(whole)).sum())
    else:
        count = int((np.cumsum([len(frame) for frame in written]) <= len(keep)).sum())
    if not count:
        assert str(path) in refusal(tmp_path, path=path.name, format="marketfeed")
        return
    if count == 1:  # only the announcement of symbols
        _, said = await damaged(tmp_path, path=path.name, format="marketfeed")
        assert said.startswith(f"{path.name}: no tick in it: 1 frame")
        return
    intake = await replayed(tmp_path, path=path.name, format="marketfeed")
    assert (len(intake.quotes), len(intake.trades)) == (count // 2 * 10, (count - 1) // 2 * 5)
    torn = cut < 400 and (packed or keep != b"".join(written[:count]))
    assert intake.events == ({"broken_record": 1} if torn or (packed == ".zst" and cut <= 400) else {})


async def test_several_files_are_one_recording_each_with_its_own_ids(autojump_clock, tmp_path):
    folder = tmp_path / "rec"
    folder.mkdir()
    (folder / "day.1.mfr").write_bytes(symbols_frame({"A": 0}, 1) + quotes_frame(quotes(1, 2), 2))
    packed = zstandard.compress(symbols_frame({"B": 0, "A": 5}, 3) + quotes_frame(quotes(3), 4))
    (folder / "day.2.mfr.zst").write_bytes(packed)
    (folder / "notes.txt").write_text("not a recording")
    for path in ("rec", "rec/day.*.mfr*"):
        intake = await replayed(tmp_path, path=path, format="marketfeed")
        assert names(intake, intake.quotes) == ["A", "A", "B"]


async def test_the_first_of_several_files_may_be_empty(tmp_path):
    (tmp_path / "day.1.mfr").write_bytes(b"")
    (tmp_path / "day.2.mfr").write_bytes(b"".join(steps(1)))
    intake = await replayed(tmp_path, path="*.mfr", format="marketfeed")
    assert prices(intake) == list(range(1, 16))
    (tmp_path / "day.2.mfr").write_bytes(b"")
    assert "holds no complete frame, and neither do the files after it" in refusal(
        tmp_path, path=".", format="marketfeed"
    )


async def test_a_pattern_finds_recordings_in_folders_of_folders_and_no_folders(tmp_path):
    for number in range(3):
        folder = tmp_path / "rec" / ("x/" * number)
        (folder / "day.mfr").mkdir(parents=True)
        (folder / "day.1.mfr").write_bytes(b"".join(steps(1)))
    intake = await replayed(tmp_path, path="rec/**/*.mfr", format="marketfeed")
    assert prices(intake) == [*range(1, 16)] * 3


async def test_a_snapshot_is_due_when_it_was_sent_however_old_its_ticks_are(autojump_clock, tmp_path):
    old = quotes(1, flags=FLAG_SNAPSHOT)
    old["ts_recv"] -= 3600 * 10**9
    frames = [
        symbols_frame({"A": 0}, 1),
        quotes_frame(old, START_NS),
        quotes_frame(quotes(500), START_NS + 1),
    ]
    (tmp_path / "day.mfr").write_bytes(b"".join(frames))
    feed, intake = make(tmp_path, **PLAY)
    await feed.run(intake.publish)
    assert intake.published_at_s == pytest.approx([0, 0.5])


async def test_what_the_recorder_missed_is_counted(tmp_path):
    gap = orjson.dumps({"T": "gap", "S": "A", "channel": "quotes", "lost": 37, "n": 54})
    frames = [
        symbols_frame({"A": 0}, 1),
        messages_frame([gap], 2),
        quotes_frame(quotes(1), 2),
        heartbeat_frame(3),
    ]
    (tmp_path / "day.mfr").write_bytes(b"".join(frames))
    intake = await replayed(tmp_path, **PLAY)
    assert len(intake.quotes) == 1
    assert intake.events == {"recorded_gap": 1, "recorded_lost": 37}


async def test_ticks_of_unannounced_symbols_are_left_out_and_told(tmp_path):
    frames = [symbols_frame({"A": 0}, 1), quotes_frame(quotes(1, symbol=9), 2), quotes_frame(quotes(2), 3)]
    (tmp_path / "day.mfr").write_bytes(b"".join(frames))
    intake = await replayed(tmp_path, **PLAY)
    assert prices(intake) == [2]
    assert intake.events == {"broken_record": 1}


async def test_junk_within_ends_that_file_and_is_told(tmp_path):
    (tmp_path / "a.mfr").write_bytes(symbols_frame({"A": 0}, 1) + quotes_frame(quotes(1), 2) + b"junk" * 100)
    (tmp_path / "b.mfr").write_bytes(symbols_frame({"A": 0}, 1) + quotes_frame(quotes(2), 2))
    intake, said = await damaged(tmp_path, path=".", format="marketfeed")
    assert prices(intake) == [1, 2]
    assert intake.events == {"broken_record": 1}
    assert f"{tmp_path}/a.mfr: the file is damaged from here on" in said


@pytest.mark.parametrize("content", [b"", b"junk" * 10, b"\1\2\0\0\x40\0\0\0" + bytes(8) + bytes(10)])
def test_files_of_something_else(tmp_path, content):
    (tmp_path / "day.mfr").write_bytes(content)
    assert str(tmp_path / "day.mfr") in refusal(tmp_path, **PLAY)


def test_a_folder_or_a_pattern_without_recordings(tmp_path):
    assert "holds no file that ends in .mfr" in refusal(tmp_path, path=".", format="marketfeed")
    assert "no file matches" in refusal(tmp_path, path="*.mfr", format="marketfeed")
    assert "No such file" in refusal(tmp_path, path="none.mfr", format="marketfeed")


def test_another_file_is_refused_with_what_writes_one(tmp_path):
    (tmp_path / "README.md").write_text("# no recording\n" * 9)
    said = refusal(tmp_path, format="marketfeed", path="README.md")
    assert "README.md is not a recording of `marketfeed record`: " in said
