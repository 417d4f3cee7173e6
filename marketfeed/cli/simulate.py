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
    recording: Annotated[Path, typer.Argument(help="A recording, of any format that replay takes.")],
    tier: Annotated[
        list[str] | None,
        typer.Option("--tier", metavar="NAME.KEY=VALUE", help="What if: such as premium.interval_ms=250."),
    ] = None,
    format: Annotated[str | None, typer.Option(help="Its format; without it, what its name tells.")] = None,
    feed: Annotated[
        str | None, typer.Option(help="Read it as this replay feed of the configuration: columns, zone …")
    ] = None,
    symbols: Annotated[
        list[str] | None, typer.Option(help="What the sessions subscribe to; without it, everything.")
    ] = None,
    phases: Annotated[
        int, typer.Option(min=1, max=128, help="Phases of an interval tier to take the mean of.")
    ] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Run a recording through the tiers on a clock without pauses: what each delivers, conflates and costs.

    Figures are those of one session that takes everything, without what a network adds. Tiers as
    configured stand beside what --tier makes of them, and the change.
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
