"""The command line of ``marketfeed watch``."""

from __future__ import annotations

from typing import Annotated, Final

import trio
import typer

from marketfeed.cli.options import CaOption, ConfigOption, TokenOption, UrlOption, endpoint_from, fail
from marketfeed.errors import ConfigError

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed watch SY0000 SY0001\n\n"
    "marketfeed watch 'BTC*' --tier premium\n\n"
    "marketfeed watch '*' --url wss://feed.example.com/v1/stream | grep trade"
)


def watch(
    symbols: Annotated[
        list[str],
        typer.Argument(metavar="SYMBOL", help="Symbols, or prefixes such as 'BTC*' (quote the asterisk)."),
    ],
    url: UrlOption = None,
    tier: Annotated[
        str | None,
        typer.Option(help="Tier, such as vip, premium or basic. Default: the engine's default tier."),
    ] = None,
    token: TokenOption = None,
    ca: CaOption = None,
    config: ConfigOption = None,
) -> None:
    """Show live quotes and trades: as a table on a terminal, else as one line per tick."""
    from marketfeed.cli.session_view import Watch

    try:
        status = trio.run(Watch(endpoint_from(url, ca, config), symbols, tier, token).run)
    except ConfigError as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:  # before the signal receiver was open
        status = 0
    raise typer.Exit(status)
