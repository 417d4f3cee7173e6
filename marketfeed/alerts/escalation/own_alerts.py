"""Alerts about escalations themselves: one was switched off by its peer, or is on again."""

from __future__ import annotations

from typing import Final

from marketfeed.alerts.alert import Alert, alert_id

RULE: Final = "escalation"


def switched_off(name: str, trouble: str, now_ns: int) -> Alert:
    """Return the alert that the escalation ``name`` is off; ``trouble`` follows its name in the message."""
    key = alert_id(RULE, name, "raised", 0, now_ns)
    message = f"escalation {name} {trouble}"
    return Alert(id=key, key=key, rule=RULE, severity="critical", r_ns=now_ns, message=message)


def switched_on(raised: Alert, now_ns: int) -> Alert:
    """Return what clears ``raised``, an alert of :func:`switched_off`."""
    return Alert(
        id=alert_id(RULE, raised.key, "cleared", 0, now_ns),
        key=raised.key,
        rule=RULE,
        severity="critical",
        state="cleared",
        r_ns=now_ns,
        message="the configuration was read again, and the escalation is on",
    )
