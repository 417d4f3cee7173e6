"""Alerts as clients receive them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from marketfeed.api import messages
from marketfeed.core.units import US

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from marketfeed.alerts.alert import Alert

ARRAY_BYTES: Final = 262_144  # of one array, unless a single message is longer; clients limit their frames


def arrays(found: Iterable[messages.Alert]) -> Iterator[bytes]:
    """Yield ``found`` as JSON arrays of about ARRAY_BYTES at most."""
    parts: list[bytes] = []
    size = 0
    for message in found:
        part = msgspec.json.encode(message)
        if parts and size + len(part) > ARRAY_BYTES:
            yield b"[%b]" % b",".join(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield b"[%b]" % b",".join(parts)


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
