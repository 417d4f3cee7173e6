"""Options that several commands share, and their error output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from marketfeed.config.schema import Loaded, load
from marketfeed.core.printable import printable
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from marketfeed.client.address import Endpoint

MAX_ERROR_CHARACTERS: Final = 4000  # of a line

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file. Default: ./config.toml, else the built-in one."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override a key, such as gateway.port=9000 or feeds.0.rate=1000; may be repeated.",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="For wss:// and https://: trust the certificates in this PEM file instead of the system's.",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        help="Key or token, if the engine asks for one. Other users of this machine can read command lines, "
        "and not the variable.",
        envvar="MARKETFEED_TOKEN",
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(help="URL of the engine's stream, ws:// or wss://. Default: as the configuration says."),
]
LogOption = Annotated[
    str, typer.Option("--log-level", help="Lowest level to log: debug, info, warning or error.")
]


def fail(text: str) -> typer.Exit:
    """Print ``text`` to stderr; return the exit with status 2, to be raised."""
    # Each line is escaped: parts of it may come from a file or a peer.
    for line in text.split("\n"):
        print(f"marketfeed: {printable(line, MAX_ERROR_CHARACTERS)}", file=sys.stderr)
    return typer.Exit(2)


def load_config(config: Path | None, overrides: list[str] | None) -> Loaded:
    """Return the configuration; mistakes in it end the command with status 2."""
    from marketfeed.ingest.registry import feed_keys

    try:
        return load(config, overrides or [], feed_keys=feed_keys)
    except ConfigError as error:
        raise fail(str(error)) from None


def endpoint_from(
    url: str | None,
    ca: Path | None,
    config: Path | None,
    elsewhere: str = "",
    overrides: list[str] | None = None,
) -> Endpoint:
    """Return the endpoint at ``url``, else that of the engine with this configuration; raises ConfigError.

    ``elsewhere`` describes how to give the command a URL, if not by ``--url``.
    """
    from marketfeed.client.address import BY_OPTION, endpoint, endpoint_of

    if url is not None:
        return endpoint(url, ca)
    return endpoint_of(load_config(config, overrides).config.gateway, ca, elsewhere or BY_OPTION)
