"""The command line of ``marketfeed simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from marketfeed import logs
from marketfeed.cli.options import ConfigOption, SetOption, fail, load_config
from marketfeed.errors import ConfigError, StartError

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed simulate day.mfr.zst --tier premium.interval_ms=250\n\n"
    "marketfeed simulate ibm.zip --feed ibm --tier basic.interval_ms=1000 --tier fast.interval_ms=20"
)


def simulate(
    recording: Annotated[
        Path, typer.Argument(metavar="RECORDING", help="Recording, in any format that `replay` feeds read.")
    ],
    tier: Annotated[
        list[str] | None,
        typer.Option(
            "--tier",
            metavar="NAME.KEY=VALUE",
            help="Compare with a changed or new tier, such as premium.interval_ms=250; may be repeated.",
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Format of the recording. Default: by the file's name.")
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option(help="Read the recording with the keys of this `replay` feed of the configuration."),
    ] = None,
    symbols: Annotated[
        list[str] | None,
        typer.Option(help="Symbol or prefix that the sessions subscribe to; may be repeated. Default: all."),
    ] = None,
    phases: Annotated[
        int, typer.Option(min=1, max=128, help="Phases of each interval tier to average over.")
    ] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Simulate the tiers on a recording: the ticks, bytes and delays of one session on each.

    Runs on a virtual clock, faster than real time and without a network.

    With --tier, the changed tiers are shown next to the configured ones.
    """
    from marketfeed.cli import what_if as whatif

    logs.configure("warning")
    loaded = load_config(config, set_)
    try:
        status = whatif.run(
            loaded, recording, tier or [],
            format=format, feed=feed, symbols=symbols, phases=phases, as_json=json,
        )  # fmt: skip
    except (ConfigError, StartError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)
