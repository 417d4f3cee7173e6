"""Encoded ticks for one session, in columns, as thousands may be due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from marketfeed.fanout.wire import FrameContent

if TYPE_CHECKING:
    from numpy.typing import NDArray

EncodedTick = tuple[int, bytes]  # g and fragment of a tick


class Run(NamedTuple):
    """``n`` encoded ticks in order of ``g``."""

    gs: NDArray[np.uint64]  # (n,)
    channels: list[int]  # n
    fragments: list[bytes]  # n

    def ticks(self) -> list[EncodedTick]:
        """Return the ticks one by one."""
        return list(zip(self.gs.tolist(), self.fragments, strict=True))

    def content(self, part: slice, mixed: bool) -> FrameContent:
        """Return the ticks in ``part`` as the content of one frame; ``mixed`` as in Encoding."""
        content = FrameContent(mixed)
        if mixed:
            content.ticks.extend(self.fragments[part])
        else:
            for channel, fragment in zip(self.channels[part], self.fragments[part], strict=True):
                (content.ticks, content.trades)[channel].append(fragment)
        return content


EMPTY: Final = Run(np.empty(0, np.uint64), [], [])


def size_of(ticks: list[EncodedTick]) -> int:
    """Return the size of the fragments in a JSON array, commas included."""
    return sum(len(fragment) + 1 for _, fragment in ticks)


def merged(runs: list[Run]) -> Run:
    """Return the runs of several channels as one run."""
    runs = [run for run in runs if run.fragments]
    if len(runs) <= 1:
        return runs[0] if runs else EMPTY
    gs = np.concatenate([run.gs for run in runs])
    order = gs.argsort()
    channels = [channel for run in runs for channel in run.channels]
    fragments = [fragment for run in runs for fragment in run.fragments]
    at = order.tolist()
    return Run(gs[order], [channels[i] for i in at], [fragments[i] for i in at])
