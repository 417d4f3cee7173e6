"""What a format of recordings has to offer, and what it makes of a chunk of lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.records import Batch

Symbol = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A chunk of a recording: its ticks, when each came, and what else was in it."""

    batch: Batch  # channels is set
    times_ns: NDArray[np.int64]  # (len(batch),) the recorder's clock
    broken: list[tuple[int, str]]  # line within the chunk, from 0, and what is wrong with it
    events: dict[str, int]  # counted


class Decoder(Protocol):
    """Turns lines of one format into ticks. Keeps nothing between chunks."""

    def looks_right(self, first_lines: list[bytes]) -> bool:
        """Tell whether a file that begins like this is of this format."""
        ...

    def decode(self, lines: list[bytes], symbol: Symbol) -> Decoded:
        """Return the ticks in ``lines``; ``symbol`` maps a name to its id or None."""
        ...
