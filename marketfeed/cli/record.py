"""The command line of ``marketfeed record``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import trio
import typer

from marketfeed.cli.options import CaOption, ConfigOption, TokenOption, UrlOption, endpoint_from, fail
from marketfeed.errors import ConfigError

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed record --out day.mfr.zst\n\n"
    "marketfeed record 'BTC*' ETH-USD --out rec/crypto.mfr.zst --rotate-mb 500 --rotate-s 3600"
)


def record(
    out: Annotated[
        Path, typer.Option(help="File to write: .mfr, or .mfr.zst to have it compressed. Never overwritten.")
    ],
    symbols: Annotated[
        list[str] | None, typer.Argument(help="Symbols, or prefixes such as 'BTC*'; without any, everything.")
    ] = None,
    url: UrlOption = None,
    tier: Annotated[
        str | None, typer.Option(help="Complete on a tier with delivery 'every'; default: the engine's.")
    ] = None,
    token: TokenOption = None,
    rotate_mb: Annotated[
        float,
        typer.Option(min=0, help="Begin a new file after so many megabytes; each has the time in its name."),
    ] = 0,
    rotate_s: Annotated[float, typer.Option(min=0, help="Begin a new file after so many seconds.")] = 0,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="End after so many seconds; without it, at Ctrl-C.")
    ] = None,
    ca: CaOption = None,
    config: ConfigOption = None,
) -> None:
    """Record a live engine's ticks; replay plays them back, and simulate tries tiers on them.

    Gaps are told at the end, and written. Ctrl-C ends the file; one that was cut is read up to there.
    """
    from marketfeed.recordings.record import TickRecorder
    from marketfeed.recordings.writer import RecordingWriter

    try:
        writer = RecordingWriter(out, round(rotate_mb * 1e6), round(rotate_s * 1e9))
        engine = endpoint_from(url, ca, config)
        recorder = TickRecorder(engine, symbols or ["*"], tier, token, writer, seconds)
        status = trio.run(recorder.run)
    except ConfigError as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:  # before the command listened for it
        status = 0
    raise typer.Exit(status)
