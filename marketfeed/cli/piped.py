"""Output of commands that follow an engine: flushed line by line, and quiet when its reader has gone."""

from __future__ import annotations

import os
import stat
import sys
from typing import IO

import trio


class PipeClosedError(Exception):
    """The reader of stdout has closed the pipe, as ``head`` does."""


def print_flushed(*lines: str) -> None:
    """Print ``lines``, then flush stdout; raises PipeClosedError."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        raise PipeClosedError from None


def discard_stdout() -> None:
    """Send stdout to nowhere: otherwise the interpreter's final flush would print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def wait_reader_gone(file: IO[str]) -> None:
    """Wait until the reader of a pipe has closed it; forever if ``file`` is no pipe."""
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
    except OSError:  # it has no descriptor
        is_pipe = False
    if not is_pipe:
        await trio.sleep_forever()
    # Nothing comes to the end that is written to: it is "readable" once the other end is closed.
    await trio.lowlevel.wait_readable(file.fileno())
