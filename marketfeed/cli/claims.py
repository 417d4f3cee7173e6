"""Options for claims, of ``marketfeed keys add`` and ``marketfeed token``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketfeed.cli.options import MAX_ERROR_CHARACTERS, fail
from marketfeed.config.guesses import guess
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
MOST_MEMBERS: Final = 10_000  # of a list that are checked one by one
SHOWS_NOTHING: Final = "it shows no symbol: give --symbols and --channels, or set them in [auth.defaults]"


def given_claims(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims among the parameters of a command, by name.

    Ends the command with all mistakes if any is invalid.
    """
    from marketfeed.access.claims import NAMES

    found: dict[str, Any] = {}
    for name in NAMES:
        value = parameters[name]
        if name in _LISTS and value:
            found[name] = [part.strip() for text in value for part in text.split(",") if part.strip()]
        elif name not in _LISTS and value is not None:
            found[name] = value
    mistakes = [
        f"--{name.replace('_', '-')}: {why}" for name in found for why in _mistakes(name, found[name])
    ]
    if mistakes:
        raise fail("\n".join(mistakes))
    return found


def _mistakes(name: str, value: Any) -> list[str]:
    """Return what is wrong with the value of a claim: of a list, with each of its members."""
    from marketfeed.access.claims import CHANNELS

    if name == "channels":
        return [
            f"one of {', '.join(CHANNELS)}, not {printable(one, 40)!a}{guess(one, CHANNELS)}"
            for one in value
            if one not in CHANNELS
        ]
    if name in _LISTS:
        members = [why for one in value[:MOST_MEMBERS] if (why := _problem(name, [one]))]
        if members:
            return members
    why = _problem(name, value)
    return [] if why is None else [why]


def _problem(name: str, value: Any) -> str | None:
    from marketfeed.access.claims import claims_of

    try:
        claims_of({"sub": "-", name: value})
    except AccessError as error:
        text = str(error).removeprefix("the claims are invalid: ").removeprefix(f"{name}: ")
        return text.partition(" - at `$")[0]
    return None


def warn_of_claims(claims: Mapping[str, Any], config: Config) -> None:
    """Warn if the engine with this configuration would refuse ``claims``, or if they show nothing."""
    from marketfeed.access.claims import claims_of
    from marketfeed.access.entitlement import entitlement_of
    from marketfeed.access.verifier import defaults_of

    try:
        found = claims_of(claims, None, defaults_of(config.auth))
        warn_of_nothing(entitlement_of(found, config.auth.tenants, config.tiers))
    except AccessError as error:
        warn_of_refusal(error, claims, config)


def warn_of_refusal(error: Exception, claims: Mapping[str, Any], config: Config) -> None:
    """Warn that the engine will refuse ``claims``; a tier or tenant that it does not know gets a guess."""
    hint = ""
    for name, known in (("tier", config.tiers), ("tenant", config.auth.tenants)):
        value = claims.get(name)
        if value is not None and value not in known and known:
            hint += f"; {name}s are {', '.join(known)}{guess(value, known)}"
    warn(f"the engine will refuse it: {str(error).splitlines()[0]}{hint}")


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
