"""Several recordings as one, by time, none of them held whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from feeds.replay.columns import Piece

_NO_TIMES: Final = np.empty(0, np.int64)


def merged(sources: list[Iterator[Piece]]) -> Iterator[Piece]:
    """Yield the pieces of all ``sources`` as pieces in order of time.

    Each source is taken to be in order itself. One piece of each is held: all
    that is at or before the earliest end of these can be given out. Empty pieces come in
    between, after each that was read, so that whoever asks is never kept long.
    """
    held: dict[int, Piece] = {}
    live = dict(enumerate(sources))
    while True:
        for number in [n for n in live if n not in held]:
            piece = next((p for p in live[number] if len(p[1])), None)
            if piece is None:
                del live[number]
            else:
                held[number] = piece
                yield piece[0][:0], _NO_TIMES
        if not held:
            return
        # A source that is not at its end may go on at the time of its last row.
        bound = min(int(times[-1]) for _, times in held.values())
        ready: list[Piece] = []
        for number, (records, times) in list(held.items()):
            end = int(np.searchsorted(np.maximum.accumulate(times), bound, "right"))
            ready.append((records[:end], times[:end]))
            if end == len(times):
                del held[number]
            else:
                held[number] = (records[end:], times[end:])
        records = np.concatenate([r for r, _ in ready])
        times = np.concatenate([t for _, t in ready])
        order = np.argsort(times, kind="stable")  # of one moment: in order of the sources
        yield records[order], times[order]
