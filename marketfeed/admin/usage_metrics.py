"""Metrics of usage, by tenant. Never by `sub`: these are many, and may name people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from marketfeed.access.usage import ALERTS
from marketfeed.admin.families import counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from marketfeed.server.metering import Metering

MAX_TENANTS: Final = 1000  # with labels of their own: whoever issues tokens names tenants
OTHERS: Final = "(others)"


def usage_metrics(metering: Metering) -> Iterable[Metric]:
    """Return the metrics of usage; none if metering is off."""
    if not metering.enabled:
        return
    book = metering.book
    names = dict.fromkeys(tenant for tenant, _, _ in book.sums)
    shown = set(list(names)[:MAX_TENANTS])  # the first ones, so that none loses its series
    ticks: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    alerts: Counter[tuple[str]] = Counter()
    for (tenant, tier, channel), (number, size) in book.sums.items():
        label = tenant if tenant in shown else OTHERS
        sizes[label, tier, channel] += size
        if channel == ALERTS:
            alerts[label,] += number
        else:
            ticks[label, tier, channel] += number
    text = "Ticks sent to the users of a tenant, without snapshots; updated every 20 s."
    yield counter("usage_ticks_total", text, "tenant tier channel", ticks)
    text = "Bytes of ticks, snapshots and alerts sent to the users of a tenant; updated every 20 s."
    yield counter("usage_bytes_total", text, "tenant tier channel", sizes)
    yield counter("usage_alerts_total", "Alerts sent to the users of a tenant.", "tenant", alerts)
    sessions: Counter[tuple[str]] = Counter()
    for user, number in book.sessions.items():
        known = user.tenant in shown or len(shown) < MAX_TENANTS
        sessions[user.tenant if known else OTHERS,] += number
    yield gauge("tenant_sessions", "Sessions of a tenant now.", "tenant", sessions)
    over = {(one.tenant, one.action): 1 for one in metering.over}
    yield gauge("tenant_over_quota", "1 for each tenant that exceeds a quota.", "tenant action", over)
    text = "Commits of usage to the file at auth.path that failed."
    yield counter("usage_store_failures_total", text, "", {(): metering.failures})
    text = "Users and days with usage that is not in the file yet."
    yield gauge("usage_unwritten", text, "", {(): len(book)})
