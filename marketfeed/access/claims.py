"""Claims: what a key or a token says about its holder. Pure.

Each claim has a name of ours; ``[auth.claims]`` says under which name an identity provider sends it, and
``[auth.defaults]`` what holds where a token says nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from marketfeed.core.printable import printable
from marketfeed.core.symbols import is_pattern, is_symbol
from marketfeed.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Mapping

Channel = Literal["quotes", "trades", "alerts"]
CHANNELS: Final[tuple[str, ...]] = get_args(Channel)

MAX_PATTERNS: Final = 10_000  # symbols, consumers or addressees of one token
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Texts = Annotated[tuple[str, ...], Meta(max_length=MAX_PATTERNS)]
Most = Annotated[int, Meta(ge=0, le=2**53)]
_CONSUMER: Final = re.compile(r"[!-~]{0,64}")


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the holder of a key or token may see and do."""

    sub: Text
    tenant: Annotated[str, Meta(max_length=256)] = ""
    tier: str | None = None  # the best that it may use; None: the slowest
    symbols: Texts = ()  # names and prefixes, such as BTC*
    channels: tuple[Channel, ...] = ("quotes", "trades")
    consumers: Texts = ()  # names of durable consumers, or prefixes
    publish: Texts = ()  # consumers to which it may send notices, or prefixes; * also for everybody
    max_sessions: Most | None = None  # of this `sub` at a time
    max_symbols: Most | None = None  # names in the subscription of a session; a pattern counts as one


NAMES: Final = tuple(Claims.__struct_fields__)


def claims_of(
    payload: Mapping[str, Any],
    names: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Claims:
    """Return the claims in ``payload``, whose own names are ``names`` (ours to theirs).

    What is absent or null is taken from ``defaults``. Raises AccessError.
    """
    found: dict[str, Any] = dict(defaults or {})
    for name in NAMES:
        theirs = (names or {}).get(name, name)
        value = payload.get(theirs)
        if value is not None:
            found[name] = value
    try:
        claims = msgspec.convert(found, Claims)
    except msgspec.ValidationError as error:
        raise AccessError(f"the claims are invalid: {printable(error, 200)}") from None
    problem = claims_problem(claims)
    if problem is not None:
        raise AccessError(f"the claims are invalid: {problem}")
    return claims


def claims_problem(claims: Claims) -> str | None:
    """Return what is wrong with ``claims`` that their types do not express; None if nothing is."""
    for name in ("sub", "tenant"):
        if not getattr(claims, name).isprintable():
            return f"{name}: characters that cannot be printed"
    wrong = next((one for one in claims.symbols if not (is_symbol(one) or is_pattern(one))), None)
    if wrong is not None:
        return f"symbols: not a symbol or prefix*: {wrong[:40]!r}"
    for name in ("consumers", "publish"):
        texts: tuple[str, ...] = getattr(claims, name)
        wrong = next((one for one in texts if not one or not _CONSUMER.fullmatch(one)), None)
        if wrong is not None:
            return f"{name}: not a consumer or prefix*: {wrong[:40]!r}"
    return None
