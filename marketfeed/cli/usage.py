"""``marketfeed usage``: what users were sent, by day, whether an engine runs or not."""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketfeed.cli.options import ConfigOption, SetOption, fail, load_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.api.usage import PrefixRow, UsageRow

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed usage --day yesterday\n\n"
    "marketfeed usage --day 2026-11-30 --days 30 --by tenant --csv > november.csv\n\n"
    "marketfeed usage --by symbols --prefixes BTC,ETH   (distinct users, as exchanges ask for them)"
)
USERS: Final = ("day", "tenant", "user", "peak", "symbols", "quotes", "trades", "alerts", "bytes")
TENANTS: Final = ("day", "tenant", "users", "peak", "symbols", "quotes", "trades", "alerts", "bytes")
PREFIXES: Final = ("day", "prefix", "users", "tenants", "symbols")
COUNTS: Final = ("tier", "channel", "ticks", "bytes")
Cells = list[str | int]


def usage(
    day: Annotated[
        str, typer.Option(metavar="DAY", help="today, yesterday, or a day such as 2026-11-28, in UTC.")
    ] = "today",
    days: Annotated[str, typer.Option(metavar="N", help="So many days that end with --day.")] = "1",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    by: Annotated[str, typer.Option(metavar="user|tenant|symbols", help="What each row is about.")] = "user",
    prefix: Annotated[
        str | None,
        typer.Option(metavar="N", help="With --by symbols: characters of a prefix. Default: 2."),
    ] = None,
    prefixes: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="With --by symbols: these prefixes instead."),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, with a row per tier and channel of each user or tenant.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="The file. Default: auth.path of the configuration."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Show what each user was sent: sessions, symbols, ticks, bytes and alerts by day.

    A running engine writes usage within a minute.
    """
    from marketfeed.access.usage import day_of
    from marketfeed.access.usage_file import read_days
    from marketfeed.access.usage_report import asked, report
    from marketfeed.errors import AccessFileError

    if as_csv and as_json:
        raise fail("--csv: not together with --json")
    listed = [one for one in (prefixes or "").split(",") if one]
    try:
        about = asked(day_of(time.time()), day, days, tenant, by, prefix, listed)
    except ValueError as error:
        raise fail(f"--{error}") from None
    path = file
    if path is None:
        loaded = load_config(config, set_)
        path = loaded.base / loaded.config.auth.path
    try:
        rows = report(read_days(path, about.first, about.last, tenant), about)
    except AccessFileError as error:
        raise fail(str(error)) from None
    except UnicodeEncodeError:
        raise fail("an argument is not UTF-8 text") from None
    if as_json:
        _print_json(rows)
    elif as_csv:
        _print_csv(rows, by)
    else:
        _print(rows, by)


def _print_json(rows: Sequence[UsageRow | PrefixRow]) -> None:
    from marketfeed.cli.alerts_output import print_json

    for row in rows:
        print_json(row, sys.stdout)


def _print_csv(rows: Sequence[UsageRow | PrefixRow], by: str) -> None:
    """Print CSV whose texts no spreadsheet evaluates. RFC 4180, but for the ends of lines."""
    from marketfeed.core.cells import as_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if by == "symbols":
        writer.writerow(PREFIXES)
    else:
        own = ("user",) if by == "user" else ("users",)
        writer.writerow(("day", "tenant", *own, "peak", "symbols", *COUNTS))
    for row in rows:
        for cells in _csv_rows(row):
            writer.writerow([as_text(cell) if isinstance(cell, str) else cell for cell in cells])
    sys.stdout.write(text.getvalue())


def _csv_rows(row: Any) -> list[Cells]:
    from marketfeed.api.usage import PrefixRow

    if isinstance(row, PrefixRow):
        return [_cells(row)]
    own = _cells(row)[:5]
    counts: list[Cells] = [[one.tier, one.channel, one.ticks, one.bytes] for one in row.counts]
    return [[*own, *count] for count in counts or [["", "", 0, 0]]]


def _cells(row: Any) -> Cells:
    """Return the cells of a row, in the order of USERS, TENANTS or PREFIXES."""
    from msgspec import UNSET

    from marketfeed.api.usage import PrefixRow

    if isinstance(row, PrefixRow):
        return [row.day, row.prefix, row.users, row.tenants, row.symbols]
    who = row.users if row.sub is UNSET else row.sub
    return [
        row.day, row.tenant, who, row.peak, row.symbols, row.quotes, row.trades, row.alerts, row.bytes,
    ]  # fmt: skip


def _print(rows: Sequence[UsageRow | PrefixRow], by: str) -> None:
    from marketfeed.cli import alerts_output as output

    if not rows:
        output.print_said("no usage", sys.stdout)
        return
    names = {"user": USERS, "tenant": TENANTS, "symbols": PREFIXES}[by]
    output.print_table(names, [_cells(row) for row in rows], sys.stdout)
