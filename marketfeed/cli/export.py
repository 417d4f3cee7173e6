"""The command line of ``marketfeed export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from marketfeed.cli.options import fail
from marketfeed.errors import ConfigError, RecordingError

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed export day.mfr.zst --to day.parquet\n\n"
    "marketfeed export rec/ --to btc.csv --channel trades --symbols 'BTC*' --from 2026-11-24T09:30"
)


def export(
    recording: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORDING", help="Files, folders or patterns; several are read as one recording."
        ),
    ],
    to: Annotated[Path, typer.Option(help="File to write: .parquet, .csv, .arrow or .feather.")],
    channel: Annotated[
        str | None,
        typer.Option(
            help="quotes or trades. Default: both, to two files if the recording has both: "
            "day.quotes.csv and day.trades.csv for --to day.csv."
        ),
    ] = None,
    symbols: Annotated[
        list[str] | None,
        typer.Option(help="Only this symbol, or a prefix such as 'BTC*'; may be repeated."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="Only ticks received at or after this time, such as 2026-11-24T20:30 (UTC)."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only ticks received before this time, in the same form.")
    ] = None,
    prices: Annotated[
        str,
        typer.Option(
            help="float (15 digits), decimal (exact) or int (in 1e-9). CSV always has exact decimals."
        ),
    ] = "float",
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="CSV: write names such as =A1 unchanged, without the ' that keeps spreadsheets "
            "from reading them as formulas.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Convert a recording to Parquet, CSV or Arrow: one table of quotes and one of trades.

    If the recording is cut short or damaged, exports the ticks before, and exits with status 1.
    """
    from marketfeed.recordings.export import Export, run

    try:
        status = run(recording, Export(to, channel, symbols or ["*"], from_, until, prices, raw, force))
    except (RecordingError, ConfigError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)
