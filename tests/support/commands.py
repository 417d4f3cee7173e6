"""Runner of `marketfeed` commands."""

from __future__ import annotations

import subprocess
import sys


def command(folder, *arguments):
    """Run a command; return its exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr
