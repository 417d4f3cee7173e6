"""``marketfeed report``: the table on the terminal, and files on request."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from marketfeed.core.printable import printable
from marketfeed.errors import LogError
from marketfeed.latency.report import (
    SPREAD_NOTE,
    TITLES,
    Budget,
    Report,
    ReportRow,
    Selection,
    Shown,
    make,
    shown_changes,
    shown_figures,
    to_csv,
)

PLAIN_WIDTH = 220  # columns if the output is not a terminal
MAX_NOTE_CHARACTERS = 4000  # a note may name many files


def report(
    paths: Sequence[Path],
    choice: Selection,
    against: Sequence[Path],
    budgets: Sequence[Budget],
    files: dict[str, Path | None],
) -> int:
    """Print the report and write the ``files`` (csv, png, html); return the exit status.

    The status is 1 if a budget is exceeded. Raises LogError.
    """
    made = _read(paths, choice, against, budgets)
    # Rendered before anything is printed: a missing library is an error without a partial report.
    contents = [(path, _content(kind, made)) for kind, path in files.items() if path is not None]
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(printable(made.span), style="dim"))
    console.print(_table(made, TITLES, shown_figures))
    if made.against:
        console.print(Text(printable(f"change against {', '.join(map(str, made.against))}"), style="dim"))
        console.print(_table(made, TITLES[1:], shown_changes))
        console.print(Text(SPREAD_NOTE, style="dim"))
    for note in made.notes:
        errors.print(Text(printable(f"note: {note}", MAX_NOTE_CHARACTERS), style="yellow"))
    for path, content in contents:
        _write(path, content)
    for text in made.broken:
        errors.print(Text(printable(f"over budget: {text}"), style="red"))
    return 1 if made.broken else 0


def _read(
    paths: Sequence[Path], choice: Selection, against: Sequence[Path], budgets: Sequence[Budget]
) -> Report:
    total = 0
    for path in (*paths, *against):
        try:
            total += path.stat().st_size
        except OSError as error:
            raise LogError(f"{path}: {error.strerror or error}") from None
    console = Console(stderr=True)
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=total)
        return make(paths, choice, against, budgets, lambda size: bar.advance(task, size))


def _content(kind: str, made: Report) -> bytes:
    # Imported late: only pictures and pages need matplotlib.
    if kind == "csv":
        return to_csv(made).encode()
    if kind == "png":
        from marketfeed.latency.pictures import png

        return png(made)
    from marketfeed.latency.page import html

    return html(made).encode()


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from None


def _table(made: Report, titles: tuple[str, ...], cells: Shown) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in made.choice.keys:
        table.add_column(name, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in made.rows:
        table.add_row(*(Text(printable(value)) for value in row.key), *_styled(row, titles, cells))
    return table


def _styled(row: ReportRow, titles: tuple[str, ...], cells: Shown) -> list[Text]:
    broken = {budget.title for budget in row.broken}
    styled = []
    for title, cell in zip(titles, cells(row), strict=True):
        style = "red" if title in broken or (cell.endswith("*") and cell.startswith("+")) else ""
        styled.append(Text(cell, style="green" if cell.endswith("*") and cell.startswith("-") else style))
    return styled
