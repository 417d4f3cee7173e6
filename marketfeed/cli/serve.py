"""The command line of ``marketfeed serve``."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import trio
import typer

from marketfeed import logs
from marketfeed.cli.options import MAX_ERROR_CHARACTERS, ConfigOption, LogOption, SetOption, fail
from marketfeed.config.schema import Loaded, load
from marketfeed.core.counts import amount
from marketfeed.core.printable import printable
from marketfeed.errors import ConfigError, StartError

EXAMPLES: Final = (
    "Examples:\n\nmarketfeed serve --set feeds.0.rate=100000\n\nmarketfeed serve --config prod.toml --check"
)


def serve(
    config: ConfigOption = None,
    set_: SetOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration, report every mistake, and exit.")
    ] = False,
    log_level: LogOption = "info",
) -> None:
    """Run the engine: receive ticks from feeds, and distribute them to subscribers.

    Prints one line on stdout when it accepts subscribers, and logs to stderr.

    Configuration errors print one line each and exit with status 2.

    SIGTERM or Ctrl-C drains the sessions and exits with status 0; a second one exits at once (130).

    SIGHUP reloads the configuration.
    """
    if log_level not in ("debug", "info", "warning", "error"):
        raise fail(f"--log-level {log_level}: must be one of debug, info, warning, error")
    logs.configure(log_level)
    from marketfeed import engine  # imported late, to keep --help fast
    from marketfeed.checks import idle, log_problem, mistakes
    from marketfeed.ingest.registry import feed_keys

    def read() -> Loaded:
        return load(config, set_ or [], mistakes, feed_keys)

    try:
        loaded = read()
        if check:
            engine.check(loaded)
            feeds, tiers = len(loaded.config.feeds), len(loaded.config.tiers)
            print(f"config ok: {loaded.source}, {amount(feeds, 'feeds')}, {amount(tiers, 'tiers')}")
            for warning in filter(None, (*idle(loaded), log_problem(loaded))):
                print(f"marketfeed: warning: {printable(warning, MAX_ERROR_CHARACTERS)}", file=sys.stderr)
            return
        status = trio.run(engine.serve, loaded, log_level, read)
    except (ConfigError, StartError) as error:
        raise fail(str(error)) from None
    raise typer.Exit(status)
