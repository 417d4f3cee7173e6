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
        list[Path], typer.Argument(help="Recordings: files, folders or patterns; several are one.")
    ],
    to: Annotated[Path, typer.Option(help="File to write: .parquet, .csv, .arrow or .feather.")],
    channel: Annotated[
        str | None,
        typer.Option(
            help="quotes or trades; without it both, in OUT.quotes and OUT.trades if there are both."
        ),
    ] = None,
    symbols: Annotated[
        list[str] | None, typer.Option(help="Only these, or prefixes such as 'BTC*'; may be repeated.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Received from here on: 2026-11-24T20:30 (UTC).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Received before this moment, likewise.")] = None,
    prices: Annotated[
        str, typer.Option(help="float (15 digits), decimal (exact; CSV always is) or int (in 1e-9).")
    ] = "float",
    raw: Annotated[
        bool, typer.Option("--raw", help="CSV: write names such as =A1 as they are, without a ' before them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a recording as Parquet, CSV or Arrow: a table of its quotes and one of its trades.

    The exit status is 1 if the recording was cut short or damaged; what came before is written.
    """
    from marketfeed.recordings.export import Export, run

    try:
        status = run(recording, Export(to, channel, symbols or ["*"], from_, until, prices, raw, force))
    except (RecordingError, ConfigError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)
