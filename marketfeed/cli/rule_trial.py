"""``marketfeed alerts test``: the configured rules, run over a recording."""

from __future__ import annotations

import contextlib
import sys
from typing import IO, TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import MofNCompleteColumn
from rich.table import Table
from rich.text import Text

from marketfeed.alerts.rules import RuleSet, rule_specs, unmatched
from marketfeed.alerts.rules.registry import FEED_DOWN
from marketfeed.cli.alerts_output import Lines, alert_fields, console_on, moment, print_json
from marketfeed.cli.recordings import feed_of, format_of, progress_bar
from marketfeed.config.guesses import guess
from marketfeed.core.counts import amount
from marketfeed.core.printable import printable
from marketfeed.errors import ConfigError, FeedProtocolError
from marketfeed.recordings.rule_run import RunFigures, run_rules
from marketfeed.recordings.ticks import MarketfeedTicks, RecordedTicks, ReplayedTicks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from marketfeed.alerts.rules import Judged, RuleSpec
    from marketfeed.config.schema import Loaded

_PLAIN_COLUMNS: Final = 200  # of the table, if the output is no terminal


def run(
    loaded: Loaded,
    recording: Path,
    chosen: Sequence[str],
    *,
    format: str | None = None,
    feed: str | None = None,
    as_json: bool = False,
    summary_only: bool = False,
) -> int:
    """Run the rules and print alerts and figures; return the exit status.

    It is 1 if the recording is damaged or a rule failed. Raises ConfigError and RecordingError, and
    BrokenPipeError if the reader of the output has closed it.
    """
    specs, chosen = _specs(loaded, chosen)
    try:
        rules = RuleSet(specs, loaded.config.engine.max_symbols, loaded.base)
    except ConfigError as error:
        raise ConfigError(*map(loaded.sourced, error.mistakes)) from None
    out, notes = sys.stdout, Console(stderr=True, highlight=False, soft_wrap=True)
    # On a terminal, lines go through the console of the progress bar, which it does not overwrite.
    lines = notes if out.isatty() and notes.is_terminal else console_on(out)
    show = _nothing if summary_only else _as_json(out) if as_json else _as_lines(lines)
    # JSON does not go through that console, which would wrap it.
    with_bar = notes.is_terminal and not (as_json and out.isatty())
    try:
        ticks = _ticks(loaded, recording, format, feed)
        with _progress(notes, recording.name, ticks) if with_bar else _no_progress() as tell:
            figures = run_rules(ticks, rules, chosen, show, tell)
    except BrokenPipeError:
        raise
    except (OSError, FeedProtocolError) as error:
        raise ConfigError(f"{recording}: {getattr(error, 'strerror', None) or error}") from None
    if as_json:
        print_json({"summary": _as_dict(figures, recording, ticks, rules)}, out)
    else:
        lines.print(Text(_title(figures, recording), style="bold"))
        Console(width=None if out.isatty() else _PLAIN_COLUMNS).print(_table(figures))
    for text in _remarks(specs, ticks):
        notes.print(Text(printable(f"note: {text}"), style="yellow"))
    problems = [ticks.damage()] if ticks.damage() else []
    problems += [
        f"rule {name} failed, and is not evaluated to the end: {why}" for name, why in rules.failed.items()
    ]
    for text in problems:
        notes.print(Text(printable(text), style="red"))
    return 1 if problems else 0


def _specs(loaded: Loaded, chosen: Sequence[str]) -> tuple[list[RuleSpec], list[str]]:
    """Return the rules to evaluate, those that inhibit included, and the names of the ``chosen``."""
    try:
        specs = {spec.common.name: spec for spec in rule_specs(loaded.config.alerts.rules)}
    except ConfigError as error:
        raise ConfigError(*map(loaded.sourced, error.mistakes)) from None
    if not specs:
        raise ConfigError(f"{loaded.source} has no [[alerts.rules]]: add one, see docs/alerts.md")
    for name in chosen:
        if name not in specs:
            hint = guess(name, specs) or f"; one of {', '.join(specs)}"
            raise ConfigError(f"--rule {name}: {loaded.source} has no rule of this name{hint}")
    names = list(dict.fromkeys(chosen)) or list(specs)
    needed = list(names)
    for name in needed:  # grows
        needed += [other for other in specs[name].common.inhibited_by if other not in needed]
    return [spec for name, spec in specs.items() if name in needed], names


def _ticks(loaded: Loaded, recording: Path, format: str | None, feed: str | None) -> RecordedTicks:
    max_symbols = loaded.config.engine.max_symbols
    if feed is None and (format or format_of(recording)) == "marketfeed":
        return MarketfeedTicks(recording, max_symbols)
    return ReplayedTicks(feed_of(loaded, recording, format, feed), loaded.base, max_symbols)


@contextlib.contextmanager
def _progress(console: Console, title: str, ticks: RecordedTicks) -> Iterator[Callable[[RunFigures], None]]:
    """Show a progress bar; yield what moves it."""
    with progress_bar(console, MofNCompleteColumn()) as bar:
        task = bar.add_task(printable(title), total=None)

        def tell(figures: RunFigures) -> None:
            share = ticks.share()
            bar.update(task, completed=figures.ticks, total=round(figures.ticks / share) if share else None)

        yield tell


@contextlib.contextmanager
def _no_progress() -> Iterator[Callable[[RunFigures], None]]:
    yield lambda figures: None


def _nothing(found: Sequence[Judged]) -> None:
    """Print no alert."""


def _as_json(file: IO[str]) -> Callable[[Sequence[Judged]], None]:
    def show(found: Sequence[Judged]) -> None:
        for alert, inhibited in found:
            print_json(alert_fields(alert, {"mark": "inhibited" if inhibited else None}), file)

    return show


def _as_lines(console: Console) -> Callable[[Sequence[Judged]], None]:
    lines = Lines()

    def show(found: Sequence[Judged]) -> None:
        lines.fit(alert for alert, _ in found)
        for alert, inhibited in found:
            line = lines.line(alert.r_ns, alert, "inhibited" if inhibited else "")
            if console.is_terminal:
                console.print(line)
            else:  # ten times as fast
                print(line.plain, file=console.file)

    return show


def _title(figures: RunFigures, recording: Path) -> str:
    kinds = ("quotes", "trades", "symbols")
    counts = ", ".join(map(amount, (figures.quotes, figures.trades, figures.symbols), kinds))
    span = f"{moment(figures.first_ns)} to {moment(figures.last_ns)}" if figures.ticks else "no ticks"
    return printable(
        f"{recording.name}: {counts}, {span}, {figures.recorded_s:,.1f} s "
        f"in {figures.took_s:,.1f} s: {figures.ticks_per_s:,.0f} ticks/s"
    )


def _table(figures: RunFigures) -> Table:
    """Return one row per rule."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rule", no_wrap=True)
    for title in ("raised", "cleared", "open", "per hour", "suppressed", "inhibited", "symbols"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("most frequent", no_wrap=True)
    for name, rule in figures.rules.items():
        counts = (rule.raised, rule.cleared, rule.open)
        more = (rule.suppressed, rule.inhibited, len(rule.symbols))
        per_hour = f"{figures.per_hour(name):,.1f}"
        most = [f"{symbol} {count:,}" for symbol, count in rule.symbols.most_common(1)]
        cells = [*(f"{count:,}" for count in counts), per_hour, *(f"{count:,}" for count in more), *most]
        table.add_row(Text(name), *map(Text, cells))
    return table


def _as_dict(figures: RunFigures, recording: Path, ticks: RecordedTicks, rules: RuleSet) -> dict[str, Any]:
    """Return the figures for JSON."""
    per_rule = {}
    for name, rule in figures.rules.items():
        symbol, episodes = next(iter(rule.symbols.most_common(1)), (None, 0))
        per_rule[name] = {
            "raised": rule.raised,
            "cleared": rule.cleared,
            "open": rule.open,
            "per_hour": round(figures.per_hour(name), 3),
            "suppressed": rule.suppressed,
            "inhibited": rule.inhibited,
            "symbols": len(rule.symbols),
            "most_frequent": symbol and {"symbol": symbol, "raised": episodes},
            "failed": rules.failed.get(name),
        }
    return {
        "recording": str(recording),
        "quotes": figures.quotes,
        "trades": figures.trades,
        "symbols": figures.symbols,
        "first_ns": figures.first_ns,
        "last_ns": figures.last_ns,
        "recorded_s": round(figures.recorded_s, 6),
        "took_s": round(figures.took_s, 6),
        "ticks_per_s": round(figures.ticks_per_s),
        "damage": ticks.damage() or None,
        "rules": per_rule,
    }


def _remarks(specs: Sequence[RuleSpec], ticks: RecordedTicks) -> list[str]:
    """Return what a person should know beside the alerts."""
    of_feeds = [spec.common.name for spec in specs if spec.common.type == FEED_DOWN]
    said = [f"{name} raises nothing here: the feed of a recording is always live" for name in of_feeds]
    said += [f"{line}" for line in unmatched(specs, ticks.names())]
    return said + ticks.notes()
