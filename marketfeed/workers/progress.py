"""Whether a worker makes progress: its event loop counts its steps in a page that the engine sees too.

A worker that serves thousands at once may take seconds to come to the engine's question,
and must not be killed for that; each of its steps takes milliseconds. One that counts no
further is stuck. One that the machine does not let run is not: it is ready to, and has used no time.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

import trio

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


class StepPage:
    """The engine's end: the page of one worker, ``fd``, which is closed by :meth:`close`."""

    def __init__(self) -> None:
        """Make the page; raises OSError."""
        self.fd = os.memfd_create("marketfeed-progress", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, mmap.PAGESIZE)
            self._page = mmap.mmap(self.fd, mmap.PAGESIZE)
        except BaseException:
            os.close(self.fd)
            raise
        self._steps = memoryview(self._page).cast("Q")

    @property
    def steps(self) -> int:
        """Return how many steps the worker's loop has begun."""
        return self._steps[0]

    def close(self) -> None:
        """Let go of the page."""
        self._steps.release()
        self._page.close()
        os.close(self.fd)


class Pulse(trio.abc.Instrument):
    """The worker's end: counts each step of a task. Costs half a microsecond a step."""

    def __init__(self, fd: int) -> None:
        """``fd`` is the page of the engine's :class:`StepPage`."""
        self._count = 0
        self._steps = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one step."""
        self._count += 1
        self._steps[0] = self._count


def used(pid: int) -> tuple[bool, float]:
    """Return whether process ``pid`` is ready to run, and how much CPU time it has had, in seconds.

    Not ready, and infinitely much, once it is gone. Source: proc_pid_stat(5).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False, float("inf")
    return fields[0] == "R", (int(fields[11]) + int(fields[12])) * _TICK_S
