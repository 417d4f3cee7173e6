"""Streaming merge of several recordings by time."""

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
    """Merge the chunks of all ``sources`` by time.

    Each source must be in order of time. One chunk of each source is buffered; rows up to the earliest last
    row of the buffered chunks are yielded, sorted by time. An empty chunk is yielded after each chunk read,
    so that the caller can run other tasks.
    """
    held: dict[int, tuple[Records, Times, Times]] = {}  # ticks, times, sort keys
    live = dict(enumerate(sources))
    while True:
        for number in [n for n in live if n not in held]:
            chunk = next((c for c in live[number] if len(c[1])), None)
            if chunk is None:
                del live[number]
            else:
                # If the recorded time steps back, the rows keep their order within the source.
                held[number] = (*chunk, np.maximum.accumulate(chunk[1]))
                yield chunk[0][:0], _NO_TIMES
        if not held:
            return
        # The next chunk of a source may begin at the time of its last row.
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
        order = np.argsort(due, kind="stable")  # ties in order of the sources
        yield records[order], times[order]
