"""A worker that is busy goes on, and one that is stuck is replaced: real processes, in real trouble."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from tests.support.crowd import join, lives, metrics, workers
from tests.support.process import engine

pytestmark = pytest.mark.alone

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'
ONE = ("--set", "engine.workers=1")
ALL = {"action": "subscribe", "quotes": ["*"]}

# Loaded by the interpreter of a worker before anything of ours.
TROUBLE = """
import signal, sys, time
import trio

async def work():
    time.sleep(0.02)

async def work_hard():
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(work)

def be_busy(number, frame):
    # In one round of the loop: four seconds in which nobody is answered.
    trio.lowlevel.spawn_system_task(work_hard)

def be_stuck(number, frame):
    while True:
        pass

if "marketfeed.workers.__main__" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, be_busy)
    signal.signal(signal.SIGUSR2, be_stuck)
"""


def troubled(folder, monkeypatch):
    (folder / "sitecustomize.py").write_text(TROUBLE)
    monkeypatch.setenv("PYTHONPATH", str(folder))


async def test_a_worker_that_is_busy_for_longer_than_it_may_be_silent_is_not_killed(tmp_path, monkeypatch):
    troubled(tmp_path, monkeypatch)
    with trio.fail_after(90), engine(SYNTHETIC, tmp_path, *ONE) as running:
        async with trio.open_nursery() as nursery:
            (session,) = await join(nursery, running, 1, ALL)
            await session.until(10)
            (pid,) = workers(running)
            os.kill(pid, signal.SIGUSR1)
            await trio.sleep(5)
            await session.go_on(10)
            assert not session.ended.is_set()
            assert workers(running) == [pid]
            assert metrics(running)["marketfeed_worker_restarts_total",] == 0
            assert running.stop() == 0
            nursery.cancel_scope.cancel()


async def test_a_worker_that_runs_and_makes_no_progress_is_replaced(tmp_path, monkeypatch):
    troubled(tmp_path, monkeypatch)
    with trio.fail_after(90), engine(SYNTHETIC, tmp_path, *ONE) as running:
        (pid,) = workers(running)
        os.kill(pid, signal.SIGUSR2)
        while not any(entry["event"] == "worker started" for entry in running.log):
            await trio.sleep(0.01)
        assert not lives(pid)
        assert "no progress" in running.logged("worker ended")["reason"]
        async with trio.open_nursery() as nursery:
            (session,) = await join(nursery, running, 1, ALL)
            await session.go_on(10)
            assert running.stop() == 0
            nursery.cancel_scope.cancel()
