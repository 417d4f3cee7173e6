"""``marketfeed alerts`` list, show and dead: what the log has, whether an engine runs or not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from marketfeed.cli.alerts_place import JsonOption, LogOption, check_consumer, read_log
from marketfeed.cli.options import ConfigOption, SetOption, fail

if TYPE_CHECKING:
    from marketfeed.alerts.log import DeadLetter, Entry, Episode
    from marketfeed.alerts.sqlite_reads import SqliteReader

LIST_EXAMPLES: Final = (
    "Examples:\n\nmarketfeed alerts list --severity critical\n\nmarketfeed alerts list --symbol 'BTC*' --json"
)
SHOW_EXAMPLES: Final = "Example:\n\nmarketfeed alerts show 01JDQ3M4R5XW8K2B7N6T9V0YHC"
DEAD_EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts dead\n\n"
    "marketfeed alerts dead --consumer risk-1 --json\n\n"
    "marketfeed alerts requeue risk-1   (to deliver them again)"
)


def list_alerts(
    rule: Annotated[
        list[str] | None, typer.Option(help="Only this rule, or prefix with *; may be repeated.")
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option(help="Only this symbol, or prefix with *; may be repeated.")
    ] = None,
    severity: Annotated[list[str] | None, typer.Option(help="Only this severity; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Look at this many of the newest alerts.")] = 1000,
    json: JsonOption = False,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """List the newest alerts, oldest first."""
    from marketfeed.cli import alerts_output as output

    output.check_severities(severity or ())
    entries = read_log(log, config, set_, lambda reader: reader.newest(limit))
    output.print_list(_chosen(entries, rule, symbol, severity), as_json=json, file=sys.stdout)


def show_alert(
    alert: Annotated[str, typer.Argument(metavar="ID", help="Id of an alert.")],
    json: JsonOption = False,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Show one alert, and the episode that it belongs to."""
    from marketfeed.cli import alerts_output as output

    def query(reader: SqliteReader) -> tuple[Entry | None, Episode | None]:
        entry = reader.find(alert)
        return entry, None if entry is None else reader.episode(entry.alert.key)

    entry, episode = read_log(log, config, set_, query)
    if entry is None:
        raise fail(f"{alert}: the log has no such alert")
    output.print_one(entry, episode, as_json=json, file=sys.stdout)


def dead(
    consumer: Annotated[str | None, typer.Option(help="Only those of this consumer.")] = None,
    json: JsonOption = False,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """List dead letters: alerts that a consumer did not acknowledge in alerts.max_tries deliveries."""
    from marketfeed.cli import alerts_output as output

    def query(reader: SqliteReader) -> list[DeadLetter]:
        if consumer is not None:
            check_consumer(reader, consumer)
        return reader.dead_letters(consumer)

    letters = read_log(log, config, set_, query)
    output.print_dead(letters, as_json=json, file=sys.stdout)


def _chosen(
    entries: list[Entry], rules: list[str] | None, symbols: list[str] | None, severities: list[str] | None
) -> list[Entry]:
    from marketfeed.alerts.log import matches

    return [
        entry
        for entry in entries
        if (not rules or matches(rules, entry.alert.rule))
        and (not symbols or matches(symbols, entry.alert.symbol))
        and (not severities or entry.alert.severity in severities)
    ]
