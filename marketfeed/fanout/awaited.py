"""Names that sessions wait for and no feed has sent yet, in 12 bytes each.

As strings in a dict they would take 300, and a stranger may ask for 5,000 of them in
one request. So a name is kept as its 64-bit hash, which Python draws anew for each process,
beside the number of who waits: sorted blocks, of which small ones are merged as they
come, so that a new name costs a binary search in each of a few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

MAX_MERGED: Final = 1 << 15  # entries of a block; merging more would take over 3 ms
LEAST_DEAD: Final = 1024  # entries of those that are gone, for which blocks are gone through
SHARE_DEAD: Final = 4  # and at least a part in so many of all
_NOBODY: Final = -1

T = TypeVar("T")


class _Block(NamedTuple):
    hashes: NDArray[np.int64]  # (k,) ascending
    owners: NDArray[np.int32]  # (k,) numbers of who waits


class Awaited(Generic[T]):
    """Who waits for which names; a name is taken once for each."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._waiting: dict[int, T] = {}  # by number
        self._left: dict[int, int] = {}  # names that are not taken yet, by number
        self._numbers: dict[T, int] = {}
        self._next = 0
        self._dead = 0  # entries of those that wait no longer

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._numbers)

    @property
    def nbytes(self) -> int:
        """Return how many bytes the entries take."""
        return sum(block.hashes.nbytes + block.owners.nbytes for block in self._blocks)

    def add(self, names: Sequence[str], owner: T) -> None:
        """Let ``owner``, which waits for nothing yet, wait for ``names``, each once."""
        if not names:
            return
        number, self._next = self._next, self._next + 1
        self._waiting[number], self._numbers[owner], self._left[number] = owner, number, len(names)
        hashes = np.sort(_hashes(names))
        self._push(_Block(hashes, np.full(len(hashes), number, np.int32)))

    def discard(self, owner: T) -> None:
        """Let ``owner`` wait no longer, if it does."""
        number = self._numbers.pop(owner, None)
        if number is not None:
            del self._waiting[number]
            self._dead += self._left.pop(number)
            self._tidy()

    def take(self, names: Sequence[str]) -> list[tuple[int, T]]:
        """Return the index of a name and one who waited for it, for each pair; they wait for it no longer."""
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
                found += [(index, self._taken(number)) for number in numbers if number in self._waiting]
        self._tidy()
        return found

    def _taken(self, number: int) -> T:
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

    def _tidy(self) -> None:
        """Drop the entries of those that wait no longer, once they are many; number the others anew."""
        total = sum(len(block.hashes) for block in self._blocks)
        if self._dead < total and self._dead < max(LEAST_DEAD, total // SHARE_DEAD):
            return
        now = np.full(self._next + 1, _NOBODY, np.int32)  # its last is for those that are nobody's already
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
