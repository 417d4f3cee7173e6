"""Reading of recordings as arrays, tables and frames: complete, in order, and up to a truncation."""

import gzip
import re
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import orjson
import pandas
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import marketfeed
from marketfeed import QUOTE, TRADE
from marketfeed.core.binary import HEADER, messages_frame, quotes_frame, symbols_frame, trades_frame
from marketfeed.errors import RecordingError
from marketfeed.recordings import Recording, read
from tests.support.recordings import NAMES, START_NS, S, quotes, recording, trades, write

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


@pytest.mark.parametrize("name", ["day.mfr", "day.mfr.zst", "day.mfr.gz"])
def test_a_recording_is_read_as_it_was_written(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".gz"):
        q, t = recording(tmp_path / "day.mfr")
        path.write_bytes(gzip.compress((tmp_path / "day.mfr").read_bytes()))
    else:
        q, t = recording(path)
    day = marketfeed.recordings.read(path)
    assert (day.quotes.dtype, day.trades.dtype) == (QUOTE, TRADE)
    assert day.quotes.tobytes() == q.tobytes()
    assert day.trades.tobytes() == t.tobytes()
    assert day.symbols == list(NAMES)
    assert set(day.names(day.quotes)) == set(NAMES)
    assert day.problems == []


@pytest.mark.parametrize("rows", [1, 50, 10**6])
def test_chunks_hold_the_same_ticks_and_can_be_gone_through_again(tmp_path, rows):
    q, t = recording(tmp_path / "day.mfr.zst")
    day = read(str(tmp_path / "day.mfr.zst"))
    for _ in range(2):
        chunks = list(day.chunks(rows))
        assert np.concatenate([c.quotes for c in chunks]).tobytes() == q.tobytes()
        assert np.concatenate([c.trades for c in chunks]).tobytes() == t.tobytes()
        assert all(len(c.quotes) + len(c.trades) <= rows + 74 for c in chunks)
    assert [len(c.quotes) for c in day] == [1000]


def test_several_files_are_one_recording_whose_ids_are_its_own(tmp_path):
    write(tmp_path / "d.2.mfr", [symbols_frame({"B": 0, "A": 5}, 1), quotes_frame(quotes(3, 1), 2)])
    write(
        tmp_path / "d.1.mfr.zst",
        [
            symbols_frame({"A": 0}, 1),
            quotes_frame(quotes(2, 1), 2),
            symbols_frame({"C": 0}, 3),  # another engine and epoch: ids restart
            quotes_frame(quotes(1, 1), 4),
        ],
    )
    for path in (tmp_path, tmp_path / "d.*.mfr*", [tmp_path / "d.1.mfr.zst", tmp_path / "d.2.mfr"]):
        day = read(path)
        assert day.names(day.quotes).tolist() == ["A", "A", "C", "B", "B", "B"]
        assert day.symbols == ["A", "C", "B"]


def test_ticks_of_one_step_are_in_order_of_g_whatever_frame_they_came_in(tmp_path):
    late, early = quotes(3, 1, first_g=50), quotes(3, 1, first_g=10)
    write(tmp_path / "d.mfr", [symbols_frame({"A": 0}, 1), quotes_frame(late, 5), quotes_frame(early, 5)])
    assert read(tmp_path / "d.mfr").quotes["g"].tolist() == [10, 11, 12, 50, 51, 52]


def test_symbols_and_times_choose(tmp_path):
    q, t = recording(tmp_path / "day.mfr")
    day = read(tmp_path / "day.mfr", symbols="BTC*")
    assert set(day.names(day.trades)) == {"BTC-USD", "BTC'X"}
    assert len(day.quotes) == np.isin(q["symbol"], [1, 2]).sum()
    assert day.symbols == ["BTC-USD", "BTC'X"]
    start = datetime.fromtimestamp(START_NS // S, UTC).isoformat()
    day = read(tmp_path / "day.mfr", ["AAPL"], start=start, end=START_NS + S // 2)
    assert len(day.trades) == ((t["symbol"] == 0) & (t["ts_recv"] < START_NS + S // 2)).sum()
    assert len(read(tmp_path / "day.mfr", end=start).quotes) == 0
    with pytest.raises(ValueError, match="noon"):
        read(tmp_path / "day.mfr", start="noon")


def test_gaps_that_were_recorded_are_counted(tmp_path):
    gap = orjson.dumps({"T": "gap", "S": "A", "channel": "quotes", "lost": 37, "n": 54})
    frames = [
        symbols_frame({"A": 0}, 1),
        messages_frame([gap, b'{"T":"lag"}'], 2),
        quotes_frame(quotes(1, 1), 2),
    ]
    day = read(write(tmp_path / "d.mfr", frames))
    assert len(day.quotes) == 1
    assert (day.gaps, day.lost) == (1, 37)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.integers(1, 399), st.sampled_from([".mfr", ".mfr.zst", ".mfr.gz"]))
def test_a_recording_cut_anywhere_gives_what_is_whole_and_says_that_it_was_cut(tmp_path, cut, suffix):
    q, _ = recording(tmp_path / "day.mfr", 300)
    if suffix == ".mfr.zst":
        recording(tmp_path / "day.mfr.zst", 300)
    elif suffix == ".mfr.gz":
        (tmp_path / "day.mfr.gz").write_bytes(gzip.compress((tmp_path / "day.mfr").read_bytes()))
    data = (tmp_path / f"day{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: len(data) * cut // 400])
    try:
        day = read(path)
    except RecordingError:  # no complete frame of ticks
        assert path.stat().st_size < (300 if suffix != ".mfr.gz" else 1000)
        return
    chunks = list(day.chunks())
    found = np.concatenate([QUOTE_NONE, *(c.quotes for c in chunks)])
    assert found.tobytes() == q[: len(found)].tobytes()
    at_an_end = suffix == ".mfr" and path.stat().st_size in ends(tmp_path / "day.mfr")
    assert at_an_end or re.search("cut short: .*; the ticks before that are intact", day.problems[0])
    if not at_an_end:
        with pytest.warns(UserWarning, match="cut short"):
            assert len(day.quotes) == len(found)


QUOTE_NONE = np.empty(0, QUOTE)


def ends(path):
    """Return the end offsets of the frames of a plain recording."""
    data, at, found = path.read_bytes(), 0, set()
    while at < len(data):
        at += HEADER.size + HEADER.unpack_from(data, at)[3]
        found.add(at)
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.integers(0, 10**9), st.integers(1, 255), st.sampled_from([".zst", ".gz"]))
def test_a_byte_that_was_changed_gives_no_wrong_tick_without_an_error_or_a_problem(tmp_path, at, by, suffix):
    q, _ = recording(tmp_path / "day.mfr", 100, with_trades=False)
    data = bytearray((tmp_path / "day.mfr").read_bytes())
    packed = (
        gzip.compress(data)
        if suffix == ".gz"
        else zstandard.ZstdCompressor(write_checksum=True).compress(data)
    )
    data = bytearray(packed)
    data[at % len(data)] ^= by
    path = tmp_path / f"x.mfr{suffix}"
    path.write_bytes(data)
    try:
        day = read(path)
        found = np.concatenate([QUOTE_NONE, *(chunk.quotes for chunk in day.chunks())])
    except RecordingError:
        return
    assert day.problems or found.tobytes() == q.tobytes()


def test_a_recording_that_does_not_fit_its_checksum_is_an_error(tmp_path):
    recording(tmp_path / "day.mfr", 100)
    data = bytearray(gzip.compress((tmp_path / "day.mfr").read_bytes(), 0))
    data[len(data) // 2] ^= 1
    (tmp_path / "day.mfr.gz").write_bytes(data)
    with pytest.raises(
        RecordingError, match="damaged: its checksum does not match, so any of its ticks may be wrong"
    ):
        assert len(read(tmp_path / "day.mfr.gz").quotes)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([b"junk" * 10], "unreadable from here on: frame version 106"),
        ([HEADER.pack(1, 2, 0, 0xFFFFFF40, 5)], "unreadable from here on: a quotes frame of 4294967104"),
        ([HEADER.pack(1, 1, 0, 4, 5) + b"{}{}"], "unreadable from here on: a symbols frame is not JSON"),
        ([quotes_frame(quotes(4, 1), 9)[:50]], "cut short: it ends within a frame"),
        ([b"\1"], "cut short: it ends within a frame"),
    ],
)  # fmt: skip
def test_what_is_broken_within_ends_the_file_and_is_told(tmp_path, frames, said):
    whole = [symbols_frame({"A": 0}, 1), quotes_frame(quotes(2, 1), 2)]
    day = read(write(tmp_path / "d.mfr.zst", [*whole, *frames]))
    with pytest.warns(UserWarning, match="d.mfr.zst"):
        assert len(day.quotes) == 2
    assert said in day.problems[0]


def test_ticks_of_symbols_that_were_not_announced_are_left_out_and_told(tmp_path):
    ticks = quotes(2, 1)
    ticks["symbol"] = [0, 9]
    frames = [symbols_frame({"A": 0}, 1), quotes_frame(ticks, 2), symbols_frame({"Z": 9}, 3)]
    day = read(write(tmp_path / "d.mfr", frames))
    (chunk,) = day.chunks()
    assert day.names(chunk.quotes).tolist() == ["A"]
    assert day.problems == [f"{tmp_path}/d.mfr: left out 1 tick with symbol ids that were not announced"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.mfr", b"", "contains no complete frame"),
        ("d.mfr", b"time,price\n1,2\n" * 9, "as `marketfeed record` writes them .*: frame version 116"),
        ("d.mfr.zst", b"junk" * 20, "contains no complete frame"),
        ("none", None, "No such file"),
        ("*.mfr", None, "no recording"),
    ],
)
def test_what_is_no_recording_is_one_line(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordingError, match=said) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
def test_a_bomb_never_becomes_a_large_block(tmp_path, suffix):
    beats = HEADER.pack(1, 5, 0, 0, 1) * 1000
    path = tmp_path / f"d.mfr{suffix}"
    packer = zstandard.ZstdCompressor(1).compressobj() if suffix == ".zst" else None
    with path.open("wb") if packer else gzip.open(path, "wb", 1) as file:
        for block in [beats] + [bytes(MIB)] * 256:
            file.write(packer.compress(block) if packer else block)
        if packer:
            file.write(packer.flush())
    day = read(path)
    tracemalloc.start()
    try:
        assert list(day.chunks()) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "unreadable from here on: frame version 0" in day.problems[0]
    assert peak < 64 * MIB


def test_a_table_has_nulls_for_what_is_missing_and_a_dictionary_of_symbols(tmp_path):
    q, t = recording(tmp_path / "day.mfr")
    q["ts_event"][:3] = 0
    day = read(write(tmp_path / "d.mfr", [symbols_frame(NAMES, 1), quotes_frame(q, 2), trades_frame(t, 2)]))
    table = day.to_arrow()
    assert table.schema.field("ts_recv").type == pa.timestamp("ns", "UTC")
    assert pa.types.is_dictionary(table.schema.field("symbol").type)
    assert table["ts_event"].null_count == 3
    assert table["ts_event"][5].value == q["ts_event"][5]
    for side in ("bid", "ask"):
        for column in ("px", "sz"):
            assert table[f"{side}_{column}"].null_count == (q[f"{side}_sz"] == 0).sum()
    assert table["bid_px"].to_pylist()[1] == q["bid_px"][1] / 1e9
    exact = day.to_arrow("quotes", "decimal")["bid_px"].to_pylist()
    assert [p if p is None else p * 10**9 for p in exact] == [
        None if not size else Decimal(price)
        for price, size in zip(q["bid_px"].tolist(), q["bid_sz"].tolist(), strict=True)
    ]
    assert (
        day.to_arrow("quotes", "int")["ask_px"].drop_null().to_pylist()
        == q["ask_px"][q["ask_sz"] > 0].tolist()
    )
    table = day.to_arrow("trades")
    assert table["trade_id"].null_count == (t["trade_id"] == 0).sum()
    assert table["side"].to_pylist() == [{98: "b", 115: "s"}.get(side) for side in t["side"].tolist()]
    assert table["cond"].to_pylist() == [letters.decode() or None for letters in t["cond"].tolist()]
    with pytest.raises(ValueError, match="quotes or trades"):
        day.to_arrow("alerts")
    with pytest.raises(ValueError, match="float, decimal, int"):
        day.to_arrow(prices="text")


@pytest.mark.parametrize("channel", ["quotes", "trades"])
@pytest.mark.parametrize("prices", ["float", "int"])
def test_a_pandas_frame_is_the_table(tmp_path, channel, prices):
    recording(tmp_path / "day.mfr")
    day = read(tmp_path / "day.mfr")
    frame, table = day.to_pandas(channel, prices), day.to_arrow(channel, prices)
    assert list(frame) == table.column_names
    assert str(frame["ts_recv"].dtype) == "datetime64[ns, UTC]"
    assert str(frame["symbol"].dtype) == "category"
    for name in frame:
        ours = frame[name].astype(object).where(frame[name].notna(), None).tolist()
        theirs = table[name].to_pylist()
        if name.startswith("ts_"):  # nanoseconds, which datetime lacks
            theirs = [
                None if one.value is None else pandas.Timestamp(one.value, tz="UTC") for one in table[name]
            ]
        assert ours == theirs, name


@pytest.mark.e2e
def test_reading_is_imported_with_the_package_and_needs_no_event_loop(tmp_path):
    recording(tmp_path / "day.mfr", 10)
    code = (
        "import sys, marketfeed\n"
        "assert 'marketfeed.recordings' not in sys.modules\n"
        f"print(len(marketfeed.recordings.read({str(tmp_path / 'day.mfr')!r}).quotes))\n"
        "assert not {'trio', 'pandas', 'pyarrow'} & sys.modules.keys()\n"
        "try: marketfeed.none\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "10\nmodule 'marketfeed' has no attribute 'none'\n"


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    recording(tmp_path / "day.mfr.zst")
    text = (ROOT / "docs" / "recordings.md").read_text()
    (example,) = re.findall(r"```python\n(import marketfeed\n.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "recordings.md", "exec"), {})
    assert "AAPL" in capsys.readouterr().out


def test_a_recording_says_what_it_is(tmp_path):
    recording(tmp_path / "day.mfr", 10)
    day = Recording(tmp_path / "day.mfr")
    assert repr(day) == f"<Recording {tmp_path}/day.mfr>"
    assert len(day.trades) == len(trades(10))
    assert repr(day) == f"<Recording {tmp_path}/day.mfr, 10 quotes, 10 trades>"


def test_a_pattern_finds_recordings_in_folders_of_folders_and_no_folders(tmp_path):
    for number in range(3):
        folder = tmp_path / ("x/" * number)
        (folder / "not.mfr").mkdir(parents=True)
        recording(folder / f"DAY.{number}.mfr")
    assert len(read(tmp_path / "**" / "*.mfr").quotes) == 3000
    (tmp_path / "DAY.0.mfr").rename(tmp_path / "DAY.0.MFR")
    assert len(read(tmp_path).quotes) == 1000
