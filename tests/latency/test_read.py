"""Reading of logs: values are merged and never averaged; unreadable lines are reported and skipped."""

import bz2
import gzip
import lzma
import sys
import warnings

import numpy as np
import pytest
import zstandard
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.core.histogram import DIGITS, HIGHEST_NS, LOWEST_NS
from marketfeed.errors import LogError
from marketfeed.latency import load
from marketfeed.latency.intervals import Tag
from marketfeed.latency.read import read
from marketfeed.latency.sums import BucketLayout, Merged
from tests.support.latency_logs import START_S, interval, write

values = st.lists(st.integers(0, HIGHEST_NS), min_size=1, max_size=60)


def merged_of(values_ns, digits=DIGITS, lowest=LOWEST_NS):
    hdr = HdrHistogram(lowest, HIGHEST_NS, digits)
    for value in values_ns:
        hdr.record_value(value)
    layout = BucketLayout(hdr.unit_magnitude, hdr.sub_bucket_half_count_magnitude, digits)
    counts = np.ctypeslib.as_array(hdr.counts).view(np.int64)
    return hdr, layout, np.flatnonzero(counts), counts[np.flatnonzero(counts)]


@settings(max_examples=30)
@given(values, st.integers(1, 4), st.sampled_from([1, 1000, 4096]))
def test_figures_of_any_layout_are_the_package_s(values_ns, digits, lowest):
    hdr, layout, buckets, counts = merged_of(values_ns, digits, lowest)
    merged = Merged(layout)
    merged.add(layout, buckets, counts)
    count, least, *percentiles, most = merged.statistics()
    wanted = hdr.get_percentile_to_value_dict([50, 90, 99, 99.9, 99.99])
    assert count == hdr.get_total_count()
    assert percentiles == [wanted[p] for p in (50, 90, 99, 99.9, 99.99)]
    assert least == hdr.get_lowest_equivalent_value(hdr.min_value)
    assert most == hdr.get_highest_equivalent_value(hdr.max_value)
    assert np.array_equal(layout.bucket(layout.lowest(buckets)), buckets)
    assert np.array_equal(layout.bucket(layout.highest(buckets)), buckets)


@given(values, values)
def test_histograms_of_two_precisions_merge_into_the_coarser_whichever_comes_first(fine, coarse):
    _, fine_layout, *fine_held = merged_of(fine)
    _, coarse_layout, *coarse_held = merged_of(coarse, 2)
    one, other = Merged(fine_layout), Merged(coarse_layout)
    one.add(fine_layout, *fine_held)
    one.add(coarse_layout, *coarse_held)
    other.add(coarse_layout, *coarse_held)
    other.add(fine_layout, *fine_held)
    assert one.statistics() == other.statistics()
    assert one.layout == coarse_layout
    assert one.statistics()[-1] == pytest.approx(max(fine + coarse), rel=0.011, abs=8192)


def test_workers_are_merged_and_not_averaged(tmp_path):
    path = write(
        tmp_path / "a.hlog",
        interval([1_000_000] * 99, Tag("total", "vip", "0"))
        + interval([500_000_000], Tag("total", "vip", "1")),
    )
    found = read([path], ("hop",))
    ((times, figures),) = [found.series(key) for key in found.merged]
    assert times.tolist() == [START_S]
    assert figures[0, 0] == 100
    assert figures[0, 4] == pytest.approx(1_000_000, rel=1e-3)  # p99; the mean of two p99s would be 250 ms
    assert figures[0, 7] == pytest.approx(500_000_000, rel=1e-3)


def test_logs_of_several_engines_are_merged_interval_by_interval(tmp_path):
    paths = [
        write(tmp_path / name, *(interval([value] * 10, number=i) for i in range(3)))
        for name, value in (("a.hlog", 1_000_000), ("b.hlog", 2_000_000))
    ]
    found = read(paths, ("hop", "tier"))
    times, figures = found.series(("total", "vip"))
    assert times.tolist() == [START_S, START_S + 10, START_S + 20]
    assert figures[:, 0].tolist() == [20, 20, 20]


def test_a_window_takes_the_intervals_that_start_in_it(tmp_path):
    path = write(tmp_path / "a.hlog", *(interval([5000], number=i) for i in range(5)))
    found = read([path], (), from_s=START_S + 10, to_s=START_S + 30)
    assert found.times_s == [START_S + 10, START_S + 20]
    assert (found.first_s, found.last_s) == (START_S, START_S + 50)


def test_a_truncated_log_is_read_up_to_where_it_ends(tmp_path):
    whole = write(tmp_path / "a.hlog", *(interval(range(1000, 90_000, 77), number=i) for i in range(3)))
    text = whole.read_bytes()
    last = text.rindex(b"Tag=")
    for end in range(last, len(text) - 1):
        cut = tmp_path / "cut.hlog"
        cut.write_bytes(text[:end])
        found = read([cut], ())
        assert found.lines == 2
        assert len(list(found.problems)) == (end > last), text[:end]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hello", "no HdrHistogram interval (line 6)"),
        ("1,2,3", "no HdrHistogram interval (line 6)"),
        ("1,2,3,HISTAAAA", "a histogram"),
        ("1,2,3,!!!!", "a histogram"),
        ("1,2,3,AAAAAAAAAAAAAAAAAAAA", "a histogram"),
        ("nan,2,3,HIST", "no HdrHistogram interval (line 6)"),
    ],
)
def test_a_line_that_is_no_histogram_is_left_out_and_said(tmp_path, line, said):
    path = write(tmp_path / "a.hlog", interval([5000]))
    path.write_text(path.read_text() + line + "\n")
    found = read([path], ())
    assert found.lines == 1
    assert said in "".join(found.problems)


def test_a_binary_file_is_said_to_be_none_of_these(tmp_path):
    path = tmp_path / "a.hlog"
    path.write_bytes(b"\x7fELF\x08\xff\xfe" * 100)
    assert list(read([path], ()).problems) == [f"{path}: not text: this is not an HdrHistogram log (line 1)"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# a comment\n#[gateway]\n\n[admin]\nport = 1\n", "2 lines"),
        ("time,bid,ask\n1,2,3\n4,5,6\n", "3 lines"),
        ('{"a": 1}', "1 line"),
        ("hello\n", "1 line"),
    ],
)
def test_a_text_that_is_no_log_at_all_is_said_so_in_one_sentence(tmp_path, text, lines):
    path = tmp_path / "config.toml"
    path.write_text(text)
    (said,) = read([path], ()).problems
    assert said.startswith(f"{path}: {lines} and no HdrHistogram interval: this is not a latency log; ")
    assert said.endswith(" writes one to latency.path, var/latency.hlog")
    log = write(tmp_path / "a.hlog", interval([5000]))
    found = read([log, path], ())
    assert found.lines == 1
    assert list(found.problems) == [said]


@pytest.mark.parametrize(
    "head", ["#[StartTime: 1700000000]", "#[Histogram log format version 1.3]", '"StartTimestamp","x"']
)
def test_a_log_whose_lines_are_all_broken_is_told_by_line(tmp_path, head):
    path = tmp_path / "a.hlog"
    path.write_text(f"{head}\nhello\nhello\n")
    assert list(read([path], ()).problems) == [f"{path}: no HdrHistogram interval (2 lines, the first 2)"]


def test_a_log_that_gzip_packed_is_read_as_it_is(tmp_path):
    plain = write(tmp_path / "a.hlog", *(interval(range(1000, 90_000, 77), number=i) for i in range(3)))
    packed = tmp_path / "a.hlog.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    whole, found = read([plain], ()), read([packed], ())
    assert (found.lines, found.times_s, list(found.problems)) == (3, whole.times_s, [])
    assert found.merged.keys() == whole.merged.keys()


@pytest.mark.parametrize("cut", [3, 12, 60, -100, -9, -1])
def test_a_packed_log_that_is_cut_is_read_up_to_there_and_that_is_told(tmp_path, cut):
    plain = write(tmp_path / "a.hlog", *(interval(range(1000, 90_000, 77), number=i) for i in range(9)))
    packed = tmp_path / "a.hlog.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes())[:cut])
    found = read([packed], ())
    assert found.lines <= 9
    assert list(found.problems)
    if cut == -1:
        assert found.lines == 9
        assert "gzip data are truncated or damaged from here on" in list(found.problems)[-1]


@pytest.mark.parametrize(
    ("pack", "name"),
    [(bz2.compress, "bzip2"), (lzma.compress, "xz"), (zstandard.ZstdCompressor().compress, "zstd")],
)
def test_a_log_that_another_program_packed_is_named(tmp_path, pack, name):
    path = write(tmp_path / "a.hlog", interval([5000]))
    path.write_bytes(pack(path.read_bytes()))
    (problem,) = read([path], ()).problems
    assert f"compressed by {name}: decompress it first" in problem


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(LogError, match="No such file"):
        read([tmp_path / "a.hlog"], ())


def test_times_relative_to_base_or_start_are_understood(tmp_path):
    text = write(tmp_path / "a.hlog", interval([5000])).read_text().replace(f",{START_S}.000,", ",7.000,")
    (tmp_path / "start.hlog").write_text(text)
    (tmp_path / "base.hlog").write_text(f"#[BaseTime: 1000000000.000 (seconds since epoch)]\n{text}")
    assert read([tmp_path / "start.hlog"], ()).times_s == [START_S - 80 + 7]
    assert read([tmp_path / "base.hlog"], ()).times_s == [1_000_000_007]


def test_load_gives_a_pandas_frame(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = write(tmp_path / "a.hlog", interval([5_000_000, 6_000_000]), interval([7_000_000], number=1))
    frame = load(path)
    assert isinstance(frame, pandas.DataFrame)
    assert frame["start"].tolist() == [
        pandas.Timestamp(START_S, unit="s"),
        pandas.Timestamp(START_S + 10, unit="s"),
    ]
    assert frame.groupby("hop")["count"].sum().to_dict() == {"total": 3}
    assert frame["p50_ns"].dtype == np.int64


def test_load_without_pandas_gives_arrays(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    path = write(tmp_path / "a.hlog", interval([5_000_000]) + interval([1_000], Tag("send", "vip", "1")))
    table = load([str(path)], by=("hop",))
    assert list(table) == [
        "start", "length_s", "hop", "count",
        "min_ns", "p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "p99_99_ns", "max_ns",
    ]  # fmt: skip
    assert table["start"].dtype == "M8[ns]"
    assert table["hop"].tolist() == ["total", "send"]
    assert table["length_s"].tolist() == [10, 10]


def test_load_warns_of_what_it_left_out(tmp_path):
    path = write(tmp_path / "a.hlog", interval([5_000_000]))
    path.write_text(path.read_text() + "Tag=hop=t")
    with pytest.warns(UserWarning, match="incomplete"):
        load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(load(path)["count"]) == 1
