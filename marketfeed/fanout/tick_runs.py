"""Ticks on their way to one session, encoded: in columns, as a session may have thousands of them to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from marketfeed.fanout.wire import FrameContent

if TYPE_CHECKING:
    from numpy.typing import NDArray

Piece = tuple[int, bytes]  # g and fragment of a tick


class Run(NamedTuple):
    """Ticks in order of ``g``, n of them."""

    gs: NDArray[np.uint64]  # (n,)
    channels: list[int]  # n
    fragments: list[bytes]  # n

    def pieces(self) -> list[Piece]:
        """Return them one by one, for sums that cut and mix them."""
        return list(zip(self.gs.tolist(), self.fragments, strict=True))

    def step(self, part: slice, mixed: bool) -> FrameContent:
        """Return a part of them as what one frame is to hold; ``mixed`` as encodings have it."""
        step = FrameContent(mixed)
        if mixed:
            step.ticks.extend(self.fragments[part])
        else:
            for channel, fragment in zip(self.channels[part], self.fragments[part], strict=True):
                (step.ticks, step.trades)[channel].append(fragment)
        return step


EMPTY: Final = Run(np.empty(0, np.uint64), [], [])


def size_of(pieces: list[Piece]) -> int:
    """Return how many bytes the fragments take in an array, commas included."""
    return sum(len(fragment) + 1 for _, fragment in pieces)


def merged(runs: list[Run]) -> Run:
    """Return the runs of several channels as one."""
    runs = [run for run in runs if run.fragments]
    if len(runs) <= 1:
        return runs[0] if runs else EMPTY
    gs = np.concatenate([run.gs for run in runs])
    order = gs.argsort()
    channels = [channel for run in runs for channel in run.channels]
    fragments = [fragment for run in runs for fragment in run.fragments]
    at = order.tolist()
    return Run(gs[order], [channels[i] for i in at], [fragments[i] for i in at])
