"""Bounded log of sealed frames, from which a node answers requests for missing ticks.

The origin logs what it sends, a mirror what it writes. Frames are in order of g without holes; the oldest
are dropped when the log exceeds its limit. Memory: ``log_bytes`` at most, each frame counted with
OVERHEAD_BYTES; at 64 bytes a tick in full frames, 256 MB are 4 s of a million ticks per second. Complexity:
``append`` amortised O(1), ``between`` O(log n) for n frames, and O(1) per frame returned.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

OVERHEAD_BYTES: Final = 128  # of a frame in the log: bytes object, integer, two list entries
ANSWER_BYTES: Final = 16 << 20  # of frames in one answer
_COMPACT: Final = 1024  # dropped entries at the start of the lists, below which they stay


class Found(NamedTuple):
    """Frames that cover a range, as far as the log and the limit of an answer reach."""

    frames: list[bytes]
    last_g: int  # of the newest of them; below ``first`` of the request if there are none


class FrameLog:
    """Frames without holes up to the newest one, at most ``log_bytes`` of them."""

    def __init__(self, log_bytes: int) -> None:
        self.log_bytes = log_bytes
        self.held_bytes = 0
        self._frames: list[bytes] = []
        self._lasts: list[int] = []  # last_g of each
        self._start = 0  # index of the oldest; entries before it are dropped
        self._first_g = 0  # of the oldest

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames) - self._start

    @property
    def oldest_g(self) -> int:
        """Return the first ``g`` that the log holds; 0 if it is empty."""
        return self._first_g if len(self) else 0

    @property
    def newest_g(self) -> int:
        """Return the last ``g`` that the log holds; 0 if it is empty."""
        return self._lasts[-1] if len(self) else 0

    def append(self, frame: bytes, first_g: int, last_g: int) -> None:
        """Add a frame with the ticks ``first_g`` to ``last_g``; it may overlap with the newest one.

        After a hole the log starts anew, so that it never returns frames on both sides of one.
        """
        if not len(self) or first_g > self.newest_g + 1:
            self.clear()
            self._first_g = first_g
        elif last_g <= self.newest_g:
            return
        self._frames.append(frame)
        self._lasts.append(last_g)
        self.held_bytes += len(frame) + OVERHEAD_BYTES
        while self.held_bytes > self.log_bytes and len(self):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        at = self._start
        self.held_bytes -= len(self._frames[at]) + OVERHEAD_BYTES
        self._first_g = self._lasts[at] + 1
        self._frames[at] = b""  # frees the frame before its entry
        self._start += 1
        if self._start >= _COMPACT and 2 * self._start >= len(self._frames):
            del self._frames[: self._start], self._lasts[: self._start]
            self._start = 0

    def clear(self) -> None:
        """Drop all frames."""
        self._frames.clear()
        self._lasts.clear()
        self._start = self._first_g = self.held_bytes = 0

    def between(self, first_g: int, last_g: int, most_bytes: int = ANSWER_BYTES) -> Found | None:
        """Return frames with the ticks ``first_g`` to ``last_g``; None if the first is gone.

        The result ends at the newest frame, and before the frame that would exceed ``most_bytes``, but has
        one frame at least if there is one. The first and the last frame may reach beyond the range.
        """
        if not len(self) or first_g < self._first_g:
            return None
        frames: list[bytes] = []
        upto, size = first_g - 1, 0
        for at in range(bisect_left(self._lasts, first_g, self._start), len(self._frames)):
            frame = self._frames[at]
            size += len(frame)
            if upto >= last_g or (frames and size > most_bytes):
                break
            frames.append(frame)
            upto = self._lasts[at]
        return Found(frames, upto)
