"""A live engine recorded by a real process: complete, equal to what was fed in, whole when killed."""

from __future__ import annotations

import contextlib
import gzip
import re
import signal
import socket
import subprocess
import sys
import threading
from itertools import islice

import msgspec
import numpy as np
import pytest
import trio

from marketfeed.errors import ConfigError
from marketfeed.feeds.replay import ReplayConfig, ReplayFeed
from marketfeed.testing import RecordingIntake
from tests.support.process import Engine, engine

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 50\nrate = 5000\n'
READY_S = 30


class Recorder:
    """``marketfeed record`` as a process."""

    def __init__(self, running, folder, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "marketfeed", "record", "--url", running.url, *arguments],
            cwd=folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self, with_signal=signal.SIGINT):
        """Send a signal; return the exit status and what was said."""
        self.process.send_signal(with_signal)
        _, said = self.process.communicate(timeout=READY_S)
        return self.process.returncode, said


@pytest.fixture
def record():
    """Start recorders; none outlives the test."""
    started = []

    def start(*arguments):
        started.append(Recorder(*arguments))
        return started[-1]

    yield start
    for recorder in started:
        if recorder.process.poll() is None:
            recorder.process.kill()
            recorder.process.communicate()


def wait_for(condition):
    """Wait until ``condition()`` is true, as the file system and another process will have it."""

    async def poll():
        with trio.fail_after(READY_S):
            while not condition():
                await trio.sleep(0.02)

    trio.run(poll)


def replayed(folder, **settings):
    """Return what a recording replays, as fast as it goes."""
    intake = RecordingIntake(base=folder)
    feed = ReplayFeed(msgspec.convert({"speed": 0, **settings}, ReplayConfig), intake)
    trio.run(feed.run, intake.publish)
    return intake


def recorded_bytes(folder):
    return sum(path.stat().st_size for path in folder.glob("*.mfr*"))


def test_a_recording_replays_the_ticks_that_the_engine_was_fed(realdata, tmp_path, record):
    with gzip.open(realdata / "binance_raw_ws/usdm_btcusdt_20240808.gz") as file:
        (tmp_path / "source.txt").write_bytes(b"".join(islice(file, 20_000)))
    feed = '[[feeds]]\nname = "btc"\ntype = "replay"\npath = "source.txt"\nspeed = 50.0\nstart_sessions = 1\n'
    with engine(feed, tmp_path) as running:
        recorder = record(running, tmp_path, "--out", "day.mfr.zst")
        done = running.logged("feed done")
        left = (done["quotes"], done["trades"])
        wait_for(lambda: written_ticks(tmp_path) == sum(left))
        status, said = recorder.end()
    assert status == 0
    assert said.endswith("complete\n")
    fed, got = (
        replayed(tmp_path, path="source.txt"),
        replayed(tmp_path, path="day.mfr.zst", format="marketfeed"),
    )
    assert len(fed.quotes) + len(fed.trades) == sum(left) > 15_000
    # All that a replay gives is equal, byte for byte: times of the venue, prices, sizes, sides, ids.
    assert got.quotes.tobytes() == fed.quotes.tobytes()
    assert got.trades.tobytes() == fed.trades.tobytes()
    channels = [np.concatenate([batch.channels for batch in i.batches]).tolist() for i in (fed, got)]
    assert channels[0] == channels[1]
    assert not got.events


def written_ticks(folder):
    """Return how many ticks a recording under way holds so far."""
    config = msgspec.convert({"path": "day.mfr.zst", "format": "marketfeed"}, ReplayConfig)
    try:
        feed = ReplayFeed(config, RecordingIntake(base=folder))
    except ConfigError:  # not begun yet
        return 0
    return sum(len(decoded.batch) for decoded in feed.chunks())


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_when_told_to(tmp_path, ending, record):
    with engine(SYNTHETIC, tmp_path) as running:
        recorder = record(running, tmp_path, "SY000*", "--out", "day.mfr.zst")
        wait_for(lambda: recorded_bytes(tmp_path) > 10_000)
        status, said = recorder.end(ending)
    assert status == 0
    match = re.fullmatch(
        r"marketfeed record: day.mfr.zst: ([\d,]+) quotes, ([\d,]+) trades .* complete\n", said
    )
    assert match, said
    intake = replayed(tmp_path, path="day.mfr.zst", format="marketfeed")
    assert [len(intake.quotes), len(intake.trades)] == [int(n.replace(",", "")) for n in match.groups()]
    assert set(intake.symbols.names()) <= {f"SY{n:04}" for n in range(10)}
    assert not intake.events


def test_a_recorder_that_is_killed_leaves_a_file_that_is_whole_up_to_there(tmp_path, record):
    with engine(SYNTHETIC, tmp_path) as running:
        recorder = record(running, tmp_path, "--out", "day.mfr.zst")
        wait_for(lambda: recorded_bytes(tmp_path) > 50_000)
        status, _ = recorder.end(signal.SIGKILL)
    assert status == -signal.SIGKILL
    intake = replayed(tmp_path, path="day.mfr.zst", format="marketfeed")
    assert len(intake.quotes) > 500
    assert intake.events == {"broken_record": 1}
    assert "cut short" in intake.logged[0]["reason"]


def test_rotated_files_are_one_recording(tmp_path, record):
    with engine(SYNTHETIC, tmp_path) as running:
        recorder = record(running, tmp_path, "--out", "day.mfr.zst", "--rotate-mb", "0.03")
        wait_for(lambda: len(list(tmp_path.glob("day.*.mfr.zst"))) >= 4)
        status, said = recorder.end()
    assert status == 0
    intake = replayed(tmp_path, path="day.*.mfr.zst", format="marketfeed")
    assert f"{len(intake.quotes):,} quotes, {len(intake.trades):,} trades" in said
    assert not intake.events


def test_on_a_tier_that_conflates_a_recording_says_what_it_lacks(tmp_path, record):
    with engine(SYNTHETIC, tmp_path) as running:
        recorder = record(running, tmp_path, "SY0000", "--out", "day.mfr.zst", "--tier", "premium")
        wait_for(lambda: written_ticks(tmp_path) > 10)
        status, said = recorder.end()
    assert status == 1
    assert re.search(r"[\d,]+ missing .* not complete\n$", said), said


class Cutter(threading.Thread):
    """A proxy that cuts its first connection after ``size`` bytes from the engine, and lets later ones be."""

    def __init__(self, port, size):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}/v1/stream"
        self.accepted = 0
        self._port, self._left = port, size
        self.start()

    def run(self):
        with contextlib.suppress(OSError):  # closed at the end of the test
            while True:
                client, _ = self.listener.accept()
                self.accepted += 1
                engine = socket.create_connection(("127.0.0.1", self._port))
                last = self.accepted > 1
                threading.Thread(target=self._pass_on, args=(client, engine, None), daemon=True).start()
                self._pass_on(engine, client, None if last else self._left)
                for sock in (client, engine):
                    with sock, contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)  # closing would wait for the other thread

    @staticmethod
    def _pass_on(source, target, left):
        with contextlib.suppress(OSError):
            while data := source.recv(65536 if left is None else min(left, 65536)):
                target.sendall(data)
                if left is not None:
                    left -= len(data)
                    if not left:
                        return
            target.shutdown(socket.SHUT_WR)


def test_a_cut_connection_is_resumed_and_nothing_is_missing(realdata, tmp_path, record):
    with gzip.open(realdata / "binance_raw_ws/usdm_btcusdt_20240808.gz") as file:
        (tmp_path / "source.txt").write_bytes(b"".join(islice(file, 20_000)))
    feed = '[[feeds]]\nname = "btc"\ntype = "replay"\npath = "source.txt"\nspeed = 25.0\nstart_sessions = 1\n'
    with engine("[engine]\nmax_symbols = 16\nring_depth = 65536\n" + feed, tmp_path) as running:
        cutter = Cutter(running.port, 400_000)
        running.url = cutter.url
        recorder = record(running, tmp_path, "--out", "day.mfr.zst")
        done = running.logged("feed done")
        wait_for(lambda: written_ticks(tmp_path) == done["quotes"] + done["trades"])
        status, said = recorder.end()
        cutter.listener.close()
    assert status == 0
    assert cutter.accepted == 2
    assert "reconnected 1×" in said
    assert said.endswith("complete\n")
    fed, got = (
        replayed(tmp_path, path="source.txt"),
        replayed(tmp_path, path="day.mfr.zst", format="marketfeed"),
    )
    assert got.quotes.tobytes() == fed.quotes.tobytes()
    assert got.trades.tobytes() == fed.trades.tobytes()


def test_an_engine_that_restarts_is_recorded_on_and_that_is_told(tmp_path, record):
    with engine(SYNTHETIC, tmp_path) as running:
        recorder = record(running, tmp_path, "--out", "day.mfr.zst")
        wait_for(lambda: recorded_bytes(tmp_path) > 10_000)
        port = running.port
        assert running.stop() == 0
        arguments = ("--config", "config.toml", "--set", f"gateway.port={port}", "--set", "admin.port=0")
        before = recorded_bytes(tmp_path)
        again = Engine(*arguments, cwd=tmp_path)
        try:
            wait_for(lambda: recorded_bytes(tmp_path) > before + 10_000)
            status, said = recorder.end()
        finally:
            again.close()
    assert status == 1
    assert "reconnected" in said
    assert "the engine restarted 1×" in said
    assert said.endswith("not complete\n")
    intake = replayed(tmp_path, path="day.mfr.zst", format="marketfeed")
    assert "broken_record" not in intake.events


@pytest.mark.parametrize("name", ["day.mfr", "day.mfr.zst"])
def test_a_full_disk_ends_it_and_what_was_written_before_stays_whole(tmp_path, record, name):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        with engine(SYNTHETIC, tmp_path) as running:
            recorder = record(running, tmp_path, "--out", f"disk/{name}")
            _, said = recorder.process.communicate(timeout=2 * READY_S)
        assert recorder.process.returncode == 1
        failure, summary = said.splitlines()
        assert failure == "marketfeed record: cannot write: No space left on device"
        match = re.search(
            r": ([\d,]+) quotes, ([\d,]+) trades .* ([\d,]+) ticks not written .* not complete$", summary
        )
        assert match, summary
        quotes, trades, unwritten = (int(number.replace(",", "")) for number in match.groups())
        intake = replayed(disk, path=name, format="marketfeed")
        assert len(intake.quotes) + len(intake.trades) == quotes + trades - unwritten > 1000
        assert set(intake.events) <= ({"broken_record"} if name.endswith(".zst") else set())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_names_that_the_engine_does_not_know_are_told_at_once_and_make_it_incomplete(tmp_path, record):
    with engine(SYNTHETIC, tmp_path) as running:
        recorder = record(running, tmp_path, "SY0000", "sy0001", "NOPE*", "--out", "day.mfr")
        told = [recorder.process.stderr.readline() for _ in range(2)]
        wait_for(lambda: recorded_bytes(tmp_path) > 5_000)
        status, said = recorder.end()
    begun = "marketfeed record: sy0001: the engine has no such symbol; did you mean SY0001"
    assert told[0].startswith(begun)
    assert told[1] == "marketfeed record: NOPE*: the engine has no symbol with this prefix (waiting for it)\n"
    assert status == 1
    assert re.search(r"no ticks of sy0001, NOPE\*  ·  \d+ s, not complete\n$", said), said


def test_a_connection_that_is_cut_and_does_not_come_back_leaves_it_incomplete(tmp_path, record):
    with engine(SYNTHETIC, tmp_path) as running:
        recorder = record(running, tmp_path, "--out", "day.mfr")
        wait_for(lambda: recorded_bytes(tmp_path) > 5_000)
        assert running.stop() == 0
        status, said = recorder.end()
    assert status == 1
    assert re.search(r"disconnected at the end  ·  \d+ s, not complete\n$", said), said


def run_record(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "marketfeed", "record", *arguments, "--seconds", "20"],
        cwd=folder, capture_output=True, text=True, timeout=READY_S,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--out", "day.txt"], 2, "--out day.txt: must end in .mfr, or .mfr.zst"),
        (["--out", "day.mfr", "--url", "ftp://x"], 2, "--url ftp://x: must be http://HOST:PORT"),
        (["--out", "day.mfr", "--url", "ws://127.0.0.1:1/v1/stream"], 1, "refused, is the engine running?"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, arguments, status, said):
    done = run_record(tmp_path, *arguments)
    assert done.returncode == status
    assert said in done.stderr.splitlines()[0]
    assert done.stderr.startswith("marketfeed")


def test_what_the_engine_refuses_is_told_and_not_tried_again(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running:
        for arguments in (["--tier", "gold"], ["a b"]):
            done = run_record(tmp_path, *arguments, "--out", "day.mfr", "--url", running.url)
            assert done.returncode == 1
            assert done.stderr.startswith("marketfeed record: error 400: ")
    assert not (tmp_path / "day.mfr").exists()
