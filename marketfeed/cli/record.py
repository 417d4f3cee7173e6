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
    "marketfeed record --out day.mfr\n\n"
    "marketfeed record 'BTC*' ETH-USD --out rec/crypto.mfr.zst --rotate-mb 500 --rotate-s 3600"
)


def record(
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .mfr, or .mfr.zst for compression. Existing files are never overwritten."
        ),
    ],
    symbols: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYMBOL", help="Symbols, or prefixes such as 'BTC*'. Default: everything."),
    ] = None,
    url: UrlOption = None,
    tier: Annotated[
        str | None,
        typer.Option(
            help="Tier to record from; only those with delivery 'every' send every tick. "
            "Default: the engine's default tier."
        ),
    ] = None,
    token: TokenOption = None,
    rotate_mb: Annotated[
        float,
        typer.Option(
            min=0, help="Begin a new file after this many megabytes; file names get a time. 0: one file."
        ),
    ] = 0,
    rotate_s: Annotated[
        float, typer.Option(min=0, help="Begin a new file after this many seconds. 0: one file.")
    ] = 0,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many seconds. Default: at Ctrl-C.")
    ] = None,
    ca: CaOption = None,
    config: ConfigOption = None,
) -> None:
    """Record the ticks of a running engine, for `replay` feeds, `simulate` and `export`.

    Ctrl-C completes the file. Gaps are noted in it, and reported at the end with exit status 1.
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
    except KeyboardInterrupt:  # before the signal receiver was open
        status = 0
    raise typer.Exit(status)
