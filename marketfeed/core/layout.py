"""Where things lie in the rings' block of bytes; each part begins on a page of its own.

header │ claimed, published │ names │ when each symbol came first │ stamps │ sequence │ records
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketfeed.core.records import RECORD
from marketfeed.core.sequence import sequence_entries
from marketfeed.core.stamps import STAMPS_BYTES
from marketfeed.core.symbols import MAX_NAME_BYTES

HEADER: Final = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("max_symbols", "<u4"),
        ("depth", "<u4"),
        ("unused", "<u4"),
        ("epoch", "S32"),
        ("published_g", "<u8"),
        ("names", "<u8"),  # how many symbols have a name
        ("stamps", "<u8"),  # how many batches were noted
    ]
)
MAGIC: Final = b"mfrings\x01"
VERSION: Final = 5
PAGE: Final = 4096


def block_bytes(max_symbols: int, depth: int) -> int:
    """Return how many bytes the rings of ``max_symbols`` × ``depth`` on both channels take."""
    return slots_at(max_symbols, depth) + 2 * max_symbols * depth * RECORD.itemsize


def names_at(max_symbols: int) -> int:
    """Return where the symbols' names begin, behind the counters."""
    return PAGE + -(-2 * 2 * 8 * max_symbols // PAGE) * PAGE


def firsts_at(max_symbols: int) -> int:
    """Return where the times of the symbols' first ticks begin."""
    return names_at(max_symbols) + -(-MAX_NAME_BYTES * max_symbols // PAGE) * PAGE


def stamps_at(max_symbols: int) -> int:
    """Return where the times of the newest batches begin (core/stamps.py)."""
    return firsts_at(max_symbols) + -(-8 * max_symbols // PAGE) * PAGE


def sequence_at(max_symbols: int) -> int:
    """Return where the places of the newest ticks begin (core/sequence.py)."""
    return stamps_at(max_symbols) + STAMPS_BYTES


def slots_at(max_symbols: int, depth: int) -> int:
    """Return where the records begin."""
    return sequence_at(max_symbols) + -(-8 * sequence_entries(max_symbols, depth) // PAGE) * PAGE
