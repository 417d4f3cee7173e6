"""Orders of the symbols in the table of ``marketfeed watch``. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.cli.board import Board, BoardRow


@dataclass(frozen=True, slots=True)
class Order:
    """An order by a number of each row, the largest first, or by name; rows without a number come last."""

    name: str
    number: Callable[[BoardRow, float], float | None] | None = None  # of a row and the time now


def _move(row: BoardRow, now_s: float) -> float | None:
    return None if row.move is None else abs(row.move)


ORDERS: Final = (
    Order("symbol"),
    Order("activity", lambda row, now_s: row.rate.per_s(now_s)),
    Order("move", _move),
    Order("spread", lambda row, now_s: row.spread_bps),
    Order("age", lambda row, now_s: now_s - row.received_s),
)


def in_order(board: Board, order: Order, reverse: bool, text: str, now_s: float) -> list[str]:
    """Return the symbols that contain ``text``, ignoring case, in ``order``; equal ones by name."""
    names = board.names()
    if text:
        wanted = text.casefold()
        names = [name for name in names if wanted in name.casefold()]
    if order.number is None:
        return names[::-1] if reverse else names
    numbers = {name: order.number(board.rows[name], now_s) for name in names}
    sign = 1 if reverse else -1
    return sorted(names, key=lambda name: (True, 0.0) if (n := numbers[name]) is None else (False, sign * n))
