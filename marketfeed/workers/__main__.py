"""Entry point of a worker process: has the kernel kill it if the engine dies, then starts the worker.

``python -m marketfeed.workers.__main__ CONTROL RINGS DOORBELL PROGRESS ENGINE_PID LOG_LEVEL``; the first four
are descriptors.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def main() -> None:
    """Run a worker until the engine has it drain, or ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the engine handles them
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    control, rings, doorbell, progress, engine = map(int, sys.argv[1:6])
    if os.getppid() != engine:  # the engine died before prctl
        sys.exit(1)
    from marketfeed.workers.worker import run

    sys.exit(run(control, rings, doorbell, progress, sys.argv[6]))


if __name__ == "__main__":
    main()
