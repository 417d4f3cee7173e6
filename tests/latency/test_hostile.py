"""Logs of other tools are read or refused by name; the memory of a report is bounded by the log's size."""

import csv
import io
import subprocess
import sys

import pytest

from marketfeed.errors import LogError
from marketfeed.latency import lines
from marketfeed.latency import read as reading
from marketfeed.latency.intervals import Tag
from marketfeed.latency.read import read
from marketfeed.latency.report import Selection, make, to_csv
from tests.support.bombs import bomb
from tests.support.foreign_histograms import V0, V1, V2, double, packed, payload_of, recorded, text
from tests.support.latency_logs import START_S, interval, write

MIB = 1 << 20
HDR, COUNTS = recorded([5_000_000, 7_000_000])
LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
# Runs the command and prints its peak memory beyond that of Python and its modules.
PEAK = """
import re, sys
from pathlib import Path
from marketfeed.cli import main
from marketfeed.cli import report_output as terminal
from marketfeed.latency import decoding, pictures, read
# Not ru_maxrss, which begins with what the parent had.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
sys.argv = ["marketfeed", "report", *sys.argv[1:]]
try:
    main()
finally:
    print("peak", peak() - before, file=sys.stderr)
"""


def report(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def hostile(path, kind):
    """Write a small log that demands much memory; return its size in MiB."""
    whole = text(packed(payload_of(HDR, COUNTS, V2), V2))
    wide = text(packed(payload_of(HDR, [1] * 300_000, V1, 2, digits=5, lowest=1), V1, 2))
    with path.open("w") as file:
        file.write(LEGEND)
        if kind == "one":
            for base in (V0, V1, V2):
                file.write(f"{START_S}.0,10.0,1.0,{bomb(base, 1024 * MIB)}\n")
            for number in range(50_000):
                file.write(f"#[Beyond: {'9' * 30}{number} hop=x{number}]\n#[StartTime: 1.2.3.4\n")
                file.write(f"{START_S}.0,10.0,1.0,AAAA{number}\n")
            file.write(f"{START_S}.0,10.0,1.0," + "A" * (64 * MIB) + "\n")
        else:
            for number in range(40_000):
                file.write(f"{START_S + number}.0,1.0,1.0,{whole}\n")
            for number in range(100):
                file.write(f"Tag=t{number},{START_S + 40_000 + number % 7}.0,10.0,1.0,{wide}\n")
        file.write(f"Tag=hop=total;tier=vip,{START_S + 50_000}.0,10.0,1.0,{whole}\n")
    return path.stat().st_size / MIB


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["one", "many"])
def test_no_log_makes_a_report_take_memory_beyond_bounds(tmp_path, kind):
    size = hostile(tmp_path / "a.hlog", kind)
    done = report("a.hlog", cwd=tmp_path)
    *said, peak = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert "total vip 2" in " ".join(done.stdout.split())
    assert 1 <= len(said) < 30
    assert all(len(line) < 500 for line in said)
    # Was 3,100 MiB for a single line.
    assert int(peak.split()[1]) < 256 + size, done.stderr


@pytest.mark.slow
def test_a_bomb_is_told_with_file_and_line_and_the_rest_is_read(tmp_path):
    hostile(tmp_path / "a.hlog", "one")
    found = read([tmp_path / "a.hlog"], ())
    assert found.lines == 1
    assert [p for p in found.problems if "unpacks to more than the 147,456 bytes of its range" in p] == [
        f"{tmp_path}/a.hlog: a histogram that unpacks to more than the 147,456 bytes of its range"
        " (2 lines, the first 2)"
    ]


def test_more_rows_or_values_than_can_be_held_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_ROWS", 3)
    path = write(tmp_path / "a.hlog", *(interval([5000], Tag("total", f"t{i}")) for i in range(9)))
    found = read([path], ("tier",))
    assert found.lines == 3
    assert "more than 3 rows; choose fewer: --tier, --symbol, --by (6 lines, the first 8)" in "".join(
        found.problems
    )
    monkeypatch.setattr(reading, "MAX_ENTRIES", 250)
    path = write(tmp_path / "b.hlog", *(interval(range(1000, 900_000, 9000), number=i) for i in range(9)))
    found = read([path], ("tier",))
    assert found.lines == 9, "the same buckets again are no more to hold"


def test_kinds_of_problems_are_bounded(tmp_path):
    path = write(tmp_path / "a.hlog", interval([5000]))
    with path.open("a") as file:
        for number in range(500):
            file.write(f"1,2,3,{text(number.to_bytes(4) * 4)}\n")
    problems = list(read([path], ()).problems)
    assert len(problems) == lines.MAX_PROBLEMS + 1
    assert "further unreadable lines" in problems[-1]


@pytest.mark.parametrize("time", ["1.2.3", "9" * 400, "nan", "-5", "99999999999999"])
def test_a_start_time_that_is_none_is_no_harm(tmp_path, time):
    path = write(tmp_path / "a.hlog", interval([5000]))
    path.write_text(f"#[BaseTime: {time}]\n#[StartTime: {time}\n" + path.read_text())
    found = read([path], ())
    assert found.lines + len(list(found.problems)) == 1


def foreign(path, head, *encoded, tag=""):
    rows = "".join(f"{tag}{5 * i}.046,5.000,7.000,{one}\n" for i, one in enumerate(encoded))
    path.write_text(f"{head}#[StartTime: {START_S}.5 (seconds since epoch), Mon Jun 23 2014]\n{LEGEND}{rows}")
    return path


def of(base, word=8):
    return text(packed(payload_of(HDR, COUNTS, base, word), base, word))


@pytest.mark.parametrize(
    ("head", "encoded", "tag"),
    [
        ("#[Logged with jHiccup version 2.0.3-SNAPSHOT]\n#[Histogram log format version 1.01]\n", of(V0), ""),
        ("#[Logged with jHiccup version 2.0.6]\n#[Histogram log format version 1.1]\n", of(V1), ""),
        ("#[Logging for: READ]\n#[Histogram log format version 1.1]\n", of(V1, 4), ""),
        ("#[Histogram log format version 1.3]\n", of(V2), "Tag=READ,"),
        ("#[Größe: µs]\r\n", of(V2), " Tag=größe,"),
        ("", text(double(packed(payload_of(HDR, COUNTS, V2), V2))), ""),
        ("", text(payload_of(HDR, COUNTS, V2)), ""),
    ],
)
def test_logs_of_other_tools_are_read(tmp_path, head, encoded, tag):
    path = foreign(tmp_path / "a.hlog", head, encoded, encoded, tag=tag)
    made = make([path], Selection())
    (row,) = made.rows
    assert row.figures[0] == 4
    assert row.figures[-1] == HDR.get_highest_equivalent_value(7_000_000)
    assert made.latencies.times_s == [START_S + 0.5 + 0.046, START_S + 5.5 + 0.046]


@pytest.mark.e2e
def test_a_log_that_counts_microseconds_is_read_with_unit_and_noted_without(tmp_path):
    path = foreign(tmp_path / "a.hlog", "#[Logging for: READ]\n", of(V1))
    assert any(
        "YCSB, which is in microseconds: see --unit" in note for note in make([path], Selection()).notes
    )
    done = report("a.hlog", "--unit", "us", cwd=tmp_path)
    assert done.returncode == 0
    assert "7.00 s" in done.stdout
    assert report("a.hlog", "--unit", "day", cwd=tmp_path).stderr.startswith(
        "marketfeed: --unit day: must be ns, us"
    )
    path = foreign(tmp_path / "b.hlog", "", text(double(packed(payload_of(HDR, COUNTS, V2, ratio=0.5), V2))))
    assert any("contains DoubleHistograms" in note for note in make([path], Selection()).notes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"1,2,3,{text(bytes(40))}\n" * 2, "the cookie 0x00000000: none of HdrHistogram's encodings"),
        (f"Tag=READ,1,2,3,{of(V2)[:40]}\n", "a histogram of 22 bytes that says it has"),
        (
            "       Value     Percentile TotalCount 1/(1-Percentile)\n\n 0.1 0.0 1 1.0\n",
            "percentile distribution",
        ),
        ("[READ], AverageLatency(us), 397.2\n", "no HdrHistogram interval"),
        (f"1,2,3,{of(V2)}", "no latencies of this selection; the log has no tags"),
    ],
)
def test_what_cannot_be_read_is_said_with_file_and_line_and_is_never_an_empty_selection(
    tmp_path, content, said
):
    path = tmp_path / "a.hlog"
    path.write_text(content)
    with pytest.raises(LogError, match="^" + str(path)) as caught:
        make([path], Selection(hops=("total",)) if "selection" in said else Selection())
    assert said in str(caught.value)
    assert "selection" in said or "line" in str(caught.value)
    assert ("selection" in str(caught.value)) == ("selection" in said)


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A1", "+1", "-2+3", "@SUM(A1)"])
def test_a_name_that_a_spreadsheet_would_run_is_text_in_the_csv(tmp_path, name):
    tag = Tag("total", "vip", "0", name)
    path = write(tmp_path / "a.hlog", interval([5000], tag) + interval([5000], Tag("=1+1", name)))
    for by in (("symbol",), ("hop", "tier")):
        made = make([path], Selection(by=by))
        rows = list(csv.reader(io.StringIO(to_csv(made))))
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert any(f"'{name}" in row for row in rows)


@pytest.mark.e2e
def test_no_escape_sequence_of_a_log_reaches_the_terminal(tmp_path):
    path = tmp_path / "a.hlog"
    path.write_text(f"Tag=\x1b[2J\x1b]0;owned\x07\x9b,{START_S}.0,10.0,1.0,{of(V2)}\n")
    for arguments in ([], ["--hop", "total"]):
        done = report("a.hlog", *arguments, cwd=tmp_path)
        assert "owned" in done.stdout + done.stderr
        assert not set(done.stdout + done.stderr) & {"\x1b", "\x07", "\x9b"}
