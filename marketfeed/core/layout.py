"""Layout of the block of bytes that holds the rings. Each part starts on a new page.

header │ claimed, published, base │ names │ times of first ticks │ stamps │ sequence │ records
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.records import DTYPES, RECORD, Records
from marketfeed.core.sequence import sequence_entries
from marketfeed.core.stamps import STAMPS_BYTES
from marketfeed.core.symbols import MAX_NAME_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

Block = bytearray | memoryview | mmap.mmap

HEADER: Final = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("max_symbols", "<u4"),
        ("depth", "<u4"),
        ("unused", "<u4"),
        ("epoch", "S32"),
        ("published_g", "<u8"),
        ("names", "<u8"),  # number of symbols with a name
        ("stamps", "<u8"),  # number of batches with a stamp
    ]
)
MAGIC: Final = b"mfrings\x01"
VERSION: Final = 6
PAGE: Final = 4096


def block_bytes(max_symbols: int, depth: int) -> int:
    """Return the size in bytes of rings of ``max_symbols`` × ``depth`` on both channels."""
    return slots_at(max_symbols, depth) + 2 * max_symbols * depth * RECORD.itemsize


def names_at(max_symbols: int) -> int:
    """Return the offset of the symbols' names."""
    return PAGE + -(-3 * 2 * 8 * max_symbols // PAGE) * PAGE


def firsts_at(max_symbols: int) -> int:
    """Return the offset of the times of the symbols' first ticks."""
    return names_at(max_symbols) + -(-MAX_NAME_BYTES * max_symbols // PAGE) * PAGE


def stamps_at(max_symbols: int) -> int:
    """Return the offset of the times of the newest batches (core/stamps.py)."""
    return firsts_at(max_symbols) + -(-8 * max_symbols // PAGE) * PAGE


def sequence_at(max_symbols: int) -> int:
    """Return the offset of the slots of the newest ticks (core/sequence.py)."""
    return stamps_at(max_symbols) + STAMPS_BYTES


def slots_at(max_symbols: int, depth: int) -> int:
    """Return the offset of the records."""
    return sequence_at(max_symbols) + -(-8 * sequence_entries(max_symbols, depth) // PAGE) * PAGE


@dataclass(frozen=True, slots=True)
class View:
    """The parts of a block as arrays over its memory, for the writer and the readers of the rings.

    Counters and records have the shape ``(channel, …)``; ``published_g``, ``named`` and ``noted`` have
    the shape ``(1,)``.
    """

    max_symbols: int
    depth: int
    epoch: str
    published_g: NDArray[np.uint64]
    named: NDArray[np.uint64]  # number of symbols with a name
    noted: NDArray[np.uint64]  # number of batches with a stamp
    claimed: NDArray[np.int64]  # (2, max_symbols)
    published: NDArray[np.int64]  # (2, max_symbols)
    base: NDArray[np.int64]  # (2, max_symbols), the highest n below a hole: no slot up to it is valid
    names: NDArray[np.bytes_]  # (max_symbols,)
    first_ns: NDArray[np.int64]  # (max_symbols,)
    stamps: NDArray[np.uint8]  # core/stamps.py divides it
    sequence: NDArray[np.int64]  # (entries,)
    slots: Records  # (2, max_symbols * depth) RECORD
    records: tuple[Records, ...]  # the same by channel, as QUOTE and TRADE

    @classmethod
    def of(cls, block: Block) -> View:
        """Return the view of ``block``; raises ValueError if it holds no rings of this version."""
        header = np.frombuffer(block, HEADER, 1)[0]
        if header["magic"] != MAGIC.rstrip(b"\0") or header["version"] != VERSION:
            raise ValueError("the block does not hold rings of this version")
        symbols, depth = int(header["max_symbols"]), int(header["depth"])
        whole = np.frombuffer(block, np.uint8)
        if len(whole) < block_bytes(symbols, depth):
            raise ValueError("the block is shorter than its header says")

        def part(start: int, size: int) -> NDArray[np.uint8]:
            return whole[start : start + size]

        def number(name: str) -> NDArray[np.uint64]:
            return part(HEADER.fields[name][1], 8).view(np.uint64)  # type: ignore[index]

        # Signed, because no n reaches 2**63 and differences must not wrap around.
        counters = part(PAGE, 48 * symbols).view(np.int64).reshape(3, 2, symbols)
        entries = sequence_entries(symbols, depth)
        slots = part(slots_at(symbols, depth), 2 * symbols * depth * RECORD.itemsize).view(RECORD)
        slots = slots.reshape(2, symbols * depth)
        return cls(
            max_symbols=symbols,
            depth=depth,
            epoch=header["epoch"].decode("ascii"),
            published_g=number("published_g"),
            named=number("names"),
            noted=number("stamps"),
            claimed=counters[0],
            published=counters[1],
            base=counters[2],
            names=part(names_at(symbols), MAX_NAME_BYTES * symbols).view(f"S{MAX_NAME_BYTES}"),
            first_ns=part(firsts_at(symbols), 8 * symbols).view(np.int64),
            stamps=part(stamps_at(symbols), STAMPS_BYTES),
            sequence=part(sequence_at(symbols), 8 * entries).view(np.int64),
            slots=slots,
            records=tuple(slots[channel].view(dtype) for channel, dtype in enumerate(DTYPES)),
        )


def lay_out(block: Block, max_symbols: int, depth: int, epoch: str) -> None:
    """Write the header of empty rings to ``block``, which must be zeroed; raises ValueError if too short."""
    if memoryview(block).nbytes < block_bytes(max_symbols, depth):
        raise ValueError(f"rings of {max_symbols} × {depth} do not fit into the block")
    header = np.frombuffer(block, HEADER, 1)
    header["version"] = VERSION
    header["max_symbols"] = max_symbols
    header["depth"] = depth
    header["epoch"] = epoch.encode("ascii")
    header["magic"] = MAGIC
