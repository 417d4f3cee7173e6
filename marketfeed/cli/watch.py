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
        list[str], typer.Argument(help="Symbols, or prefixes such as 'BTC*' (quote the star).")
    ],
    url: UrlOption = None,
    tier: Annotated[str | None, typer.Option(help="vip, premium, basic, or what the engine has.")] = None,
    token: TokenOption = None,
    ca: CaOption = None,
    config: ConfigOption = None,
) -> None:
    """Show quotes and trades live: a table on a terminal, a line a tick otherwise."""
    from marketfeed.cli.session_view import Watch

    try:
        status = trio.run(Watch(endpoint_from(url, ca, config), symbols, tier, token).run)
    except ConfigError as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:  # before the command listened for it
        status = 0
    raise typer.Exit(status)
