"""What the checks of alert logs have in common: example alerts, and comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from marketfeed.alerts.alert import Alert, alert_id
from marketfeed.core.units import S

if TYPE_CHECKING:
    from marketfeed.alerts.log import AlertLog, Retention

NOW_NS: Final = 1_790_000_000 * S


def example(number: int, rule: str = "wide", state: Any = "raised", **fields: Any) -> Alert:
    """Return an alert whose id depends on its arguments; a ``cleared`` has the key of the same ``raised``."""
    at_ns = NOW_NS + number * S
    ids = {which: alert_id(rule, "AAPL", which, at_ns, 0) for which in ("raised", state)}
    known: dict[str, Any] = {
        "key": ids["raised"],
        "symbol": "AAPL",
        "value": 0.1 * number,
        "threshold": 0.5,
        "t_ns": at_ns,
        "message": "é\0",
    }
    return Alert(id=ids[state], rule=rule, state=state, **(known | fields))


def same(found: object, expected: object) -> None:
    """Raise AssertionError if ``found`` is not ``expected``."""
    if found != expected:
        raise AssertionError(f"{found!r}, expected {expected!r}")


async def pruned(log: AlertLog, now_ns: int, keep: Retention) -> int:
    """Run steps until a pass has ended; return how many entries they removed."""
    removed, more = 0, True
    while more:
        step = await log.prune(now_ns, keep)
        removed, more = removed + step.removed, step.more
    return removed
