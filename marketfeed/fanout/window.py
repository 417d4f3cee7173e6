"""Fragments that sessions which catch up together need one after another, made once.

When hundreds come back at the same time, each needs the same ticks as some of the others, milliseconds apart
as they take turns side by side. The window holds what was encoded for them lately, by ``g``.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketfeed.core.records import Records, stamps_of
from marketfeed.fanout.encode import Codec

import os
SLOTS: Final = 1 << int(os.environ.get('SLOTS','17'))  # a power of two; as far as the first of them may be ahead of the last, in g
_MASK: Final = np.int64(SLOTS - 1)


class Window:
    """The newest fragment of each slot; ``g`` modulo SLOTS is a tick's slot."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._gs = np.zeros(SLOTS, np.int64)
        self._fragments = np.full(SLOTS, None, object)

    def fragments(self, channel: int, records: Records) -> list[bytes]:
        """Return one fragment per record, shape ``(k,)``, in the same order; encodes what it does not hold."""
        gs = stamps_of(records).astype(np.int64)
        slots = gs & _MASK
        missing = np.flatnonzero(self._gs.take(slots) != gs)
        wanted = self._fragments.take(slots)
        if len(missing):
            encoded = self._codec.fragments(channel, records.take(missing))
            wanted[missing] = encoded
            places = slots.take(missing)
            self._gs[places] = gs.take(missing)
            self._fragments[places] = wanted.take(missing)
        made: list[bytes] = wanted.tolist()
        return made
