"""Entitlements: what a session may see, from its claims and the bounds of its tenant. Pure.

A subscription is narrowed when it is made: what is left is again a set of names and prefixes. The fan-out
resolves these as any others, so an entitlement costs nothing on the way of a tick, and sessions share a frame
only if they may see all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from marketfeed.core.symbol_set import SymbolSet
from marketfeed.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from marketfeed.access.claims import Claims
    from marketfeed.config.schema import TenantConfig, TierConfig

NOTHING: Final = SymbolSet()
EVERY_SYMBOL: Final = SymbolSet(["*"])


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a session may see and do. ``quotes`` and ``trades`` are symbols; ``tiers`` are names, best first.

    ``alerts`` are the symbols whose alerts it may see, None: no alerts at all.
    """

    quotes: SymbolSet = EVERY_SYMBOL
    trades: SymbolSet = EVERY_SYMBOL
    alerts: SymbolSet | None = EVERY_SYMBOL
    tiers: tuple[str, ...] | None = None  # None: all
    consumers: SymbolSet | None = None  # names of consumers; None: all
    publish: SymbolSet | None = None  # consumers that it may send notices to; None: all
    max_symbols: int | None = None

    def narrow(self, channel: int, patterns: Iterable[str]) -> list[str]:
        """Return what is left of names and prefixes on a channel (0: quotes, 1: trades)."""
        return (self.quotes, self.trades)[channel].narrow(patterns)

    def forbidden(self, channel: int, patterns: Iterable[str]) -> str | None:
        """Return the first plain name on a channel that is not entitled; None if there is none."""
        held = (self.quotes, self.trades)[channel]
        if held.everything:
            return None
        return next((name for name in patterns if not name.endswith("*") and name not in held), None)

    def shows(self, symbol: str) -> bool:
        """Return whether ticks of ``symbol`` may be seen on any channel."""
        return symbol in self.quotes or symbol in self.trades

    def allows_tier(self, tier: str) -> bool:
        """Return whether ``tier`` may be used."""
        return self.tiers is None or tier in self.tiers

    def shows_alert(self, symbol: str) -> bool:
        """Return whether alerts about ``symbol`` ("": about none) may be seen."""
        return self.alerts is not None and (not symbol or symbol in self.alerts)

    def allows_consumer(self, name: str) -> bool:
        """Return whether alerts may be taken and acknowledged as consumer ``name``."""
        return self.alerts is not None and (self.consumers is None or name in self.consumers)

    def allows_publishing(self, to: str | None) -> bool:
        """Return whether notices may be sent to consumer ``to``, None: to everybody.

        Whoever may send to everybody may also silence alerts and resolve episodes.
        """
        if self.publish is None or self.publish.everything:
            return True
        return to is not None and to in self.publish

    def tier_of(self, default: str, ordered: Sequence[str]) -> str:
        """Return the tier of a session that names none; ``ordered`` are the names of all tiers, best first.

        It is ``default``, or the best that is allowed, whichever is slower.
        """
        if self.tiers is None or default in self.tiers:
            return default
        slower = [name for name in ordered[ordered.index(default) :] if name in self.tiers]
        return slower[0] if slower else self.tiers[-1]


UNBOUNDED: Final = Entitlement()


def in_order(tiers: Mapping[str, TierConfig]) -> tuple[str, ...]:
    """Return the names of ``tiers``, the best first: lower interval, then every tick."""
    return tuple(sorted(tiers, key=lambda name: _rank(tiers[name])))


def _rank(tier: TierConfig) -> tuple[float, bool]:
    return tier.interval_ms, tier.delivery != "every"


def entitlement_of(
    claims: Claims, tenants: Mapping[str, TenantConfig], tiers: Mapping[str, TierConfig]
) -> Entitlement:
    """Return what ``claims`` entitle to within the bounds of their tenant. Raises AccessError."""
    ordered = in_order(tiers)
    best = claims.tier if claims.tier is not None else ordered[-1]
    if best not in tiers:
        raise AccessError(f"the claims are invalid: tier: no such tier: {best[:40]!r}")
    allowed = tuple(name for name in ordered if _rank(tiers[name]) >= _rank(tiers[best]))
    symbols, channels = SymbolSet(claims.symbols), set(claims.channels)
    tenant = tenants.get(claims.tenant)
    if tenant is None and tenants:
        raise AccessError(f"the claims are invalid: tenant: no such tenant: {claims.tenant[:40]!r}")
    if tenant is not None:
        symbols &= SymbolSet(tenant.symbols)
        channels &= set(tenant.channels)
        allowed = tuple(name for name in allowed if tenant.tiers is None or name in tenant.tiers)
        if not allowed:
            raise AccessError("neither the claim tier nor the tenant's tiers leave a tier to use")
    return Entitlement(
        quotes=symbols if "quotes" in channels else NOTHING,
        trades=symbols if "trades" in channels else NOTHING,
        alerts=symbols if "alerts" in channels else None,
        tiers=allowed,
        consumers=SymbolSet(claims.consumers),
        publish=SymbolSet(claims.publish),
        max_symbols=claims.max_symbols,
    )
