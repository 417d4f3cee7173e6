"""Export to Parquet, CSV and Arrow: every tick, in bounded memory, never overwriting a file."""

import csv
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from marketfeed.cli import app
from marketfeed.core.binary import quotes_frame, symbols_frame
from marketfeed.errors import ConfigError, RecordingError
from marketfeed.recordings import export as exporting
from marketfeed.recordings import read
from marketfeed.recordings.export import GROUP_ROWS, Export, run
from tests.support.recordings import quotes, recording, write
from tests.support.replay import names as names_of
from tests.support.replay import replayed

QUOTES = {"symbol": "symbol", "bid": "bid_px", "bid_size": "bid_sz", "ask": "ask_px", "ask_size": "ask_sz"}
TRADES = {
    "symbol": "symbol",
    "price": "price",
    "size": "size",
    "side": "side",
    "trade_id": "trade_id",
    "condition": "cond",
}


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "marketfeed", "export", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def export(path, to, channel=None, symbols=("*",), start=None, end=None, **more):
    return run([path], Export(to, channel, list(symbols), start, end, **more))


@pytest.mark.e2e
def test_the_command_writes_a_table_of_each_channel_and_never_over_another(tmp_path):
    q, t = recording(tmp_path / "day.mfr.zst")
    done = command("day.mfr.zst", "--to", "day.parquet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.splitlines()[0].startswith("day.quotes.parquet: 1,000 quotes, 0.")
    assert pq.read_table(tmp_path / "day.quotes.parquet").num_rows == len(q)
    assert pq.read_table(tmp_path / "day.trades.parquet").num_rows == len(t)
    metadata = pq.read_schema(tmp_path / "day.trades.parquet").metadata
    assert metadata[b"marketfeed.channel"] == b"trades"
    assert metadata[b"marketfeed.price"] == b"in the quote currency"
    again = command("day.mfr.zst", "--to", "day.parquet", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr in [
        f"marketfeed: --to day.{channel}.parquet: the file exists; use --force to overwrite it\n"
        for channel in ("quotes", "trades")
    ]
    forced = command(
        "day.mfr.zst",
        "--to",
        "day.parquet",
        "--force",
        "--symbols",
        "AAPL",
        "--channel",
        "quotes",
        cwd=tmp_path,
    )
    assert forced.returncode == 0
    assert pq.read_table(tmp_path / "day.parquet")["symbol"].to_pylist() == ["AAPL"] * int(
        (q["symbol"] == 0).sum()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "day.mfr.zst", "day.parquet", "day.quotes.parquet", "day.trades.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather", "csv", "PARQUET"])
def test_a_recording_of_one_channel_is_one_file(tmp_path, suffix):
    recording(tmp_path / "day.mfr", with_trades=False)
    assert export(tmp_path / "day.mfr", tmp_path / f"day.{suffix}") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["day.mfr", f"day.{suffix}"])


@pytest.mark.parametrize("prices", ["float", "decimal", "int"])
@pytest.mark.parametrize("channel", ["quotes", "trades"])
def test_every_format_holds_the_table(tmp_path, channel, prices):
    recording(tmp_path / "day.mfr")
    wanted = read(tmp_path / "day.mfr").to_arrow(channel, prices)
    for suffix in ("parquet", "arrow", "feather"):
        to = tmp_path / f"day.{suffix}"
        assert export(tmp_path / "day.mfr", to, channel, prices=prices) == 0
        found = pq.read_table(to) if suffix == "parquet" else pyarrow.feather.read_table(to, memory_map=False)
        assert found.schema.field("ts_recv") == wanted.schema.field("ts_recv")
        assert str(found.schema.field("symbol").type).startswith("dictionary")
        assert found.to_pylist() == wanted.to_pylist()


def test_names_that_come_later_are_in_every_format(tmp_path, monkeypatch):
    """Dictionaries grow between row groups."""
    monkeypatch.setattr(exporting, "GROUP_ROWS", 900)
    frames = []
    for number in range(9):
        records = quotes(500, 1, seed=number)
        records["symbol"] = number
        frames += [symbols_frame({f"S{number}": number}, number), quotes_frame(records, number)]
    write(tmp_path / "day.mfr", frames)
    for suffix in ("parquet", "arrow", "feather", "csv"):
        assert export(tmp_path / "day.mfr", tmp_path / f"day.{suffix}") == 0
    wanted = [f"S{number}" for number in range(9) for _ in range(500)]
    assert pq.ParquetFile(tmp_path / "day.parquet").num_row_groups == 5
    assert pq.read_table(tmp_path / "day.parquet")["symbol"].to_pylist() == wanted
    for suffix in ("arrow", "feather"):
        with pyarrow.ipc.open_file(tmp_path / f"day.{suffix}") as file:
            assert file.read_all()["symbol"].to_pylist() == wanted
        assert pandas.read_feather(tmp_path / f"day.{suffix}")["symbol"].tolist() == wanted
    assert pandas.read_csv(tmp_path / "day.csv")["symbol"].tolist() == wanted


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("prices", ["float", "decimal", "int"])
async def test_replay_gives_the_ticks_of_the_recording_from_its_exports(tmp_path, suffix, prices):
    recording(tmp_path / "day.mfr.zst")
    assert export(tmp_path / "day.mfr.zst", tmp_path / f"day.{suffix}", prices=prices) == 0
    recorded = await replayed(tmp_path, path="day.mfr.zst", format="marketfeed")
    how = {"format": suffix, **({"header": True, "time": "iso"} if suffix == "csv" else {})}
    how |= {"price_scale": 10**9} if prices == "int" else {}
    for channel, columns in (("quotes", QUOTES), ("trades", TRADES)):
        again = await replayed(
            tmp_path, path=f"day.{channel}.{suffix}", columns={"time": "ts_event", **columns}, **how
        )
        wanted, found = getattr(recorded, channel), getattr(again, channel)
        assert names_of(again, found) == names_of(recorded, wanted)
        for field in wanted.dtype.names:
            if field not in ("symbol", "unused"):
                assert np.array_equal(found[field], wanted[field]), field
        assert again.events == {}


@pytest.mark.parametrize("start", ["2026-09-21T14:13:20.25", "2026-09-21T16:13:20.25+02:00", "1790000000.25"])
def test_times_choose_ticks_by_their_receipt(tmp_path, start):
    _, t = recording(tmp_path / "day.mfr")
    more = {"start": start, "end": "2026-09-21T14:13:20.5Z"}
    assert export(tmp_path / "day.mfr", tmp_path / "day.parquet", "trades", **more) == 0
    ids = pq.read_table(tmp_path / "day.parquet")["n"].to_pylist()
    assert ids == t["n"][250:500].tolist()


def test_csv_is_exact_and_what_pandas_reads(tmp_path):
    q, t = recording(tmp_path / "day.mfr")
    assert export(tmp_path / "day.mfr", tmp_path / "day.csv") == 0
    with (tmp_path / "day.quotes.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, q, strict=True):
        for side in ("bid", "ask"):
            missing = record[f"{side}_sz"] == 0
            assert row[f"{side}_px"] == ("" if missing else decimal(int(record[f"{side}_px"])))
            assert row[f"{side}_sz"] == ("" if missing else repr(float(record[f"{side}_sz"])))
    frame = pandas.read_csv(tmp_path / "day.trades.csv", parse_dates=["ts_event", "ts_recv"])
    assert str(frame["ts_recv"].dtype) == "datetime64[ns, UTC]"
    assert frame["ts_recv"].astype("int64").tolist() == t["ts_recv"].tolist()
    assert frame["price"].tolist() == (t["price"] / 1e9).tolist()


def decimal(price):
    return format((Decimal(price) / 10**9).normalize(), "f")


@pytest.mark.parametrize("raw", [False, True])
def test_conditions_are_a_column_of_text_empty_or_null_where_there_are_none(tmp_path, raw):
    _, t = recording(tmp_path / "day.mfr")
    wanted = [letters.decode() for letters in t["cond"].tolist()]
    assert {"", "@", "@FTI", "=A"} == set(wanted)
    assert export(tmp_path / "day.mfr", tmp_path / "day.csv", "trades", raw=raw) == 0
    with (tmp_path / "day.csv").open() as file:
        found = [row["cond"] for row in csv.DictReader(file)]
    assert found == [text if raw or not text else f"'{text}" for text in wanted]
    assert export(tmp_path / "day.mfr", tmp_path / "day.parquet", "trades") == 0
    assert pq.read_table(tmp_path / "day.parquet")["cond"].to_pylist() == [text or None for text in wanted]


HARMLESS = ["AAPL", "A=1", "'=X"]
FORMULAS = ["=cmd|'/c!A1", "+1", "-2", "@SUM(1)"]


@pytest.mark.parametrize("raw", [False, True])
def test_names_that_a_spreadsheet_would_run_are_text_in_csv_unless_raw(tmp_path, capsys, raw):
    names = {name: number for number, name in enumerate(HARMLESS + FORMULAS)}
    recording(tmp_path / "day.mfr", 300, names)
    assert export(tmp_path / "day.mfr", tmp_path / "day.csv", "quotes", raw=raw) == 0
    assert ("--raw omits the '" in capsys.readouterr().err) is not raw
    with (tmp_path / "day.csv").open() as file:
        found = {row["symbol"] for row in csv.DictReader(file)}
    assert found == {*HARMLESS, *(name if raw else f"'{name}" for name in FORMULAS)}
    assert export(tmp_path / "day.mfr", tmp_path / "day.parquet", "quotes") == 0
    assert set(pq.read_table(tmp_path / "day.parquet")["symbol"].to_pylist()) == set(names)
    assert "note" not in capsys.readouterr().err


@pytest.mark.e2e
def test_a_recording_that_was_cut_is_written_as_far_as_it_is_whole_and_status_1(tmp_path):
    recording(tmp_path / "day.mfr.zst")
    data = (tmp_path / "day.mfr.zst").read_bytes()
    (tmp_path / "day.mfr.zst").write_bytes(data[: len(data) // 2])
    done = command("day.mfr.zst", "--to", "day.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert (
        "day.mfr.zst: cut short: its compressed data end early; the ticks before that are intact"
        in done.stderr
    )
    rows = (tmp_path / "day.quotes.csv").read_text().splitlines()
    assert 100 < len(rows) < 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["day.mfr", "--to", "day.xlsx"], "--to day.xlsx: must end in one of .csv, .parquet"),
        (["day.mfr", "--to", "day.mfr/day.csv"], "--to day.mfr/day.csv: day.mfr is a file, and no folder"),
        (["day.mfr", "--to", "day.csv", "--channel", "alerts"], "--channel alerts: must be quotes or trades"),
        (
            ["day.mfr", "--to", "day.csv", "--prices", "text"],
            "--prices text: must be one of float, decimal, int",
        ),
        (["day.mfr", "--to", "day.csv", "--symbols", "A B"], "--symbols A B: must be a symbol, a prefix"),
        (["day.mfr", "--to", "day.csv", "--from", "noon"], "--from noon: must be a time"),
        (["none.mfr", "--to", "day.csv"], "none.mfr: No such file"),
        (["junk.mfr", "--to", "day.csv"], "junk.mfr is not a recording as `marketfeed record` writes them"),
    ],
)
def test_a_mistake_is_one_line_and_status_2_and_writes_nothing(
    tmp_path, capsys, monkeypatch, arguments, said
):
    recording(tmp_path / "day.mfr", 10)
    (tmp_path / "junk.mfr").write_bytes(b"junk" * 9)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", *arguments])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"marketfeed: {said}")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day.mfr", "junk.mfr"]


@pytest.mark.parametrize(
    ("there", "channels", "refused"),
    [
        ("day.csv", "both", ""),
        ("day.csv", "quotes", "day.csv"),
        ("day.quotes.csv", "both", "day.quotes.csv"),
        ("day.trades.csv", "both", "day.trades.csv"),
        ("day.trades.csv", "quotes", ""),
    ],
)
def test_only_a_file_that_would_be_written_is_a_reason_to_refuse(tmp_path, there, channels, refused):
    recording(tmp_path / "day.mfr", 10, with_trades=channels == "both")
    (tmp_path / there).write_text("precious")
    before = {path.name for path in tmp_path.iterdir()}
    done = CliRunner().invoke(app, ["export", str(tmp_path / "day.mfr"), "--to", str(tmp_path / "day.csv")])
    written = {path.name for path in tmp_path.iterdir()} - before
    assert (tmp_path / there).read_text() == "precious"
    if refused:
        assert (
            done.stderr
            == f"marketfeed: --to {tmp_path / refused}: the file exists; use --force to overwrite it\n"
        )
        assert (done.exit_code, written) == (2, set())
    else:
        assert done.exit_code == 0
        assert written == ({"day.quotes.csv", "day.trades.csv"} if channels == "both" else {"day.csv"})


def test_a_folder_in_the_way_cannot_be_overwritten(tmp_path):
    recording(tmp_path / "day.mfr", 10)
    (tmp_path / "day.csv").mkdir()
    with pytest.raises(ConfigError, match=r"day.csv: exists and is not a regular file"):
        export(tmp_path / "day.mfr", tmp_path / "day.csv", "quotes", force=True)


def test_a_folder_that_is_missing_is_made(tmp_path):
    recording(tmp_path / "day.mfr", 10)
    assert export(tmp_path / "day.mfr", tmp_path / "of" / "day.csv", "quotes", symbols=["NONE"]) == 1
    assert not (tmp_path / "of").exists()
    assert export(tmp_path / "day.mfr", tmp_path / "of" / "day.csv", "quotes") == 0
    assert [path.name for path in (tmp_path / "of").iterdir()] == ["day.csv"]


def test_nothing_that_was_asked_for_is_no_file_and_status_1(tmp_path, capsys):
    recording(tmp_path / "day.mfr", 10)
    assert export(tmp_path / "day.mfr", tmp_path / "day.csv", symbols=["NONE"]) == 1
    assert "the recording has no ticks of this selection" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["day.mfr"]


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    recording(tmp_path / "day.mfr", 10)
    (tmp_path / "day.csv.part").symlink_to("/dev/full")
    assert export(tmp_path / "day.mfr", tmp_path / "day.csv", "quotes") == 1
    assert capsys.readouterr().err == "marketfeed export: cannot write: No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["day.mfr"]


def test_without_pyarrow_csv_is_written_and_parquet_says_what_to_install(tmp_path, monkeypatch):
    recording(tmp_path / "day.mfr", 10)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert export(tmp_path / "day.mfr", tmp_path / "day.csv") == 0
    with pytest.raises(ConfigError, match=r"day.parquet: this needs the package pyarrow: pip install"):
        export(tmp_path / "day.mfr", tmp_path / "day.parquet")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    recording(tmp_path / "day.mfr.gz", 10)
    (tmp_path / "day.mfr").rename(tmp_path / "day.mfr.zst")
    with pytest.raises(RecordingError, match="needs the package zstandard"):
        export(tmp_path / "day.mfr.zst", tmp_path / "more.csv")


@pytest.mark.e2e
def test_an_export_holds_a_row_group_and_no_more(tmp_path):
    recording(tmp_path / "small.mfr", 10)
    code = (
        "import re\nfrom pathlib import Path\n"
        "from marketfeed.recordings.export import Export, run\nimport pyarrow.parquet\n"
        "status = Path('/proc/self/status')\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', status.read_text())[1]) // 1024\n"
        "run([Path('small.mfr')], Export(Path('s.parquet'), None, ['*'], None, None))\nbefore = peak()\n"
        "assert run([Path('day.mfr')], Export(Path('d.parquet'), None, ['*'], None, None)) == 0\n"
        "print(peak() - before)"
    )
    recording(tmp_path / "day.mfr", 1_500_000, step=4096)  # 192 MB
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert int(done.stdout) < 150, done.stdout
    assert (
        pq.ParquetFile(tmp_path / "d.quotes.parquet").metadata.num_row_groups <= 1_500_000 // GROUP_ROWS + 1
    )
