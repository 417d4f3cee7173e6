"""Statistics of a server of sessions, as plain values that can be sent between processes and added up.

Every field merges by its type: numbers are added, dicts key by key, lists element by element. A new figure
needs a field here, a line in server/local.py that fills it in, and one in admin/metrics.py that shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from marketfeed.errors import CloseCode
from marketfeed.fanout.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable

MAXIMA: Final = frozenset(
    {"gc_longest_s", "gc_longest_cpu_s"}
)  # fields of which the highest counts, not the sum


class ServerStats(msgspec.Struct):
    """The figures of one server since its start, or the sum of several."""

    sessions: dict[tuple[str, str], int] = {}  # now, by transport and tier
    clients: dict[tuple[str, str], int] = {}  # sessions now, by protocol and SDK
    lagging: dict[str, int] = {}  # now, by tier
    synced: int = 0  # sessions now whose first `synced` was sent
    groups: int = 0  # now
    accepted: int = 0
    handshakes_per_s: int = 0  # most in one second
    closes: dict[int, int] = {}  # by close code
    refused: dict[str, int] = {}  # connections, by reason
    requests: dict[tuple[str, int], int] = {}  # over HTTP, by route ("" for unknown ones) and status
    polls: int = 0  # long polls that wait now
    errors: dict[int, int] = {}  # error messages, by code
    ledgers: dict[str, Ledger] = {}  # by tier
    frames: int = 0
    flushes: int = 0
    failures: int = 0
    flush_seconds: float = 0.0
    flush_counts: list[int] = []  # by fanout.figures.FLUSH_BOUNDS_S, each without those before
    gc_collections: list[int] = []  # by generation
    gc_seconds: list[float] = []
    gc_longest_s: float = 0.0
    gc_longest_cpu_s: float = 0.0
    frame_sizes: list[int] = []  # frames by how many bits their length has
    sent_bytes: int = 0  # in frames of flushes
    durations: list[
        int
    ] = []  # sessions that ended, by gateway.limits.DURATION_BOUNDS_S, each without those before
    duration_s: float = 0.0
    cpu_s: dict[str, float] = {}  # by process
    resident_bytes: dict[str, int] = {}
    interruptions: dict[str, int] = {}  # that probes saw, by tier
    interrupted_s: dict[str, float] = {}
    unplaced: dict[str, int] = {}  # deliveries whose batch was too long ago for `ring` and `wait`, by tier
    workers: dict[str, int] = {}  # connections now, by worker
    worker_restarts: int = 0

    def past(self) -> ServerStats:
        """Return the figures of a half that died: what it served has ended, what was pending is abandoned."""
        lost = sum(self.sessions.values())
        ledgers = {tier: Ledger() for tier in self.ledgers}
        for tier, ledger in self.ledgers.items():
            ledgers[tier].add(ledger)
            ledgers[tier].abandoned += ledgers[tier].pending
            ledgers[tier].pending = 0
        closes = _sum(self.closes, {int(CloseCode.ABNORMAL): lost} if lost else {})
        return msgspec.structs.replace(
            self,
            sessions={},
            clients={},
            lagging={},
            synced=0,
            groups=0,
            polls=0,
            handshakes_per_s=0,
            closes=closes,
            ledgers=ledgers,
            resident_bytes={},
        )


def merged(reports: Iterable[ServerStats]) -> ServerStats:
    """Return the sum of ``reports``; they stay as they are."""
    total = ServerStats()
    for report in reports:
        for name in ServerStats.__struct_fields__:
            mine, more = getattr(total, name), getattr(report, name)
            setattr(total, name, max(mine, more) if name in MAXIMA else _sum(mine, more))
    return total


def _sum(mine: Any, more: Any) -> Any:
    if isinstance(mine, dict):
        both = {key: _sum(mine[key], more[key]) for key in mine.keys() & more.keys()}
        return mine | more | both
    if isinstance(mine, list):
        longer, shorter = (mine, more) if len(mine) >= len(more) else (more, mine)
        return [a + b for a, b in zip(longer, shorter, strict=False)] + longer[len(shorter) :]
    if isinstance(mine, Ledger):
        total = Ledger()
        total.add(mine)
        total.add(more)
        return total
    return mine + more
