"""Replay in recorded time: exact times of publication, damage reported by file and line."""

from __future__ import annotations

import gzip

import msgspec
import pytest
import trio

from marketfeed.errors import ConfigError, SourceError
from marketfeed.feeds.replay import FORMATS, ReplayConfig, ReplayFeed
from marketfeed.feeds.replay.binance_raw import BinanceRaw
from marketfeed.feeds.replay.lines import CHUNK_LINES, PROBE_LINES
from marketfeed.feeds.replay.recording import LOGGED
from marketfeed.testing import RecordingIntake

START_NS = 1_723_161_254_000_000_000


def line(after_ms, price=1, symbol="A"):
    return (
        f'{START_NS + round(after_ms * 1e6)} {{"stream":"a@bookTicker","data":{{"s":"{symbol}",'
        f'"b":"{price}","B":"1","a":"{price + 1}","A":"1"}}}}\n'
    ).encode()


def write(folder, *lines, name="day.gz"):
    data = b"".join(lines)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def make(folder, intake=None, name="day.gz", **settings):
    intake = intake or RecordingIntake(base=folder)
    return ReplayFeed(msgspec.convert({"path": name, **settings}, ReplayConfig), intake), intake


async def replayed(folder, *lines, **settings):
    """Replay lines to the end; return the intake."""
    write(folder, *lines)
    feed, intake = make(folder, **settings)
    await feed.run(intake.publish)
    return intake


def bids(intake):
    return (intake.quotes["bid_px"] // 10**9).tolist()


@pytest.mark.parametrize(
    ("speed", "times"), [(1, [0, 0.25, 10, 70]), (10, [0, 0.025, 1, 7]), (0.5, [0, 0.5, 20, 140])]
)
async def test_each_tick_is_published_when_it_is_due(autojump_clock, tmp_path, speed, times):
    lines = [line(0, 1), line(250, 2), line(10_000, 3), line(70_000, 4)]
    intake = await replayed(tmp_path, *lines, speed=speed)
    assert bids(intake) == [1, 2, 3, 4]
    assert intake.published_at_s == pytest.approx(times, abs=1e-9)
    assert trio.current_time() == pytest.approx(times[-1])


async def test_ticks_of_one_millisecond_are_one_batch(autojump_clock, tmp_path):
    intake = await replayed(
        tmp_path, line(0, 1), line(0.2, 2), line(0.9, 3), line(1.1, 4), line(1.9, 5), line(5, 6)
    )
    assert [len(batch) for batch in intake.batches] == [3, 2, 1]
    assert intake.published_at_s == pytest.approx([0, 0.0011, 0.005])


async def test_a_clock_that_went_back_holds_nothing_up(autojump_clock, tmp_path):
    intake = await replayed(tmp_path, line(0, 1), line(100, 2), line(50, 3), line(120, 4))
    assert bids(intake) == [1, 2, 3, 4]
    assert intake.published_at_s == pytest.approx([0, 0.1, 0.12])


async def test_a_clock_that_went_back_between_chunks_publishes_at_once(autojump_clock, tmp_path):
    first = [line(1000 + number) for number in range(CHUNK_LINES)]
    intake = await replayed(tmp_path, *first, line(500, 7), line(1300, 8))
    assert bids(intake)[-2:] == [7, 8]
    assert intake.published_at_s[-2:] == pytest.approx([0.255, 0.3])


async def test_speed_0_is_as_fast_as_it_goes_and_yields(autojump_clock, tmp_path):
    lines = [line(1000 * number, number) for number in range(3 * CHUNK_LINES)]
    write(tmp_path, *lines)
    feed, intake = make(tmp_path, speed=0)
    steps = []

    async def other():
        while True:
            steps.append(len(intake.batches))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await feed.run(intake.publish)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 0
    assert bids(intake) == list(range(3 * CHUNK_LINES))
    assert {1, 2} & set(steps)


async def test_a_loop_begins_anew_at_once(autojump_clock, tmp_path):
    write(tmp_path, line(0, 1), line(2000, 2))
    feed, intake = make(tmp_path, loop=True)
    with trio.move_on_after(7):
        await feed.run(intake.publish)
    assert bids(intake) == [1, 2, 1, 2, 1, 2, 1]
    assert intake.published_at_s == pytest.approx([0, 2, 2, 4, 4, 6, 6])


@pytest.mark.parametrize("speed", [0, 1])
async def test_a_loop_over_a_moment_lets_others_run(autojump_clock, tmp_path, speed):
    write(tmp_path, line(0))
    feed, intake = make(tmp_path, loop=True, speed=speed)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run, intake.publish)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert scope.cancelled_caught


DEPTH = b'1 {"stream":"a@depth@100ms","data":{"e":"depthUpdate","b":[],"a":[]}}\n'
KLINE = b'1 {"e":"kline","s":"A","k":{}}\n'


def test_a_short_file_without_a_tick_is_refused_at_once(tmp_path):
    write(tmp_path, DEPTH, DEPTH, KLINE, b"junk\n", b'2 {"result":null,"id":1}\n')
    with pytest.raises(ConfigError) as caught:
        make(tmp_path)
    assert str(caught.value) == (
        f"path: {tmp_path}/day.gz: no tick in it: 5 lines (2 depthUpdate, 1 kline, 1 answer to a request, "
        "1 broken; line 4: not a timestamp and a JSON object)"
    )


@pytest.mark.parametrize("loop", [False, True])
async def test_a_file_of_which_nothing_could_be_used_ends_the_feed_as_failed(autojump_clock, tmp_path, loop):
    write(tmp_path, *[DEPTH] * PROBE_LINES, KLINE, b"junk\n", line(0, 1).replace(b'"b":"1"', b'"b":1'))
    feed, intake = make(tmp_path, speed=0, loop=loop)
    with pytest.raises(SourceError) as caught:
        await feed.run(intake.publish)
    assert str(caught.value) == ("day.gz: no tick in it: 4,099 lines (4,096 depthUpdate, 2 broken, 1 kline)")


async def test_a_file_whose_symbols_cannot_be_taken_is_not_blamed(autojump_clock, tmp_path):
    intake = RecordingIntake(base=tmp_path, max_symbols=1)
    intake.symbol("B")
    write(tmp_path, line(0))
    feed, _ = make(tmp_path, intake)
    await feed.run(intake.publish)
    assert intake.events == {"symbols_full": 1}


async def test_plain_files_need_no_gz(autojump_clock, tmp_path):
    write(tmp_path, line(0, 1), line(1, 2), name="day.txt")
    feed, intake = make(tmp_path, name="day.txt")
    await feed.run(intake.publish)
    assert bids(intake) == [1, 2]


async def test_a_last_line_without_its_end(autojump_clock, tmp_path):
    assert bids(await replayed(tmp_path, line(0, 1), line(1, 2).rstrip())) == [1, 2]


async def test_broken_lines_are_counted_and_logged_by_file_and_line(autojump_clock, tmp_path):
    good = [line(number) for number in range(CHUNK_LINES)]
    intake = await replayed(tmp_path, line(0), b"junk\n", *good, b"9 {}{}\n", line(300))
    assert len(intake.quotes) == CHUNK_LINES + 2
    assert intake.events == {"broken_line": 2}
    where = [entry["at"] for entry in intake.logged]
    assert where == [f"{tmp_path / 'day.gz'}:2", f"{tmp_path / 'day.gz'}:{CHUNK_LINES + 3}"]
    assert {entry["log_level"] for entry in intake.logged} == {"warning"}


async def test_many_broken_lines_do_not_flood_the_log(autojump_clock, tmp_path):
    intake = await replayed(tmp_path, line(0), *[b"junk\n"] * 50)
    assert intake.events == {"broken_line": 50}
    assert len(intake.logged) == LOGGED
    said = ["only counted" in entry["reason"] for entry in intake.logged]
    assert said == [False] * (LOGGED - 1) + [True]


async def test_other_frames_are_counted(autojump_clock, tmp_path):
    intake = await replayed(tmp_path, line(0), b'5 {"result":null,"id":1}\n')
    assert intake.events == {"other_frame": 1}


def many_lines(count):
    return [line(number, number % 97 + 1) for number in range(count)]


async def test_a_truncated_file_is_replayed_up_to_the_cut_and_told(autojump_clock, tmp_path):
    whole = gzip.compress(b"".join(many_lines(5000)))
    (tmp_path / "day.gz").write_bytes(whole[: len(whole) // 2])
    feed, intake = make(tmp_path, speed=0)
    with pytest.raises(SourceError, match="damaged from here on"):
        await feed.run(intake.publish)
    got = len(intake.quotes)
    assert CHUNK_LINES < got < 5000
    assert bids(intake) == [number % 97 + 1 for number in range(got)]
    assert intake.events == {"broken_line": 1}
    (entry,) = intake.logged
    assert "damaged from here on" in entry["reason"]
    name, _, at = entry["at"].rpartition(":")
    assert name == str(tmp_path / "day.gz")
    assert got < int(at) <= got + CHUNK_LINES + 1


async def test_no_whole_line_before_the_cut_is_lost(autojump_clock, tmp_path):
    whole = gzip.compress(b"".join(many_lines(5000)))
    cut = whole[: len(whole) // 2]
    (tmp_path / "day.gz").write_bytes(cut)
    readable = 0
    with gzip.open(tmp_path / "day.gz") as file:
        try:
            for text in file:
                readable += text.endswith(b"\n")
        except EOFError:
            pass
    feed, intake = make(tmp_path, speed=0)
    with pytest.raises(SourceError, match="damaged from here on"):
        await feed.run(intake.publish)
    assert len(intake.quotes) == readable


def test_corrupted_bytes_are_told_at_the_start(tmp_path):
    whole = bytearray(gzip.compress(b"".join(many_lines(5000))))
    whole[len(whole) // 2 :] = b"\xff" * (len(whole) - len(whole) // 2)
    (tmp_path / "day.gz").write_bytes(bytes(whole))
    assert refusal(tmp_path).startswith(f"path: {tmp_path / 'day.gz'} is damaged: not gzip data: ")


@pytest.mark.parametrize("speed", [0, 1])
async def test_a_loop_over_a_file_with_a_broken_tail_says_so_and_ends(autojump_clock, tmp_path, speed):
    whole = gzip.compress(b"".join(many_lines(500)))
    (tmp_path / "day.gz").write_bytes(whole[:-9])
    feed, intake = make(tmp_path, speed=speed, loop=True)
    with pytest.raises(SourceError, match="damaged from here on"):
        await feed.run(intake.publish)
    assert bids(intake) == [number % 97 + 1 for number in range(500)]


class Faulty:
    """A decoder that fails on its third chunk."""

    def __init__(self, error):
        self._decoder, self._error, self._chunks = BinanceRaw(), error, 0

    def matches(self, first_lines):
        return True

    def decode(self, lines, symbol):
        self._chunks += 1
        if self._chunks == 3:
            raise self._error
        return self._decoder.decode(lines, symbol)


@pytest.mark.parametrize(
    "error", [KeyError("k"), OSError("I/O error"), UnicodeDecodeError("a", b"", 0, 1, "b")]
)
async def test_a_fault_of_a_decoder_ends_the_feed_at_its_place(autojump_clock, tmp_path, monkeypatch, error):
    monkeypatch.setattr("marketfeed.feeds.replay.BinanceRaw", lambda: Faulty(error))
    write(tmp_path, *many_lines(5 * CHUNK_LINES))
    feed, intake = make(tmp_path, speed=0)
    with pytest.raises(SourceError) as caught:
        await feed.run(intake.publish)
    assert str(caught.value).startswith(f"day.gz, after {2 * CHUNK_LINES} ticks: {type(error).__name__}: ")
    assert caught.value.__cause__ is error
    assert len(intake.quotes) == 2 * CHUNK_LINES


async def test_a_file_that_cannot_be_opened_may_be_tried_again(tmp_path):
    write(tmp_path, line(0))
    feed, intake = make(tmp_path)
    (tmp_path / "day.gz").rename(tmp_path / "other.gz")
    with pytest.raises(FileNotFoundError):
        await feed.run(intake.publish)
    (tmp_path / "other.gz").rename(tmp_path / "day.gz")
    await feed.run(intake.publish)
    assert bids(intake) == [1]


def refusal(folder, **settings):
    with pytest.raises(ConfigError) as caught:
        make(folder, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_missing_file(tmp_path):
    assert refusal(tmp_path) == f"path: {tmp_path / 'day.gz'}: No such file or directory"


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "day.gz").mkdir()
    assert refusal(tmp_path).startswith(f"path: {tmp_path / 'day.gz'} holds no file that ends in .txt, ")


def test_a_file_that_is_not_packed_though_its_name_says_so(tmp_path):
    (tmp_path / "day.gz").write_bytes(line(0))
    assert refusal(tmp_path) == f"path: {tmp_path / 'day.gz'} is damaged: not a gzip file"


@pytest.mark.parametrize("content", [b"", b"time,bid,ask\n1,2,3\n", bytes(range(256)) * 10])
@pytest.mark.parametrize("name", ["day.gz", "day.txt"])
def test_a_file_of_something_else(tmp_path, content, name):
    write(tmp_path, content, name=name)
    assert refusal(tmp_path, name=name) == f"path: {tmp_path / name} does not look like binance-raw"


def test_a_file_cut_off_within_its_first_lines(tmp_path):
    (tmp_path / "day.gz").write_bytes(gzip.compress(line(0))[:20])
    assert refusal(tmp_path).startswith(f"path: {tmp_path / 'day.gz'}: ")


def test_an_unknown_format(tmp_path):
    write(tmp_path, line(0))
    assert refusal(tmp_path, format="csv2") == f"format: 'csv2' is not one of {', '.join(FORMATS)}"


def test_paths_start_at_the_configurations_folder(tmp_path):
    (tmp_path / "days").mkdir()
    write(tmp_path / "days", line(0))
    make(tmp_path, name="days/day.gz")
    make(tmp_path / "elsewhere", name=str(tmp_path / "days" / "day.gz"))


def test_start_sessions_is_the_configurations(tmp_path):
    write(tmp_path, line(0))
    assert make(tmp_path)[0].start_sessions == 0
    assert make(tmp_path, start_sessions=4)[0].start_sessions == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quotes", "trades"),
    [("usdm_btcusdt_20240808.gz", 66_089, 21_313), ("spot_ethusdt_20240808.gz", 24_077, 6_106)],
)
async def test_whole_recordings_as_recorded(autojump_clock, realdata, name, quotes, trades):
    feed, intake = make(realdata / "binance_raw_ws", name=name)
    expected = [decoded.batch for decoded in make(realdata / "binance_raw_ws", name=name)[0].chunks()]
    times = [time for decoded in feed.chunks() for time in decoded.times_ns.tolist()]
    intake.events.clear()
    await feed.run(intake.publish)
    assert (len(intake.quotes), len(intake.trades)) == (quotes, trades)
    assert intake.quotes.tobytes() == b"".join(batch.quotes.tobytes() for batch in expected)
    assert intake.trades.tobytes() == b"".join(batch.trades.tobytes() for batch in expected)
    channels = [channel for batch in intake.batches for channel in batch.channels.tolist()]
    assert channels == [channel for batch in expected for channel in batch.channels.tolist()]
    assert "broken_line" not in intake.events
    assert trio.current_time() == pytest.approx((max(times) - times[0]) / 1e9, abs=1e-3)
    # A batch is published when its first tick is due, so no tick is early by more than a slot.
    at = 0
    for published_s, batch in zip(intake.published_at_s, intake.batches, strict=True):
        assert published_s >= (times[at] - times[0]) / 1e9 - 1e-6
        at += len(batch)
