"""``marketfeed simulate``: configured and changed tiers, side by side, over one recording."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from rich.console import Console
from rich.progress import MofNCompleteColumn
from rich.table import Table
from rich.text import Text

from marketfeed.cli.recordings import feed_of, progress_bar
from marketfeed.client.unknown_symbols import told, unmatched
from marketfeed.config.schema import Loaded, TierConfig
from marketfeed.config.validation import checked
from marketfeed.core.counts import amount
from marketfeed.core.printable import printable, printable_json
from marketfeed.core.symbols import is_pattern, is_symbol
from marketfeed.core.units import MS
from marketfeed.errors import ConfigError, FeedProtocolError
from marketfeed.fanout.interest import Names
from marketfeed.fanout.tiers import Tier
from marketfeed.recordings.simulate import Outcome, Plan, Progress, Result, simulate

_CHANGED: Final = "\0"  # suffix of the names of changed tiers; configured names cannot contain it


def changed_tiers(configured: dict[str, TierConfig], changes: list[str]) -> dict[str, TierConfig]:
    """Return the tiers that ``changes``, each ``NAME.KEY=VALUE``, change or add; raises ConfigError."""
    tables: dict[str, dict[str, Any]] = {}
    for change in changes:
        path, equals, text = change.partition("=")
        name, dot, key = path.strip().partition(".")
        if not (equals and dot and name and key):
            raise ConfigError(f"--tier {change}: must be NAME.KEY=VALUE, such as premium.interval_ms=250")
        try:
            value: Any = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        known = configured.get(name)
        table = tables.setdefault(name, msgspec.structs.asdict(known) if known is not None else {})
        table[key] = value
    found = {name: checked(table, TierConfig, f"--tier {name}") for name, table in tables.items()}
    for name, tier in found.items():
        if 0 < tier.interval_ms < 1:
            raise ConfigError(
                f"--tier {name}.interval_ms: must be 0, or from 1 to 3600000, not {tier.interval_ms:g}"
            )
    return found


def names_of(symbols: list[str]) -> Names:
    """Return the subscription to quotes and trades of ``symbols``; raises ConfigError."""
    for name in symbols:
        if not (is_symbol(name) or is_pattern(name)):
            raise ConfigError(f"--symbols {name}: must be a symbol, a prefix such as 'BTC*', or '*'")
    return Names(tuple(symbols), tuple(symbols))


def run(
    loaded: Loaded,
    recording: Path,
    changes: list[str],
    *,
    format: str | None = None,
    feed: str | None = None,
    symbols: list[str] | None = None,
    phases: int = 4,
    as_json: bool = False,
) -> int:
    """Run the simulation and print its result; return the exit status. Raises ConfigError."""
    configured = loaded.config.tiers
    changed = changed_tiers(configured, changes)
    spec = feed_of(loaded, recording, format, feed)
    for name in [name for name in changed if name not in configured]:
        _tell(
            f"note: --tier {name}: simulated as a new tier; the configured tiers are {', '.join(configured)}",
            "yellow",
        )
    tiers = {name: _tier(name, tier) for name, tier in configured.items()}
    tiers |= {name + _CHANGED: _tier(name + _CHANGED, tier) for name, tier in changed.items()}
    engine = loaded.config.engine
    plan = Plan(
        spec, loaded.base, tiers, names_of(symbols or ["*"]),
        phases=phases, max_symbols=engine.max_symbols, ring_depth=engine.ring_depth,
    )  # fmt: skip
    try:
        result = _simulated(plan, recording.name)
    except (OSError, FeedProtocolError) as error:
        raise ConfigError(f"{recording}: {error}") from None
    nothing = unmatched(symbols or [], result.names)
    if as_json:
        encoded = orjson.dumps(as_dict(result, recording, nothing), option=orjson.OPT_INDENT_2)
        sys.stdout.write(printable_json(encoded.decode()) + "\n")
    else:
        # Not as the table's title: that would be wrapped at the table's width.
        Console(highlight=False, soft_wrap=True).print(Text(printable(title_of(result, recording))))
        Console().print(table_of(result))
    if result.damage:
        _tell(f"{result.damage}; the figures cover the ticks before that point", "red")
    for name in nothing:
        _tell(f"--symbols {name}: {told(name, result.names, 'the recording')}", "red")
    return 1 if result.damage or nothing else 0


def _tell(text: str, style: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(printable(text), style=style))


def _simulated(plan: Plan, title: str) -> Result:
    notes = Console(stderr=True)
    if not notes.is_terminal:
        return simulate(plan)
    with progress_bar(notes, MofNCompleteColumn()) as bar:
        task = bar.add_task(printable(title), total=None)

        def tell(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total or None)

        return simulate(plan, Progress(tell=tell), count_first=True)


def _tier(name: str, config: TierConfig) -> Tier:
    return Tier(name, int(config.interval_ms * MS), config.delivery == "every", config.send_buffer_bytes)


def as_dict(result: Result, recording: Path, unknown: list[str]) -> dict[str, Any]:
    """Return the result for JSON; ``unknown`` are the names that match no symbol of the recording."""
    names = dict.fromkeys(name.removesuffix(_CHANGED) for name in result.tiers)
    rounded = replace(result, recorded_s=round(result.recorded_s, 6), took_s=round(result.took_s, 6))
    return {
        "recording": str(recording),
        "quotes": result.quotes,
        "trades": result.trades,
        "symbols": result.symbols,
        "recorded_s": rounded.recorded_s,
        "took_s": rounded.took_s,
        "pace": round(rounded.pace, 6),
        "ticks_per_s": round(rounded.ticks_per_s, 6),
        "unknown": unknown,
        "events": result.events,
        "damage": result.damage or None,
        "tiers": {
            name: {
                "configured": _plain(result.tiers.get(name)),
                "what_if": _plain(result.tiers.get(name + _CHANGED)),
            }
            for name in names
        },
    }


def _plain(outcome: Outcome | None) -> dict[str, Any] | None:
    """Return the figures, rounded to nanoseconds, and whole numbers as integers."""
    if outcome is None:
        return None
    figures = asdict(outcome)
    for table in (figures, figures["delay_ms"]):
        for name, value in table.items():
            if isinstance(value, float):
                table[name] = int(value) if value.is_integer() else round(value, 6)
    return figures


def title_of(result: Result, recording: Path) -> str:
    """Return the line above the table: what was simulated, and how fast."""
    kinds = ("quotes", "trades", "symbols")
    ticks = ", ".join(map(amount, (result.quotes, result.trades, result.symbols), kinds))
    pace = f"{result.recorded_s:,.1f} s in {result.took_s:,.1f} s"
    rate = f"{result.pace:,.1f} × real time, {result.ticks_per_s:,.0f} ticks/s"
    return f"{recording.name}: {ticks}, {pace}: {rate}"


def table_of(result: Result) -> Table:
    """Return the result as a table: per tier, each figure as configured, as changed, and the difference."""
    what_if = any(name.endswith(_CHANGED) for name in result.tiers)
    table = Table(caption="one session on each tier")
    table.add_column("tier")
    table.add_column("")
    table.add_column("as configured", justify="right")
    if what_if:
        table.add_column("what if", justify="right")
        table.add_column("change", justify="right")
    for name in dict.fromkeys(name.removesuffix(_CHANGED) for name in result.tiers):
        was, new = result.tiers.get(name), result.tiers.get(name + _CHANGED)
        for row, (label, value, show) in enumerate(_FIGURES):
            cells = [label, "" if was is None else show(value(was))]
            if what_if:
                cells.append("" if new is None else show(value(new)))
                cells.append("" if was is None or new is None else _change(value(was), value(new)))
            table.add_row(Text(printable(name) if row == 0 else "", style="bold"), *map(Text, cells))
        table.add_section()
    return table


def _rule(outcome: Outcome) -> Any:
    return f"{outcome.delivery} {outcome.interval_ms:g} ms" if outcome.interval_ms else outcome.delivery


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _size(value: float) -> str:
    return f"{value / 1e6:,.2f} MB" if value >= 1e5 else f"{value / 1e3:,.1f} kB"


def _ms(value: float) -> str:
    return f"{value:,.1f} ms"


_FIGURES: Final[list[tuple[str, Any, Any]]] = [
    ("delivery", _rule, str),
    ("delivered", lambda o: o.delivered, _count),
    ("conflated", lambda o: o.conflated, _count),
    ("lost", lambda o: o.lost, _count),
    ("frames", lambda o: o.frames, _count),
    ("JSON", lambda o: o.json_bytes, _size),
    ("binary", lambda o: o.binary_bytes, _size),
    ("delay, mean", lambda o: o.delay_ms["mean"], _ms),
    ("delay, p50", lambda o: o.delay_ms["p50"], _ms),
    ("delay, p99", lambda o: o.delay_ms["p99"], _ms),
    ("delay, max", lambda o: o.delay_ms["max"], _ms),
]


def _change(was: Any, new: Any) -> str:
    if isinstance(was, str):
        return "" if was == new else "changed"
    if was == new:
        return "="
    if not was:
        return "new"
    return f"{(new - was) / was * 100:+,.1f} %"
