"""Quotas: which tenants have got more than ``[auth.tenants.NAME]`` allows. Pure.

    usage of all workers ──► Quotas, in the engine ──► Over ──► Limited, in each process that serves sessions

A quota of a day ends with the UTC day. A tenant that exceeded its rate counts as over for OVER_S.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from marketfeed.access.usage import Totals
    from marketfeed.config.schema import TenantConfig

OVER_S: Final = 60.0
Action = Literal["slower", "stop"]


class Over(msgspec.Struct, frozen=True, array_like=True):
    """A tenant that exceeds a quota: the quota, and what becomes of its sessions."""

    tenant: str
    reason: str
    action: Action


class Quotas:
    """The quotas of all tenants; ``tenants`` may be replaced by a reload."""

    def __init__(self, tenants: Mapping[str, TenantConfig]) -> None:
        self.tenants = tenants
        self._fast: dict[str, float] = {}  # until when tenants that exceeded their rate count as over

    def over(self, now_s: float, today: Mapping[str, Totals], rates: Mapping[str, float]) -> list[Over]:
        """Return the tenants that are over, by name. ``today`` and ``rates`` are those of the Book."""
        found: list[Over] = []
        for name, tenant in sorted(self.tenants.items()):
            reason = self._day(tenant, today.get(name)) or self._rate(name, tenant, now_s, rates)
            if reason is not None:
                found.append(Over(name, reason, tenant.over))
        return found

    @staticmethod
    def _day(tenant: TenantConfig, used: Totals | None) -> str | None:
        if used is None:
            return None
        for key, most, number in (
            ("max_ticks_per_day", tenant.max_ticks_per_day, used.ticks),
            ("max_bytes_per_day", tenant.max_bytes_per_day, used.sent_bytes),
        ):
            if most is not None and number >= most:
                return f"{key} of the tenant: {most}"
        return None

    def _rate(self, name: str, tenant: TenantConfig, now_s: float, rates: Mapping[str, float]) -> str | None:
        most = tenant.max_ticks_per_s
        if most is None:
            self._fast.pop(name, None)
            return None
        if rates.get(name, 0.0) > most:
            self._fast[name] = now_s + OVER_S
        return f"max_ticks_per_s of the tenant: {most}" if now_s < self._fast.get(name, 0.0) else None


class Limited:
    """The tenants that are over, as one process knows them."""

    def __init__(self) -> None:
        self._over: dict[str, Over] = {}

    def of(self, tenant: str) -> Over | None:
        """Return why a tenant is over; None if it is not."""
        return self._over.get(tenant)

    def set(self, over: Iterable[Over]) -> set[str]:
        """Record the tenants that are over now, all of them; return those for which that has changed."""
        before, self._over = self._over, {one.tenant: one for one in over}
        either = before.keys() | self._over.keys()
        return {tenant for tenant in either if before.get(tenant) != self._over.get(tenant)}
