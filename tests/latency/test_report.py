"""The command `report`: rows, pictures, pages, comparison with another run, budgets."""

import base64
import csv
import io
import re
import subprocess
import sys

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.errors import LogError
from marketfeed.latency.intervals import Tag
from marketfeed.latency.report import Budget, Selection, make, to_csv
from marketfeed.latency.units import duration_ns, moment_s, shown_ns
from tests.support.latency_logs import START_S, interval, run, write

MS = 1_000_000
PNG = b"\x89PNG\r\n\x1a\n"


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "marketfeed", "report", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def log(tmp_path):
    """Write a log of two tiers, two workers, two hops and one symbol."""
    return write(
        tmp_path / "latency.hlog",
        *(
            [
                one
                for hop, factor in (("send", 1), ("total", 3))
                for tier, base in (("vip", MS), ("basic", 40 * MS))
                for worker in "01"
                for one in interval(
                    range(base * factor, 2 * base * factor, base // 50), Tag(hop, tier, worker), i
                )
            ]
            + interval([9 * MS], Tag("total", "vip", "0", "A;B=C"), i)
            for i in range(12)
        ),
    )


def rows(report):
    return {row.key: row.figures for row in report.rows}


def compared(row):
    """Return the comparisons of ``row`` with an earlier log; there is one of every figure."""
    assert None not in row.changes
    return row.changes


def test_a_row_per_hop_and_tier_with_workers_merged_and_symbols_not_counted_twice(log):
    found = rows(make([log], Selection()))
    assert list(found) == [("send", "basic"), ("send", "vip"), ("total", "basic"), ("total", "vip")]
    assert found["total", "vip"][0] == 2 * 12 * 150
    assert found["total", "vip"][4] == pytest.approx(5.96 * MS, rel=0.01)


@pytest.mark.parametrize(
    ("choice", "keys"),
    [
        (Selection(by=("hop",)), [("send",), ("total",)]),
        (Selection(by=("worker",), hops=("send",)), [("send", "0"), ("send", "1")]),
        (Selection(by=("symbol",)), [("total", "A;B=C")]),
        (Selection(by=("hop",), symbols=("A;B=C",)), [("total",)]),
        (Selection(tiers=("vip",), workers=("1",)), [("send", "vip"), ("total", "vip")]),
        (Selection(by=("tier", "worker"), hops=("total",), tiers=("basic",)),
         [("total", "basic", "0"), ("total", "basic", "1")]),
    ],
)  # fmt: skip
def test_rows_by_tier_hop_symbol_or_worker(log, choice, keys):
    assert list(rows(make([log], choice))) == keys


def test_a_window_that_holds_nothing_says_what_there_is(log):
    with pytest.raises(
        LogError, match="no intervals between --from and --to; the log covers 2026-09-21T14:13:20Z"
    ):
        make([log], Selection(to_s=START_S))


def test_asking_for_what_is_not_there_says_what_is(log):
    with pytest.raises(
        LogError, match=r"no latencies of this selection; the log has hop: send, total; tier: basic, vip"
    ):
        make([log], Selection(hops=("client",)))


def test_the_same_load_twice_is_within_the_spread_and_twice_the_latency_is_outside(tmp_path):
    first, same, slower = (
        run(tmp_path / name, median, seed=seed)
        for name, median, seed in (("a.hlog", MS, 1), ("b.hlog", MS, 2), ("c.hlog", 2 * MS, 3))
    )
    (row,) = make([same], Selection(), [first]).rows
    assert [change.outside for change in compared(row)[1:4]] == [False] * 3
    (row,) = make([slower], Selection(), [first]).rows
    assert [change.outside for change in compared(row)[1:4]] == [True] * 3
    assert (
        compared(row)[1].shown
        == f"{(compared(row)[1].now_ns / compared(row)[1].before_ns - 1) * 100:+.1f} % *"
    )
    assert compared(row)[1].now_ns == pytest.approx(2 * compared(row)[1].before_ns, rel=0.05)


def test_a_log_against_its_own_copy_has_no_star_in_any_column(tmp_path):
    first, copy = (run(tmp_path / name, MS, 30) for name in ("a.hlog", "b.hlog"))
    (row,) = make([copy], Selection(), [first]).rows
    assert [change.shown for change in compared(row)] == ["+0.0 %"] * 7


def test_the_extremes_of_a_whole_log_have_no_star_by_one_interval_alone(tmp_path):
    def log(name, *outlier):
        return write(tmp_path / name, *(interval(values, number=i) for i, values in enumerate((
            *([MS + i * 1000, 2 * MS + i * 1000] for i in range(20)), *outlier,
        ))))  # fmt: skip

    (row,) = make([log("new.hlog", [MS // 9, 90 * MS])], Selection(), [log("old.hlog")]).rows
    assert compared(row)[-1].now_ns > 40 * compared(row)[-1].before_ns
    assert {change.outside for change in compared(row)} == {False}


def test_a_change_of_every_interval_has_a_star_in_every_column(tmp_path):
    (row,) = make(
        [run(tmp_path / "b.hlog", 9 * MS, 30)], Selection(), [run(tmp_path / "a.hlog", MS, 30)]
    ).rows
    assert {change.outside for change in compared(row)} == {True}


def test_a_change_of_too_few_intervals_is_shown_and_not_judged(tmp_path):
    (row,) = make([run(tmp_path / "a.hlog", MS, 5)], Selection(), [run(tmp_path / "b.hlog", 3 * MS)]).rows
    assert {change.outside for change in compared(row)} == {None}
    assert compared(row)[1].shown.endswith("?")


def test_a_row_that_the_other_log_has_not_has_no_change(log, tmp_path):
    found = make([log], Selection(hops=("send", "total")), [run(tmp_path / "b.hlog", MS)])
    assert {row.key: row.changes[0] is None for row in found.rows if row.key[1] == "basic"} == {
        ("send", "basic"): True,
        ("total", "basic"): True,
    }


def test_logs_of_different_precision_are_one_report_and_a_note(log, tmp_path):
    coarse = HdrHistogram(1, 3_600_000_000_000, 2)
    coarse.record_value(5 * MS)
    line = f"Tag=hop=total;tier=vip;worker=7,{START_S}.000,10.000,5.000,{coarse.encode().decode()}\n"
    (tmp_path / "coarse.hlog").write_text(f"#[StartTime: {START_S}.0 (seconds since epoch)]\n{line}")
    found = make([log, tmp_path / "coarse.hlog"], Selection())
    assert rows(found)["total", "vip"][0] == 2 * 12 * 150 + 1
    (note,) = found.notes
    assert "coarse.hlog has 2 digits" in note


def test_csv_holds_every_figure_in_ns(log):
    found = make([log], Selection(), [log])
    table = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [(row["hop"], row["tier"]) for row in table] == list(rows(found))
    assert [int(row["p99_9_ns"]) for row in table] == [figures[5] for figures in rows(found).values()]
    assert {row["p50_outside"] for row in table} == {"false"}


@pytest.mark.e2e
def test_the_command_prints_a_table_and_writes_picture_page_and_csv(log, tmp_path):
    (tmp_path / "broken.hlog").write_bytes(log.read_bytes()[:-40])
    done = command(
        "latency.hlog",
        "--png",
        "o.png",
        "--html",
        "o.html",
        "--csv",
        "o.csv",
        "--against",
        "broken.hlog",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["hop", "tier", "count", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max"]
    assert lines[2].split()[:3] == ["send", "basic", "1,200"]
    assert "note: broken.hlog: its last line is incomplete" in done.stderr
    assert (tmp_path / "o.png").read_bytes().startswith(PNG)
    page = (tmp_path / "o.html").read_text()
    picture = re.search(r"data:image/png;base64,([^\"]+)", page)
    assert picture is not None
    assert base64.b64decode(picture[1]).startswith(PNG)
    assert "<td>1,200</td>" in page
    assert not re.search(r"(src|href)=\"(?!data:)|<script|@import|url\(", page), "not self-contained"
    assert (tmp_path / "o.csv").read_text().startswith("hop,tier,count,min_ns,")


@pytest.mark.e2e
def test_a_budget_that_holds_is_status_0_and_a_broken_one_is_status_1_and_names_the_row(log, tmp_path):
    kept = command("latency.hlog", "--hop", "total", "--tier", "vip", "--budget", "p99=20ms", cwd=tmp_path)
    assert (kept.returncode, kept.stderr) == (0, "")
    broken = command(
        "latency.hlog", "--hop", "total", "--budget", "p99=20ms", "--budget", "max=1s", cwd=tmp_path
    )
    assert broken.returncode == 1
    assert broken.stderr == "over budget: total basic: p99 is 238 ms, the budget 20.0 ms\n"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no.hlog"], "no.hlog: No such file or directory"),
        (
            ["latency.hlog", "--budget", "p98=1ms"],
            "--budget p98=1ms: must be as p99=20ms, with one of min, p50",
        ),
        (["latency.hlog", "--budget", "p99=fast"], "'fast' is not a duration"),
        (["latency.hlog", "--by", "colour"], "--by colour: must be one or more of tier, hop, symbol, worker"),
        (["latency.hlog", "--from", "noon"], "'noon' is not a time"),
        (["latency.hlog", "--csv", "no/o.csv"], "no/o.csv: No such file or directory"),
        (["empty.hlog"], "empty.hlog: no intervals yet"),
        (["binary.hlog"], "binary.hlog: not text: this is not an HdrHistogram log"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(log, tmp_path, arguments, said):
    (tmp_path / "empty.hlog").touch()
    (tmp_path / "binary.hlog").write_bytes(b"\xff" * 100)
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["--png", "--html"])
def test_pictures_without_matplotlib_are_one_line_and_nothing_else(log, tmp_path, kind):
    (tmp_path / "without.py").write_text(
        "import sys\nsys.modules['matplotlib.figure'] = None\n"
        "from marketfeed.cli import main\nsys.argv[0] = 'marketfeed'\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "without.py", "report", "latency.hlog", kind, "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "pictures need matplotlib: pip install" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
def test_tags_of_a_log_reach_the_terminal_as_text(log, tmp_path):
    lines = log.read_text().splitlines(keepends=True)
    hostile = [line.replace("tier=vip", "tier=\x1b[31m[red]vip") for line in lines]
    (tmp_path / "hostile.hlog").write_text("".join(hostile))
    done = command("hostile.hlog", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\\x1b[31m[red]vip" in done.stdout
    refused = command("hostile.hlog", "--tier", "none", cwd=tmp_path)
    assert refused.returncode == 2
    assert "\x1b" not in refused.stderr
    assert "\\x1b[31m[red]vip" in refused.stderr


@pytest.mark.e2e
def test_names_that_html_or_the_picture_would_read_are_shown_as_they_are(tmp_path):
    for name in ("_x", "$a$b", "<b>&"):
        write(tmp_path / "a.hlog", interval([MS], Tag("total", "vip", "0", name)))
    done = command("a.hlog", "--by", "symbol", "--html", "o.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "&lt;b&gt;&amp;" in (tmp_path / "o.html").read_text()


@given(st.integers(1, 10**12))
def test_a_shown_duration_is_within_three_digits_and_can_be_read_back(value_ns):
    assert duration_ns(shown_ns(value_ns)) == pytest.approx(value_ns, rel=0.0051)


def test_durations_moments_and_budgets_are_read():
    assert [duration_ns(text) for text in ("20ms", "1.5 s", "7us", "7µs", "2m")] == [
        20 * MS, 1500 * MS, 7000, 7000, 120_000 * MS,
    ]  # fmt: skip
    assert moment_s("1790000000.5") == 1790000000.5
    assert moment_s("2026-09-21T14:13:20") == moment_s("2026-09-21T16:13:20+02:00") == START_S
    assert Budget.parse("p99_9=1s") == Budget("p99.9", 1000 * MS)
