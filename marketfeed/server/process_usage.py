"""CPU time and memory of this process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_s() -> float:
    """Return the CPU time of all threads so far, in seconds."""
    return time.process_time()


def resident_bytes() -> int:
    """Return the resident memory in bytes. Source: proc_pid_statm(5)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
