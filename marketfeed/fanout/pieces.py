"""Ticks on their way to one session: encoded, each with its ``g`` and channel, alone or in columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.records import QUOTES
from marketfeed.fanout.encoding import Step

Piece = tuple[int, int, bytes]  # g, channel and fragment of a tick


class Run(NamedTuple):
    """Ticks in order of ``g``, n of them."""

    gs: NDArray[np.uint64]  # (n,)
    channels: list[int]  # n, or none if all are of ``channel``
    channel: int
    fragments: list[bytes]  # n

    def pieces(self) -> list[Piece]:
        """Return them one by one."""
        channels = self.channels or [self.channel] * len(self.fragments)
        return list(zip(self.gs.tolist(), channels, self.fragments, strict=True))


EMPTY: Final = Run(np.empty(0, np.uint64), [], QUOTES, [])


def size_of(pieces: Iterable[Piece]) -> int:
    """Return how many bytes the fragments take in an array, commas included."""
    return sum(len(fragment) + 1 for _, _, fragment in pieces)


def g_of(piece: Piece) -> int:
    """Return what pieces are sorted by."""
    return piece[0]


def merged(runs: list[Run]) -> Run:
    """Return the runs of several channels as one."""
    runs = [run for run in runs if run.fragments]
    if len(runs) <= 1:
        return runs[0] if runs else EMPTY
    gs = np.concatenate([run.gs for run in runs])
    order = gs.argsort()
    fragments = [fragment for run in runs for fragment in run.fragments]
    channels = [run.channel for run in runs for _ in run.fragments]
    at = order.tolist()
    return Run(gs[order], [channels[i] for i in at], 0, [fragments[i] for i in at])


def part_of(run: Run, part: slice, mixed: bool) -> Step:
    """Return a part of a run as what one frame is to hold; ``mixed`` as encodings have it."""
    step = Step(mixed)
    if mixed or not run.channels:
        (step.ticks, step.trades)[run.channel].extend(run.fragments[part])
    else:
        for channel, fragment in zip(run.channels[part], run.fragments[part], strict=True):
            (step.ticks, step.trades)[channel].append(fragment)
    return step


def step_of(pieces: list[Piece], mixed: bool) -> Step:
    """Return pieces as what one frame is to hold; ``mixed`` as encodings have it."""
    step = Step(mixed)
    if mixed:
        step.ticks.extend([fragment for _, _, fragment in pieces])
    else:
        for _, channel, fragment in pieces:
            (step.ticks, step.trades)[channel].append(fragment)
    return step
