"""Options that several commands share, and how they fail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from marketfeed.config.schema import Loaded, load
from marketfeed.core.printable import printable
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from marketfeed.client.connection import Endpoint

MOST_ERROR: Final = 4000  # characters of a line

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Configuration file. Without it: ./config.toml, else the built-in one."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one key, such as gateway.port=9000 or feeds.0.rate=1000."
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca", metavar="FILE", help="Trust the certificates in this PEM file, not the system's; for wss://."
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(help="Access token, where the engine asks for one.", envvar="MARKETFEED_TOKEN"),
]
UrlOption = Annotated[
    str | None, typer.Option(help="The engine's stream; default: the one the configuration names.")
]
LogOption = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]


def fail(text: str) -> typer.Exit:
    # Line by line: what of the text came from a file or a peer may hold anything.
    for line in text.split("\n"):
        print(f"marketfeed: {printable(line, MOST_ERROR)}", file=sys.stderr)
    return typer.Exit(2)


def load_config(config: Path | None, overrides: list[str] | None) -> Loaded:
    from marketfeed.ingest.registry import feed_keys

    try:
        return load(config, overrides or [], feed_keys=feed_keys)
    except ConfigError as error:
        raise fail(str(error)) from None


def endpoint_from(url: str | None, ca: Path | None, config: Path | None, elsewhere: str = "") -> Endpoint:
    """Return the stream at ``url``, else that of the engine with this configuration; raises ConfigError.

    ``elsewhere`` is how the command is given a URL, if not by ``--url``.
    """
    from marketfeed.client.connection import BY_OPTION, endpoint, endpoint_of

    if url is not None:
        return endpoint(url, ca)
    return endpoint_of(load_config(config, None).config.gateway, ca, elsewhere or BY_OPTION)
