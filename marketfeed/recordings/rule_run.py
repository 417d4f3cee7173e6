"""Alert rules run over a recording: what they would have raised, and figures per rule.

The clock is that of the recording: no time passes but between its ticks. The alerts do not depend on how the
ticks are cut into batches. The feed of a recording is always live, so ``feed_down`` never raises, and
``stale`` measures every silence.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from marketfeed.core.records import Records, stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from marketfeed.alerts.rules import Judged, RuleSet
    from marketfeed.recordings.ticks import RecordedTicks, Step

BATCH_TICKS: Final = 8192  # evaluated in one go


@dataclass(slots=True)
class RuleFigures:
    """What one rule raised and cleared."""

    raised: int = 0
    cleared: int = 0
    suppressed: int = 0  # episodes that the cool-down kept back, as far as a later alert says so
    inhibited: int = 0  # of ``raised``
    symbols: Counter[str] = field(default_factory=Counter)  # episodes of each symbol

    @property
    def open(self) -> int:
        """Episodes that were not over at the end of the recording."""
        return self.raised - self.cleared

    def take(self, judged: Judged) -> None:
        """Count one alert."""
        alert = judged.alert
        self.suppressed += alert.suppressed
        if alert.state == "raised":
            self.raised += 1
            self.inhibited += judged.inhibited
            self.symbols[alert.symbol] += 1
        else:
            self.cleared += 1


@dataclass(slots=True)
class RunFigures:
    """Figures of a run so far."""

    rules: dict[str, RuleFigures]
    quotes: int = 0
    trades: int = 0
    symbols: int = 0
    first_ns: int = 0  # times of arrival, Unix
    last_ns: int = 0
    took_s: float = 0.0

    @property
    def recorded_s(self) -> float:
        """Time from the first to the last tick."""
        return (self.last_ns - self.first_ns) / 1e9

    @property
    def ticks(self) -> int:
        """Quotes and trades."""
        return self.quotes + self.trades

    @property
    def ticks_per_s(self) -> float:
        """Ticks per second of real time, reading included."""
        return self.ticks / max(self.took_s, 1e-9)

    def per_hour(self, rule: str) -> float:
        """Return the episodes that a rule raised per hour of the recording."""
        return self.rules[rule].raised * 3600 / self.recorded_s if self.recorded_s else 0.0


def run_rules(
    ticks: RecordedTicks,
    rules: RuleSet,
    shown: Collection[str],
    found: Callable[[Sequence[Judged]], None],
    progress: Callable[[RunFigures], None] = lambda figures: None,
    batch_ticks: int = BATCH_TICKS,
) -> RunFigures:
    """Evaluate ``rules`` on all ``ticks``; ``found`` gets the alerts of the rules ``shown``, in order.

    ``progress`` is called after each step. Raises what reading the ticks raises.
    """
    began_s = time.monotonic()
    figures = RunFigures({name: RuleFigures() for name in shown})
    for step in ticks.steps():
        names = ticks.names()
        rules.learn(names[figures.symbols :])
        figures.symbols = len(names)
        for quotes, trades in _cut(step, batch_ticks):
            judged = [one for one in rules.evaluate(quotes, trades) if one.alert.rule in figures.rules]
            for one in judged:
                figures.rules[one.alert.rule].take(one)
            if judged:
                found(judged)
        _count(figures, step)
        figures.took_s = time.monotonic() - began_s
        progress(figures)
    figures.took_s = time.monotonic() - began_s
    return figures


def _count(figures: RunFigures, step: Step) -> None:
    figures.quotes += len(step.quotes)
    figures.trades += len(step.trades)
    for records in step:
        if len(records):
            first_ns, last_ns = int(records["ts_recv"].min()), int(records["ts_recv"].max())
            figures.first_ns = min(figures.first_ns or first_ns, first_ns)
            figures.last_ns = max(figures.last_ns, last_ns)


def _cut(step: Step, batch_ticks: int) -> Iterator[tuple[Records, Records]]:
    """Yield the ticks of ``step`` in batches of at most ``batch_ticks``, in order of ``g``."""
    heads = [int(stamps_of(records)[0]) for records in step if len(records)]
    if not heads:
        return
    first, total = min(heads), len(step.quotes) + len(step.trades)
    edges = [0, 0]
    for end in range(first + batch_ticks, first + total + batch_ticks, batch_ticks):
        upto = [int(stamps_of(records).searchsorted(end)) for records in step]
        quotes, trades = (records[a:b] for records, a, b in zip(step, edges, upto, strict=True))
        edges = upto
        yield quotes, trades
