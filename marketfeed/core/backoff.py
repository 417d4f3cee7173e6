"""Exponential backoff: delays between retries."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Backoff:
    """Delays that double from ``first_s`` to ``most_s``, each multiplied by a random factor from ``spread``.

    The factor spreads the retries of clients that failed at the same time. ``uniform(low, high)`` draws it.
    """

    def __init__(
        self,
        first_s: float,
        most_s: float,
        spread: tuple[float, float] = (0.5, 1.0),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._spread, self._uniform = spread, uniform
        self._next_s = first_s

    def next_s(self) -> float:
        """Return the next delay, and double the following one."""
        delay_s = self._next_s * self._uniform(*self._spread)
        self._next_s = min(self._next_s * 2, self._most_s)
        return delay_s

    def reset(self) -> None:
        """Start from the first delay again, after a success."""
        self._next_s = self._first_s

    def advise(self, delay_s: float) -> None:
        """Use ``delay_s``, which the peer requested, as the next delay before the random factor."""
        self._next_s = delay_s


def delay_s(failures: int, first_s: float, most_s: float) -> float:
    """Return the delay after ``failures`` in a row: 0 after none, ``first_s`` after one, then doubled."""
    return min(first_s * 2.0 ** (failures - 1), most_s) if failures else 0.0
