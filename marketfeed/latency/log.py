"""Writer of the latency log: an HdrHistogram interval log, which other HdrHistogram tools open.

Format 1.3, as the Java implementation writes it: comment lines with version
and start time, a legend, then a line per histogram,

    Tag=hop=send;tier=vip;worker=0,<start s>,<length s>,<max, ms>,<V2 histogram, zlib, base64>

Times are seconds since the Unix epoch. Source: HistogramLogReader and
HistogramLogWriter of https://github.com/HdrHistogram/HdrHistogram. The
encoding is that of the hdrhistogram package, whose own log writer does not
support tags.

Values above the range are not in the histogram; a comment gives their number.

If the log cannot be written, the engine continues without it: ``problem`` has
the reason, and the next interval is tried again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from marketfeed.core.units import MINUTE_NS, MS, S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from marketfeed.latency.intervals import Interval

BEYOND: Final = "#[Beyond: "


def header(start_ns: int) -> str:
    """Return the header of a log whose first interval begins at ``start_ns``.

    The start time in it is a full minute earlier: readers skip intervals before it, and the first interval
    of another worker may begin earlier.
    """
    start_ns -= start_ns % MINUTE_NS + MINUTE_NS
    start = datetime.fromtimestamp(start_ns / S, UTC)
    return (
        "#[Latencies by marketfeed, in ns]\n"
        "#[Histogram log format version 1.3]\n"
        f"#[StartTime: {start_ns / S:.3f} (seconds since epoch), {start:%Y-%m-%d %H:%M:%S} UTC]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    )


def line(interval: Interval) -> str:
    """Return the line of ``interval``, after a comment if some values are above the range."""
    length_s = (interval.end_ns - interval.start_ns) / S
    start_s, max_ms = interval.start_ns / S, interval.max_ns / MS
    text = (
        f"Tag={interval.tag},{start_s:.3f},{length_s:.3f},{max_ms:.3f},{interval.encoded.decode('ascii')}\n"
    )
    return f"{BEYOND}{interval.beyond} {interval.tag}]\n{text}" if interval.beyond else text


class IntervalLog:
    """Appends to ``path``; begins a new file each day (UTC) and before it would exceed ``max_bytes``.

    A complete file is renamed to ``<stem>-<date>T<time>Z<suffix>``, with the
    time of the renaming; the oldest files beyond ``keep_files`` are removed.
    Blocking: call it from a thread.
    """

    def __init__(self, path: Path, max_bytes: int, keep_files: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.keep_files = keep_files
        self.problem: str | None = None  # why the last write failed
        self.failures = 0
        self.written_bytes = 0
        self._fd: int | None = None
        self._headed = False  # whether this process has written a header to the open file
        self._day = 0

    def write(self, intervals: Sequence[Interval], now_ns: int) -> bool:
        """Append ``intervals``, all or none; if that fails, set ``problem`` and return False."""
        try:
            self._append(intervals, now_ns)
        except OSError as error:
            self.failures += 1
            self.problem = f"{self.path}: {error.strerror or error}"
            self.close()
            return False
        self.problem = None
        return True

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):  # the write before has reported any error
                os.close(fd)

    def _append(self, intervals: Sequence[Interval], now_ns: int) -> None:
        text = "".join(map(line, intervals)).encode("ascii")
        day = now_ns // (86_400 * S)
        fd, size = self._opened()
        if size and (day != self._day or size + len(text) > self.max_bytes):
            self._rotate(now_ns)
            fd, size = self._opened()
        # An earlier writer may have been killed within a line.
        begin = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
        if intervals and not self._headed:
            begin += header(min(interval.start_ns for interval in intervals)).encode("ascii")
            self._headed = True
        self._put(fd, size, begin + text)
        self._day = day
        self.written_bytes += len(begin) + len(text)

    def _opened(self) -> tuple[int, int]:
        """Return the open file and its size; open it if it is closed, or was moved or deleted."""
        if self._fd is not None:
            opened, there = os.fstat(self._fd), self._status()
            if there is not None and (there.st_ino, there.st_dev) == (opened.st_ino, opened.st_dev):
                return self._fd, _size(opened)
            self.close()  # the file was moved or deleted
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # O_NONBLOCK: the path may be a pipe without a reader.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(self.path, flags, 0o644)
        self._headed = False
        status = os.fstat(self._fd)
        self._day = int(status.st_mtime) // 86_400
        return self._fd, _size(status)

    def _status(self) -> os.stat_result | None:
        try:
            return os.stat(self.path)
        except FileNotFoundError:
            return None

    def _rotate(self, now_ns: int) -> None:
        self.close()
        stamp = f"{datetime.fromtimestamp(now_ns / S, UTC):%Y%m%dT%H%M%SZ}"
        target, number = self._sibling(stamp), 1
        while target.exists():
            number += 1
            target = self._sibling(f"{stamp}.{number}")
        self.path.rename(target)
        complete = sorted(self.path.parent.glob(f"{self.path.stem}-*Z*{self.path.suffix}"))
        for old in complete[: max(len(complete) - self.keep_files, 0)]:
            old.unlink(missing_ok=True)

    def _sibling(self, stamp: str) -> Path:
        return self.path.with_name(f"{self.path.stem}-{stamp}{self.path.suffix}")

    def _put(self, fd: int, size: int, data: bytes) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        except OSError:
            # Remove a partial line, which readers would refuse.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise


def _size(status: os.stat_result) -> int:
    """Return the size of a regular file, else 0: others are never rotated, and get a header each time."""
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
