"""Names that subscriptions contain and no feed has sent yet, in 12 bytes each.

As strings in a dict they would take 300 bytes each, and one request may contain 5,000 of them. A name is
stored as its 64-bit hash, which Python salts per process, beside the number of its owner. Entries lie in
sorted blocks; small blocks are merged, so that a new symbol costs a binary search in a few blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

MAX_MERGED: Final = 1 << 15  # entries of a block; merging more would take over 3 ms
LEAST_DEAD: Final = 1024  # dead entries before the blocks are compacted
SHARE_DEAD: Final = 4  # and at least one dead entry in so many
_NOBODY: Final = -1

T = TypeVar("T")


class _Block(NamedTuple):
    hashes: NDArray[np.int64]  # (k,) ascending
    owners: NDArray[np.int32]  # (k,) numbers of the owners


class Awaited(Generic[T]):
    """Owners and the names for which they wait; each pair is returned once."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._waiting: dict[int, T] = {}  # by number
        self._left: dict[int, int] = {}  # names that an owner still waits for, by number
        self._numbers: dict[T, int] = {}
        self._next = 0
        self._dead = 0  # entries whose owner has left or whose name was found

    def __len__(self) -> int:
        """Return the number of owners."""
        return len(self._numbers)

    @property
    def nbytes(self) -> int:
        """Return the size of the entries in bytes."""
        return sum(block.hashes.nbytes + block.owners.nbytes for block in self._blocks)

    def add(self, names: Sequence[str], owner: T) -> None:
        """Add ``owner``, which is not there yet, with distinct ``names``."""
        if not names:
            return
        number, self._next = self._next, self._next + 1
        self._waiting[number], self._numbers[owner], self._left[number] = owner, number, len(names)
        hashes = np.sort(_hashes(names))
        self._push(_Block(hashes, np.full(len(hashes), number, np.int32)))

    def discard(self, owner: T) -> None:
        """Remove ``owner``, if it is there."""
        number = self._numbers.pop(owner, None)
        if number is not None:
            del self._waiting[number]
            self._dead += self._left.pop(number)
            self._compact()

    def take(self, names: Sequence[str]) -> list[tuple[int, T]]:
        """Remove the entries of ``names``; return the index of the name and the owner of each."""
        if not self._numbers:
            return []
        found: list[tuple[int, T]] = []
        hashes = _hashes(names)
        for block in self._blocks:
            firsts = np.searchsorted(block.hashes, hashes, "left")
            ends = np.searchsorted(block.hashes, hashes, "right")
            for index in np.flatnonzero(ends > firsts).tolist():
                span = slice(firsts[index], ends[index])
                numbers = block.owners[span].tolist()
                block.owners[span] = _NOBODY
                found += [(index, self._remove(number)) for number in numbers if number in self._waiting]
        self._compact()
        return found

    def _remove(self, number: int) -> T:
        owner = self._waiting[number]
        self._left[number] -= 1
        self._dead += 1
        if not self._left[number]:
            del self._waiting[number], self._left[number], self._numbers[owner]
        return owner

    def _push(self, block: _Block) -> None:
        blocks = self._blocks
        while blocks and len(blocks[-1].hashes) <= 2 * len(block.hashes):
            if len(blocks[-1].hashes) + len(block.hashes) > MAX_MERGED:
                break
            block = _merged(blocks.pop(), block)
        blocks.append(block)

    def _compact(self) -> None:
        """Compact the blocks if many entries are dead, and renumber the owners."""
        total = sum(len(block.hashes) for block in self._blocks)
        if self._dead < total and self._dead < max(LEAST_DEAD, total // SHARE_DEAD):
            return
        now = np.full(self._next + 1, _NOBODY, np.int32)  # the last element maps _NOBODY to itself
        owners = list(self._waiting.values())
        now[list(self._waiting)] = np.arange(len(owners))
        self._left = dict(enumerate(self._left[number] for number in self._waiting))
        self._waiting = dict(enumerate(owners))
        self._numbers = {owner: number for number, owner in enumerate(owners)}
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            renumbered = now[block.owners]
            keep = renumbered != _NOBODY
            if keep.any():
                self._push(_Block(block.hashes[keep], renumbered[keep]))
        self._next, self._dead = len(owners), 0


def _hashes(names: Iterable[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, names), np.int64)


def _merged(one: _Block, other: _Block) -> _Block:
    hashes = np.concatenate([one.hashes, other.hashes])
    order = np.argsort(hashes, kind="stable")
    return _Block(hashes[order], np.concatenate([one.owners, other.owners])[order])
