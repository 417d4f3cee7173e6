"""The command line of ``marketfeed probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import trio
import typer

from marketfeed.cli.options import CaOption, ConfigOption, TokenOption, endpoint_from, fail
from marketfeed.errors import ConfigError, LogError, StartError

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed probe SY0000\n\n"
    "marketfeed probe wss://feed.example.com/v1/stream BTC-USD --tier vip --tier premium=100 --seconds 60"
)


def probe(
    symbols: Annotated[
        list[str],
        typer.Argument(
            metavar="[URL] SYMBOL",
            help="URL of the engine's stream, ws:// or wss:// (default: as the configuration says), "
            "then the symbols to subscribe to. One busy symbol is enough.",
        ),
    ],
    tier: Annotated[
        list[str] | None,
        typer.Option(
            help="Tier to measure; may be repeated. If it delivers the latest only, add its interval in ms: "
            "premium=100."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Duration of the measurement.")] = 10.0,
    interruption: Annotated[
        str, typer.Option(help="A tick that is later than this counts as an interruption.")
    ] = "1s",
    out: Annotated[
        Path | None, typer.Option(help="Write a latency log to this file, for `marketfeed report`.")
    ] = None,
    token: TokenOption = None,
    ca: CaOption = None,
    config: ConfigOption = None,
) -> None:
    """Measure latency per tier, round trips and interruptions as a subscriber on this machine."""
    from marketfeed.cli.latency_probe import LatencyProbe, Seen
    from marketfeed.client.address import BY_ARGUMENT, endpoint
    from marketfeed.latency.units import duration_ns

    url, names = (symbols[0], symbols[1:]) if "://" in symbols[0] else (None, symbols)
    if not names:
        raise fail(f"SYMBOL: missing after {url}; give at least one symbol to subscribe to")
    try:
        limit_ns = duration_ns(interruption)
        seen = [Seen.parse(text, limit_ns) for text in tier or [""]]
        engine = endpoint_from(None, ca, config, BY_ARGUMENT) if url is None else endpoint(url, ca, "")
        lines = trio.run(LatencyProbe(engine, names, seen, token, out).run, seconds)
    except (ConfigError, LogError, StartError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print("\n".join(filter(None, lines)))
    if not all(one.arrivals.ticks for one in seen):
        raise typer.Exit(1)
