"""Alerts as clients receive them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from marketfeed.api import messages
from marketfeed.core.units import US

if TYPE_CHECKING:
    from marketfeed.alerts.alert import Alert


def alert_message(alert: Alert, tries: int = 1, ack: bool = False) -> messages.Alert:
    """Return the message of the delivery number ``tries``; ``ack``: it has to be acknowledged."""
    return messages.Alert(
        id=alert.id,
        key=alert.key,
        rule=alert.rule,
        S=alert.symbol,
        sev=alert.severity,
        state=alert.state,
        v=alert.value,
        th=alert.threshold,
        t=alert.t_ns // US,
        r=alert.r_ns // US,
        msg=alert.message,
        try_=tries,
        ack=ack,
        suppressed=alert.suppressed,
        to=UNSET if alert.to is None else alert.to,
        data=UNSET if alert.data is None else alert.data,
    )
