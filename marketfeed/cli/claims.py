"""Options for claims, of ``marketfeed keys add`` and ``marketfeed token``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketfeed.cli.options import MAX_ERROR_CHARACTERS, fail
from marketfeed.core.printable import printable
from marketfeed.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.access.entitlement import Entitlement
    from marketfeed.config.schema import Config

TenantOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The tenant whose bounds apply: auth.tenants.NAME.")
]
TierOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The best tier that it may use. Default: the slowest.")
]
SymbolsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="LIST", help="Symbols and prefixes, such as 'BTC*,AAPL'; '*': all."),
]
ChannelsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="LIST", help="Of quotes,trades,alerts. Default: quotes,trades."),
]
ConsumersOption = Annotated[
    list[str] | None,
    typer.Option(metavar="LIST", help="Consumers of alerts that it may use, names and prefixes."),
]
PublishOption = Annotated[
    list[str] | None,
    typer.Option(metavar="LIST", help="Consumers to which it may send notices; '*': everybody."),
]
MaxSessionsOption = Annotated[int | None, typer.Option(metavar="N", help="Sessions at a time.")]
MaxSymbolsOption = Annotated[int | None, typer.Option(metavar="N", help="Names in one subscription.")]
_LISTS: Final = ("symbols", "channels", "consumers", "publish")
SHOWS_NOTHING: Final = "it shows no symbol: give --symbols and --channels, or set them in [auth.defaults]"


def given_claims(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims among the parameters of a command, by name; ends the command if one is invalid."""
    from marketfeed.access.claims import NAMES, claims_of

    found: dict[str, Any] = {}
    for name in NAMES:
        value = parameters[name]
        if name in _LISTS and value:
            found[name] = [part.strip() for text in value for part in text.split(",") if part.strip()]
        elif name not in _LISTS and value is not None:
            found[name] = value
    try:
        claims_of(found)
    except AccessError as error:
        raise fail(str(error)) from None
    return found


def warn_of_claims(claims: Mapping[str, Any], config: Config) -> None:
    """Warn if the engine with this configuration would refuse ``claims``, or if they show nothing."""
    from marketfeed.access.claims import claims_of
    from marketfeed.access.entitlement import entitlement_of
    from marketfeed.access.verifier import defaults_of

    try:
        found = claims_of(claims, None, defaults_of(config.auth))
        warn_of_nothing(entitlement_of(found, config.auth.tenants, config.tiers))
    except AccessError as error:
        warn(f"the engine will refuse it: {error}")


def warn_of_nothing(found: Entitlement) -> None:
    """Warn if ``found`` shows no symbol on any channel."""
    if not any(one is not None and one.patterns for one in (found.quotes, found.trades, found.alerts)):
        warn(SHOWS_NOTHING)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    tell(f"warning: {text}")


def tell(text: str) -> None:
    """Print an explanation to stderr: stdout has only what scripts take."""
    print(f"marketfeed: {printable(text, MAX_ERROR_CHARACTERS)}", file=sys.stderr)
