"""Metrics of access control. Those of authentications are with the sessions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from marketfeed.admin.families import counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from marketfeed.server.access_control import AccessControl


def access_metrics(access: AccessControl) -> Iterable[Metric]:
    """Return the metrics of the access control of an engine."""
    kinds = {("sub",): 0, ("tenant",): 0, ("token",): 0}
    revocations = kinds | Counter((one.kind,) for one in access.revocations())
    yield gauge("revocations", "Revocations in force, by what they revoke.", "kind", revocations)
    yield gauge("tickets", "Tickets that may still be used.", "", {(): access.desk.tickets})
    found = access.fetches()
    fetches = {} if found is None else {("ok",): found.succeeded, ("failed",): found.failed}
    yield counter("jwks_fetches_total", "Fetches of the set of keys, by result.", "result", fetches)
