"""The ``marketfeed`` command: one module per subcommand, which imports its implementation when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from marketfeed import __version__
from marketfeed.cli import (
    alerts,
    cluster,
    config,
    export,
    keys,
    probe,
    record,
    report,
    revoke,
    serve,
    simulate,
    token,
    usage,
    watch,
)

app = typer.Typer(
    name="marketfeed",
    help="Distribute real-time market data from feeds to tiers of subscribers.",
    epilog="Try:\n\nmarketfeed serve\n\nmarketfeed watch 'SY00*'   (in another terminal)",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(on: bool) -> None:
    """Print the version and exit, if ``--version`` is ``on``."""
    if on:
        print(f"marketfeed {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Distribute real-time market data from feeds to tiers of subscribers."""


app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=watch.EXAMPLES)(watch.watch)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=record.EXAMPLES)(record.record)
app.command(epilog=simulate.EXAMPLES)(simulate.simulate)
app.command(epilog=export.EXAMPLES)(export.export)
app.command(epilog=probe.EXAMPLES)(probe.probe)
app.add_typer(cluster.app, name="cluster", epilog=cluster.EXAMPLES)
app.add_typer(keys.app, name="keys", epilog=keys.EXAMPLES)
app.command(epilog=token.EXAMPLES)(token.token)
app.command(epilog=revoke.EXAMPLES)(revoke.revoke)
app.command(epilog=usage.EXAMPLES)(usage.usage)
app.add_typer(alerts.app, name="alerts", epilog=alerts.EXAMPLES)
app.command("config", epilog=config.EXAMPLES)(config.write_config)


def main() -> None:
    """Run the command line."""
    app()
