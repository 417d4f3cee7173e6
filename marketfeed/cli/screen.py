"""The table of ``marketfeed watch`` on a terminal: the rows of the board that fit, and notices. Pure.

Numbers are never truncated. If the terminal is too narrow, whole columns are left out, the least important
first. If it is too low, the symbols scroll.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from rich.text import Text

from marketfeed.cli.board import Board, BoardRow
from marketfeed.cli.orders import ORDERS, in_order
from marketfeed.cli.view import HELP, LEAST_ROWS, View
from marketfeed.core.printable import printable

GAP: Final = 2  # blanks between columns
MOST_WHOLE: Final = 1e15  # beyond it a number is written with an exponent
LEAST_TEXT: Final = 6
MOST_UNKNOWN: Final = 3  # messages about unknown names on the screen
# At the bottom line; those with the lowest number are left out first.
HINTS: Final = (
    ("/: filter", 3), ("s: sort", 2), ("t: tier", 1), ("space: pause", 4), ("?: keys", 6), ("q: quit", 5),
)  # fmt: skip

SEPARATOR: Final = " · "
MISSING: Final = "·"  # a dash would look like a minus sign

Number = tuple[float, int] | None  # value, decimals


@dataclass(frozen=True, slots=True)
class ScreenColumn:
    """A column: its title, and the cell of a row. Columns with the lowest ``keep`` are left out first."""

    title: str
    keep: int
    number: Callable[[BoardRow], Number] | None = None  # aligned at the decimal point
    text: Callable[[BoardRow, float], str] | None = None  # aligned right; from the row and the time now
    style: Callable[[BoardRow], str] = lambda row: ""
    thousands: bool = False  # separated by commas


def _moved(row: BoardRow) -> str:
    return {1: "green", -1: "red"}.get(row.direction, "")


def _hit(row: BoardRow) -> str:
    return {"b": "green", "s": "red"}.get(row.side, "")


def _at(value: float | None, decimals: int) -> Number:
    return None if value is None else (value, decimals)


def _sizes(title: str, keep: int, number: Callable[[BoardRow], Number]) -> ScreenColumn:
    return ScreenColumn(title, keep, number, thousands=True)


# Shown while the symbols are ordered by them.
BY_ORDER: Final = {
    "move": ScreenColumn(
        "move %", 8, text=lambda row, now_s: MISSING if row.move is None else f"{row.move:+,.3f}"
    ),
    "spread": ScreenColumn(
        "spread bps",
        8,
        text=lambda row, now_s: MISSING if row.spread_bps is None else f"{row.spread_bps:,.2f}",
    ),
}
COLUMNS: Final = (
    _sizes("bid size", 3, lambda row: None if row.bid is None else (row.bid_size, row.size_decimals)),
    ScreenColumn("bid", 7, lambda row: _at(row.bid, row.decimals), style=_moved),
    ScreenColumn("ask", 6, lambda row: _at(row.ask, row.decimals), style=_moved),
    _sizes("ask size", 3, lambda row: None if row.ask is None else (row.ask_size, row.size_decimals)),
    ScreenColumn("last", 5, lambda row: _at(row.last, row.decimals), style=_hit),
    _sizes("size", 1, lambda row: None if row.last is None else (row.last_size, row.size_decimals)),
    ScreenColumn("rate/s", 2, text=lambda row, now_s: f"{row.rate.per_s(now_s):,.1f}"),
    ScreenColumn("age", 4, text=lambda row, now_s: age_of(now_s - row.received_s)),
)


def picture(board: Board, view: View, url: str, now_s: float, size: tuple[int, int], keys: bool) -> Text:
    """Return the screen for a terminal of ``size`` (columns, rows); ``keys``: there is a keyboard."""
    width, height = size
    shown, at_s = view.shown(board, now_s)
    names = in_order(shown, view.order, view.reverse, view.filter, at_s)
    told = [Text(f"{printable(name)}: {printable(why)}", "yellow") for name, why in board.unknown.items()]
    if len(told) > MOST_UNKNOWN:
        more = len(told) - MOST_UNKNOWN + 1
        told[MOST_UNKNOWN - 1 :] = [Text(f"and {more} more names that match no symbol", "yellow")]
    told += [Text(printable(notice), "yellow") for notice in board.notices]
    told = told[: max(height - 3 - LEAST_ROWS, 0)]
    view.rows = max(height - 3 - len(told), LEAST_ROWS)
    view.top = max(min(view.top, len(names) - view.rows), 0)
    part = names[view.top : view.top + view.rows]
    main = _keys() if view.help else table(shown, part, at_s, width, BY_ORDER.get(view.order.name))
    main += [Text()] * (view.rows + 1 - len(main))
    paused = f"paused {age_of(now_s - at_s)}" if view.paused else ""
    lines = [_heading(board, url, now_s, width, paused), *main[: view.rows + 1], *told]
    lines.append(_foot(view, len(part), len(names), len(shown.rows), width if keys else 0))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True, end="").join(lines[:height])


def _heading(board: Board, url: str, now_s: float, width: int, paused: str) -> Text:
    rate = f"{board.rate.per_s(now_s):,.0f} ticks/s"
    parts = [printable(board.status), printable(board.tier), rate, printable(url)]
    room = width - (len(paused) + len(SEPARATOR) if paused else 0)
    while len(parts) > 1 and len(SEPARATOR.join(parts)) > room:  # the URL is dropped first
        parts.pop()
    return Text.assemble((paused, "bold yellow"), SEPARATOR * bool(paused), (SEPARATOR.join(parts), "dim"))


def _keys() -> list[Text]:
    """Return a title and a line for each key."""
    first = max(len(key) for key, _ in HELP)
    return [
        Text("keys", "bold"),
        *(Text.assemble((key.ljust(first), "bold"), "  ", what) for key, what in HELP),
    ]


def _foot(view: View, shown: int, total: int, known: int, width: int) -> Text:
    """Return the bottom line; with a keyboard, of which it names keys, ``width`` is not 0."""
    if view.typing:
        return Text.assemble(
            ("filter: ", "bold"), view.filter, ("▏", "bold"), ("  Enter: keep · Esc: clear", "dim")
        )
    if view.help:
        return Text("any key: back · q: quit", "dim")
    what = f" with {view.filter}" if view.filter else ""
    part = f"symbols {view.top + 1:,} to {view.top + shown:,} of {total:,}{what}"
    if not total:
        part = f"none of {known:,} symbols{what}" if known else "no symbols yet"
    if view.order is not ORDERS[0] or view.reverse:
        part += f" by {view.order.name}" + (", reversed" if view.reverse else "")
    hints = list(HINTS) if width else []
    while hints and len(SEPARATOR.join([part, *(hint for hint, _ in hints)])) > width:
        hints.remove(min(hints, key=lambda hint: hint[1]))
    return Text(SEPARATOR.join([part, *(hint for hint, _ in hints)]), "dim")


def table(
    board: Board, names: list[str], now_s: float, width: int, more: ScreenColumn | None = None
) -> list[Text]:
    """Return the header and a line for each of ``names``, at most ``width`` columns wide.

    The column ``more`` comes before the others.
    """
    all_columns = [*([more] if more else []), *COLUMNS]
    rows = [board.rows[name] for name in names]
    first = ["symbol", *map(printable, names)]
    cells = {column: [column.title, *_cells(column, rows, now_s)] for column in all_columns}
    # A minimum width for times and rates, whose lengths vary, keeps the other columns in place.
    widths = {c: max(LEAST_TEXT if c.text else 0, *map(len, texts)) for c, texts in cells.items()}
    first_width = max(map(len, first))
    columns = all_columns
    while columns and first_width + sum(GAP + widths[column] for column in columns) > width:
        least = min(column.keep for column in columns)
        columns = [column for column in columns if column.keep != least]
    lines = []
    for i, name in enumerate(first):
        line = Text(no_wrap=True)
        line.append(name.ljust(first_width) if columns else name, "bold")
        for column in columns:
            style = "bold" if i == 0 else column.style(rows[i - 1])
            line.append(" " * GAP).append(cells[column][i].rjust(widths[column]), style)
        lines.append(line)
    return lines


def _cells(column: ScreenColumn, rows: list[BoardRow], now_s: float) -> list[str]:
    if column.text is not None:
        return [column.text(row, now_s) for row in rows]
    assert column.number is not None
    numbers = [column.number(row) for row in rows]
    texts = [MISSING if number is None else number_of(*number, column.thousands) for number in numbers]
    # Padded on the right to align the decimal points.
    behind = [len(text) - (text.find(".") if "." in text else len(text)) for text in texts]
    most = max(behind, default=0)
    return [
        text if text == MISSING else text + " " * (most - after)
        for text, after in zip(texts, behind, strict=True)
    ]


def number_of(value: float, decimals: int, thousands: bool = False) -> str:
    """Return ``value`` with exactly ``decimals`` decimals; with an exponent from MOST_WHOLE on."""
    if abs(value) >= MOST_WHOLE:
        return f"{value:.6e}"
    return format(Decimal(repr(value)), f"{',' if thousands else ''}.{decimals}f")


def age_of(age_s: float) -> str:
    """Return an age in ms, s or min."""
    if age_s < 1:
        return f"{max(age_s, 0) * 1000:.0f} ms"
    return f"{age_s:.1f} s" if age_s < 60 else f"{age_s / 60:.0f} min"
