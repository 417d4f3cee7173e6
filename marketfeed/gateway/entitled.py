"""What of a request is entitled: names, tiers, consumers. Pure; raises RequestError for what is not.

A plain name that is not entitled is an error, since the client would wait for it in vain. A pattern is
narrowed silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.access.entitlement import NOTHING, UNBOUNDED, Entitlement
from marketfeed.errors import ErrorCode, RequestError
from marketfeed.fanout.interest import Names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.access.grant import Grant
    from marketfeed.fanout.tiers import Tier
    from marketfeed.gateway.protocol import RequestId

CHANNEL_NAMES: Final = ("quotes", "trades")
# Of a session that has not authenticated yet.
STRANGER: Final = Entitlement(NOTHING, NOTHING, None, None, NOTHING, NOTHING)


def entitlement_of(controlled: bool, grant: Grant | None) -> Entitlement:
    """Return what ``grant`` entitles to; without access control (not ``controlled``), everything."""
    if grant is not None:
        return grant.entitlement
    return STRANGER if controlled else UNBOUNDED


def narrowed(entitlement: Entitlement, names: Names) -> Names:
    """Return what is left of ``names``."""
    if entitlement is UNBOUNDED:
        return names
    return Names(*(entitlement.narrow(channel, listed) for channel, listed in enumerate(names)))


def entitled(entitlement: Entitlement, names: Names) -> Names:
    """Return ``names`` as written, without the plain ones that are not entitled."""
    if entitlement is UNBOUNDED:
        return names
    held = entitlement.quotes, entitlement.trades
    return Names(
        *(
            [name for name in listed if name.endswith("*") or name in symbols]
            for listed, symbols in zip(names, held, strict=True)
        )
    )


def check_names(entitlement: Entitlement, names: Names, id_: RequestId = None) -> None:
    """Raise RequestError if a plain name is not entitled."""
    for channel, listed in enumerate(names):
        name = entitlement.forbidden(channel, listed)
        if name is not None:
            raise RequestError(
                ErrorCode.NOT_ENTITLED, f"not entitled: {name} on {CHANNEL_NAMES[channel]}", id_
            )


def check_count(entitlement: Entitlement, names: Names, id_: RequestId = None) -> None:
    """Raise RequestError if a subscription has more names than the token allows."""
    most = entitlement.max_symbols
    if most is not None and len(names.distinct()) > most:
        raise RequestError(ErrorCode.SYMBOL_LIMIT, f"max_symbols of the token: at most {most} names", id_)


def check_tier(entitlement: Entitlement, tier: Tier, id_: RequestId = None) -> None:
    """Raise RequestError if ``tier`` is not entitled."""
    if not entitlement.allows_tier(tier.name):
        allowed = ", ".join(entitlement.tiers or ())
        raise RequestError(
            ErrorCode.NOT_ENTITLED, f"not entitled: tier {tier.name}; entitled: {allowed}", id_
        )


def check_alerts(entitlement: Entitlement, consumer: str | None, id_: RequestId = None) -> None:
    """Raise RequestError if alerts may not be seen, or not as ``consumer``."""
    if entitlement.alerts is None:
        raise RequestError(ErrorCode.NOT_ENTITLED, "not entitled: alerts", id_)
    if consumer is not None and not entitlement.allows_consumer(consumer):
        raise RequestError(ErrorCode.NOT_ENTITLED, f"not entitled: consumer {consumer[:64]}", id_)


def check_publishing(entitlement: Entitlement, to: str | None) -> None:
    """Raise RequestError if notices may not be sent to consumer ``to``, None: to everybody.

    Whoever may send to everybody may also silence alerts and resolve episodes.
    """
    if not entitlement.allows_publishing(to):
        what = f"publish to {to[:64]}" if to else "publish to everybody, silence and resolve"
        raise RequestError(ErrorCode.NOT_ENTITLED, f"not entitled: {what}")


def symbols_of(entitlement: Entitlement) -> tuple[str, ...]:
    """Return the symbols whose alerts may be seen, as names and prefixes."""
    return () if entitlement.alerts is None else entitlement.alerts.patterns


def tier_for(entitlement: Entitlement, tiers: Mapping[str, Tier], default: Tier) -> Tier:
    """Return the tier of a session that names none: ``default`` if that is entitled, else the next slower."""
    if entitlement.allows_tier(default.name):
        return default
    ordered = sorted(tiers, key=lambda name: (tiers[name].interval_ns, not tiers[name].every))
    return tiers[entitlement.tier_of(default.name, ordered)]


def slowest(entitlement: Entitlement, tiers: Mapping[str, Tier]) -> Tier:
    """Return the slowest tier that is entitled."""
    allowed = [tier for name, tier in tiers.items() if entitlement.allows_tier(name)]
    return max(allowed, key=lambda tier: (tier.interval_ns, not tier.every))
