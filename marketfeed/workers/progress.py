"""Progress of a worker: its event loop counts task steps in a page of memory that the engine maps too.

A worker that serves thousands of sessions at once may take seconds to respond to a liveness
check, although each of its steps takes milliseconds. Only a worker that makes no step hangs.
A worker that is ready to run but gets no CPU, or waits for a disk, does not hang.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

import trio

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


class StepPage:
    """The engine's end: the page of one worker. :meth:`close` closes its descriptor, ``fd``."""

    def __init__(self) -> None:
        """Create the page; raises OSError."""
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
        """Return how many task steps the worker has begun."""
        return self._steps[0]

    def close(self) -> None:
        """Unmap the page and close its descriptor."""
        self._steps.release()
        self._page.close()
        os.close(self.fd)


class Pulse(trio.abc.Instrument):
    """The worker's end: counts each task step. Costs half a microsecond a step."""

    def __init__(self, fd: int) -> None:
        """``fd`` is the page of the engine's :class:`StepPage`."""
        self._count = 0
        self._steps = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one step."""
        self._count += 1
        self._steps[0] = self._count


def cpu_usage(pid: int) -> tuple[bool, float]:
    """Return whether process ``pid`` runs, or would with more CPU or memory, and its CPU time in seconds.

    That is in the states R, and D: waiting for a page or a disk, where it cannot be killed either.
    Returns False and infinity if the process has ended. Source: proc_pid_stat(5).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False, float("inf")
    return fields[0] in "RD", (int(fields[11]) + int(fields[12])) * _TICK_S
