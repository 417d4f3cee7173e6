"""The tap of a real engine, read by real processes, and what each notices of the other's death."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import marketfeed
from marketfeed.errors import TapError
from tests.support import SUPPORT
from tests.support.process import engine

ROOT = Path(__file__).parents[2]
READER = SUPPORT / "tap_reader.py"
CONFIG = """
[engine]
tap = "tap.sock"
drain_s = 0.5
max_symbols = 20
ring_depth = 65536  # readers here are stopped for a while, and are to lose nothing
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 20
rate = 2000
"""


class Reader:
    """A reader process; ``next`` is what it said last."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(READER), str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def next(self) -> dict:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def until(self, key: str) -> dict:
        while key not in (said := self.next()):
            assert said["holes"] == said["lost"] == 0
        return said

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def reader(path):
    running = Reader(path)
    try:
        yield running
    finally:
        running.close()


def test_a_reader_process_follows_without_a_hole_and_its_death_is_nothing(tmp_path):
    path = tmp_path / "tap.sock"
    with engine(CONFIG, tmp_path) as served:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with reader(path) as one, reader(path) as two:
            assert one.next()["epoch"] == two.next()["epoch"] == served.ready.split("epoch=")[1]
            for _ in range(50):
                said = one.next()
                assert (said["lost"], said["holes"], said["names"]) == (0, 0, 20)
            one.process.kill()
            one.process.wait()
            served.logged("tap closed")
            before = two.next()["ticks"]
            for _ in range(50):
                said = two.next()
                assert (said["lost"], said["holes"]) == (0, 0)
            assert said["ticks"] > before
            # One that sleeps is rung all the same, and the engine goes on.
            two.process.send_signal(signal.SIGSTOP)
            with reader(path) as three:
                three.next()
                for _ in range(50):
                    assert three.next()["holes"] == 0
            two.process.send_signal(signal.SIGCONT)
            assert served.stop() == 0
            assert "has ended" in two.until("gone")["gone"]
    assert not path.exists()


def test_a_killed_engine_is_noticed_and_its_successor_is_another(tmp_path):
    path = tmp_path / "tap.sock"
    with engine(CONFIG, tmp_path) as served, reader(path) as watching:
        epoch = watching.next()["epoch"]
        while watching.next()["ticks"] < 2000:  # by then each symbol has had one
            pass
        served.stop(signal.SIGKILL)
        last = watching.until("gone")
        assert epoch in last["gone"]
        assert last["readable"] == 20
        assert watching.process.wait(30) == 0
    assert path.exists()  # nobody was there to remove it
    with pytest.raises(TapError, match="has ended"):
        marketfeed.tap(path)
    with engine(CONFIG, tmp_path), marketfeed.tap(path) as tap:
        assert tap.epoch != epoch
        assert tap.wait(30)


def test_a_second_engine_does_not_take_a_living_ones_tap(tmp_path):
    with engine(CONFIG, tmp_path) as served:
        arguments = [
            "--config",
            str(tmp_path / "config.toml"),
            "--set",
            "gateway.port=0",
            "--set",
            "admin.port=0",
        ]
        second = subprocess.run(
            [sys.executable, "-m", "marketfeed", "serve", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert second.returncode == 2
        (line,) = [line for line in second.stderr.splitlines() if line.startswith("marketfeed: ")]
        assert "engine.tap: cannot listen at" in line
        assert "another process is listening there" in line
        with marketfeed.tap(tmp_path / "tap.sock") as tap:
            assert tap.wait(30)
        assert served.stop() == 0


def test_the_example_runs(tmp_path):
    with engine(CONFIG, tmp_path):
        done = subprocess.run(
            [sys.executable, "-W", "error", str(ROOT / "examples" / "tap.py")],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert "spread" in done.stdout
