"""The command line of ``marketfeed report``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Final

import typer

from marketfeed.cli.options import fail
from marketfeed.errors import LogError

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed report var/latency.hlog\n\n"
    "marketfeed report var/latency*.hlog --by worker --hop send --html out.html\n\n"
    "marketfeed report new.hlog --against old.hlog\n\n"
    "marketfeed report var/latency.hlog --hop total --tier vip --budget p99=20ms"
)


def report(
    logs_: Annotated[
        list[Path], typer.Argument(metavar="FILE.hlog", help="Latency logs; several are merged.")
    ],
    by: Annotated[
        str,
        typer.Option(
            help="Fields that rows are grouped by, separated by commas: hop, tier, symbol, worker. "
            "Rows are always per hop."
        ),
    ] = "hop,tier",
    hop: Annotated[
        list[str] | None, typer.Option(help="Only this hop, such as total; may be repeated.")
    ] = None,
    tier: Annotated[list[str] | None, typer.Option(help="Only this tier; may be repeated.")] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="Only this symbol; may be repeated.")] = None,
    worker: Annotated[list[str] | None, typer.Option(help="Only this worker; may be repeated.")] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="Only intervals from this time on: 2026-11-24T20:30 (UTC), or a Unix time."
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Only intervals before this time, in the same form.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page to this file.")] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write plots of the percentiles, overall and over time, to this file.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table, in ns, to this file.")] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Log of another run to compare with; marks changes beyond the spread of the intervals."
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Limit such as p99=20ms; if a row exceeds it, exit with status 1. May be repeated."
        ),
    ] = None,
    unit: Annotated[
        str, typer.Option(help="Unit of the values in logs of other tools: ns, us (YCSB), ms or s.")
    ] = "ns",
) -> None:
    """Summarise latency logs as percentiles per hop and tier: a table, plots, an HTML page or CSV."""
    from marketfeed.cli import report_output as terminal
    from marketfeed.latency.report import BY, Budget, Selection
    from marketfeed.latency.units import moment_s, unit_ns

    names = tuple(name.strip() for name in by.split(","))
    if unknown := [name for name in names if name not in BY]:
        raise fail(f"--by {unknown[0]}: must be one or more of {', '.join(BY)}")
    try:
        choice = Selection(
            names,
            tuple(hop or ()),
            tuple(tier or ()),
            tuple(symbol or ()),
            tuple(worker or ()),
            from_s=moment_s(from_) if from_ else -math.inf,
            to_s=moment_s(to) if to else math.inf,
            unit_ns=unit_ns(unit),
        )
        budgets = [Budget.parse(text) for text in budget or ()]
        status = terminal.report(
            logs_, choice, against or [], budgets, {"csv": csv, "png": png, "html": html}
        )
    except LogError as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)
