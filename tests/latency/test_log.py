"""The log is readable by HdrHistogram tools, and its errors do not affect the engine."""

import os
import re
import subprocess

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram
from marketfeed.latency.intervals import Interval, Tag
from marketfeed.latency.log import IntervalLog
from marketfeed.latency.read import read

S = 1_000_000_000
START_NS = 1_790_000_000 * S
DAY_NS = 86_400 * S
symbols = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=',*"\\'), min_size=1
)
words = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)


def histogram(*values_ns, times=1):
    made = Histogram()
    made.record(np.array(values_ns, np.int64), times)
    return made


SEND = Tag("send", "vip", "0")


def intervals(*values_ns, tag=SEND, start_ns=START_NS, length_ns=10 * S):
    return Interval.of(tag, histogram(*values_ns), start_ns, start_ns + length_ns)


def complete_files(folder):
    return sorted(path.name for path in folder.glob("*-*Z*.hlog"))


@given(st.builds(Tag, words, words, words, st.one_of(st.just(""), symbols)))
def test_a_tag_is_read_as_it_was_written_and_holds_no_comma_or_space(tag):
    assert Tag.parse(str(tag)) == tag
    assert not re.search(r"[, ]", str(tag))


def test_a_tag_of_another_program_is_taken_for_a_hop():
    assert Tag.parse("GC pauses") == Tag(hop="GC pauses")
    assert Tag.parse("stage=load;host=a") == Tag(hop="stage=load;host=a")


def test_the_package_s_reader_opens_the_log(tmp_path):
    log = IntervalLog(tmp_path / "latency.hlog", 1 << 20, 3)
    written = [histogram(1_000, 5_000_000, 70_000), histogram(42_000_000_000)]
    tags = [Tag("send", "vip", "0"), Tag("total", "basic", "3", "BTC-USD")]
    for i, (tag, one) in enumerate(zip(tags, written, strict=True)):
        start_ns = START_NS + i * 10 * S
        assert log.write(Interval.of(tag, one, start_ns, start_ns + 10 * S), start_ns)
    log.close()
    reader = HistogramLogReader(str(log.path), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS))
    for i, (tag, one) in enumerate(zip(tags, written, strict=True)):
        found = reader.get_next_interval_histogram()
        assert found.get_tag() == str(tag)
        assert found.get_start_time_stamp() == (START_NS + i * 10 * S) / 1e6
        assert found.get_end_time_stamp() - found.get_start_time_stamp() == 10_000
        assert np.array_equal(np.ctypeslib.as_array(found.counts), one.counts.view(np.uint64))
    assert reader.get_next_interval_histogram() is None
    assert reader.get_start_time_sec() <= START_NS / S
    reader.close()


def test_readers_find_what_began_before_the_log_was_begun(tmp_path):
    log = IntervalLog(tmp_path / "latency.hlog", 1 << 20, 3)
    assert log.write([], START_NS + 5 * S)
    assert log.write(intervals(5000, start_ns=START_NS), START_NS + 10 * S)
    assert log.write(intervals(5000, start_ns=START_NS - S), START_NS + 10 * S)  # of another worker
    reader = HistogramLogReader(str(log.path), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS))
    assert [reader.get_next_interval_histogram() is None for _ in range(3)] == [False, False, True]
    reader.close()


def test_a_log_has_version_start_time_and_legend(tmp_path):
    log = IntervalLog(tmp_path / "latency.hlog", 1 << 20, 3)
    log.write(intervals(5000), START_NS)
    lines = log.path.read_text().splitlines()
    assert lines[1] == "#[Histogram log format version 1.3]"
    assert lines[2] == "#[StartTime: 1789999920.000 (seconds since epoch), 2026-09-21 14:12:00 UTC]"
    assert lines[3].startswith('"StartTimestamp","Interval_Length"')
    assert lines[4].startswith("Tag=hop=send;tier=vip;worker=0,1790000000.000,10.000,0.005,HISTFAAA")


def test_negatives_get_a_tag_of_their_own_and_what_is_beyond_is_said(tmp_path):
    log = IntervalLog(tmp_path / "latency.hlog", 1 << 20, 3)
    log.write(intervals(5000, -1_270_000_000, HIGHEST_NS + 1, tag=Tag("venue", "vip", "0")), START_NS)
    found = read([log.path], ("hop",))
    assert found.merged[("venue",)].total == 1
    assert found.merged[("venue_negative",)].statistics()[1] == pytest.approx(1_270_000_000, rel=1e-3)
    assert found.beyond == {("venue",): 1}


def test_a_log_that_would_grow_above_its_size_goes_on_in_a_new_file(tmp_path):
    log = IntervalLog(tmp_path / "latency.hlog", 1000, 100)
    for i in range(20):
        assert log.write(intervals(5000, start_ns=START_NS + i * S), START_NS + i * S)
    log.close()
    names = complete_files(tmp_path)
    assert names
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    found = read([log.path, *(tmp_path / name for name in names)], ())
    assert (found.lines, list(found.problems)) == (20, [])


def test_two_renamings_in_one_second_overwrite_nothing(tmp_path):
    log = IntervalLog(tmp_path / "latency.hlog", 10, 100)
    for _ in range(4):
        log.write(intervals(5000), START_NS)
    assert len(complete_files(tmp_path)) == 3


def test_a_new_day_begins_a_new_file_and_the_oldest_go(tmp_path):
    log = IntervalLog(tmp_path / "latency.hlog", 1 << 20, keep_files=2)
    for day in range(5):
        log.write(intervals(5000), START_NS + day * DAY_NS)
        log.write(intervals(5000), START_NS + day * DAY_NS + S)
    assert complete_files(tmp_path) == ["latency-20260924T141320Z.hlog", "latency-20260925T141320Z.hlog"]
    assert len(read([log.path], ()).times_s) == 1


def test_an_engine_that_starts_again_appends_even_behind_half_a_line(tmp_path):
    path = tmp_path / "latency.hlog"
    first = IntervalLog(path, 1 << 20, 3)
    now_ns = int(os.stat(tmp_path).st_mtime) * S
    first.write(intervals(5000, start_ns=now_ns), now_ns)
    first.close()
    with path.open("a") as file:
        file.write("Tag=hop=send;tier=vip;worker=0,179")
    IntervalLog(path, 1 << 20, 3).write(intervals(7000, start_ns=now_ns + 10 * S), now_ns)
    found = read([path], ("hop",))
    assert found.merged[("send",)].total == 2
    assert len(list(found.problems)) == 1


def test_a_path_that_cannot_be_written_is_a_problem_that_is_kept_and_ends_when_it_can(tmp_path):
    (tmp_path / "var").write_text("in the way")
    log = IntervalLog(tmp_path / "var" / "latency.hlog", 1 << 20, 3)
    assert not log.write(intervals(5000), START_NS)
    assert "var/latency.hlog: " in (log.problem or "")
    assert log.failures == 1
    (tmp_path / "var").unlink()
    assert log.write(intervals(5000), START_NS)
    assert log.problem is None
    assert log.failures == 1


def test_a_full_disk_is_a_problem(tmp_path):
    (tmp_path / "latency.hlog").symlink_to("/dev/full")
    log = IntervalLog(tmp_path / "latency.hlog", 1 << 20, 3)
    assert not log.write(intervals(5000), START_NS)
    assert "No space left on device" in (log.problem or "")


@pytest.mark.e2e
def test_a_disk_that_fills_up_within_a_line_leaves_no_half_line(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        log = IntervalLog(disk / "latency.hlog", 1 << 20, 3)
        while log.write(intervals(*range(5_000, 60_000_000, 20_000)), START_NS):
            pass
        assert "No space left on device" in (log.problem or "")
        found = read([log.path], ())
        assert found.lines > 0
        assert not list(found.problems)
        log.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_log_that_was_taken_away_is_begun_anew(tmp_path):
    log = IntervalLog(tmp_path / "latency.hlog", 1 << 20, 3)
    log.write(intervals(5000), START_NS)
    log.path.rename(tmp_path / "mine")
    log.write(intervals(5000), START_NS)
    assert log.path.read_text().startswith("#[Latencies")
