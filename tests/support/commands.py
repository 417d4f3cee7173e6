"""Runs one `marketfeed` command."""

from __future__ import annotations

import subprocess
import sys


def command(folder, *arguments):
    """Run a command of the program; return its status and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr
