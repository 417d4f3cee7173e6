"""Several recordings as one, by time, none of them held whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.core.records import Records
    from marketfeed.feeds.replay.columns import TimedRecords

Times = NDArray[np.int64]
_NO_TIMES: Final = np.empty(0, np.int64)


def merged(sources: list[Iterator[TimedRecords]]) -> Iterator[TimedRecords]:
    """Yield the pieces of all ``sources`` as pieces in order of time.

    Each source is assumed to be in order. One piece of each is buffered; rows up to the earliest last
    row of these are yielded, sorted by time. An empty piece follows each that is read, so that the caller can
    let other tasks run.
    """
    held: dict[int, tuple[Records, Times, Times]] = {}  # ticks, their times, and the times they are sorted by
    live = dict(enumerate(sources))
    while True:
        for number in [n for n in live if n not in held]:
            piece = next((p for p in live[number] if len(p[1])), None)
            if piece is None:
                del live[number]
            else:
                # After a clock that went back, not before what stands before it in its source.
                held[number] = (*piece, np.maximum.accumulate(piece[1]))
                yield piece[0][:0], _NO_TIMES
        if not held:
            return
        # A source that is not at its end may go on at the time of its last row.
        bound = min(int(due[-1]) for _, _, due in held.values())
        ready: list[tuple[Records, Times, Times]] = []
        for number, (records, times, due) in list(held.items()):
            end = int(np.searchsorted(due, bound, "right"))
            ready.append((records[:end], times[:end], due[:end]))
            if end == len(times):
                del held[number]
            else:
                held[number] = (records[end:], times[end:], due[end:])
        records, times, due = (np.concatenate(columns) for columns in zip(*ready, strict=True))
        order = np.argsort(due, kind="stable")  # of one moment: in order of the sources
        yield records[order], times[order]
