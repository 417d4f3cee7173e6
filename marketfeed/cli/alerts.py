"""The command line of ``marketfeed alerts``: read the alert log, whether the engine runs or not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from marketfeed.cli import alerts_tail, alerts_test
from marketfeed.cli.options import ConfigOption, SetOption, fail, load_config
from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from marketfeed.alerts.log import Entry
    from marketfeed.alerts.sqlite_reads import SqliteReader

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts list --severity critical\n\n"
    "marketfeed alerts list --symbol 'BTC*' --json\n\n"
    "marketfeed alerts show 01JDQ3M4R5XW8K2B7N6T9V0YHC"
)
LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="The log. Default: alerts.path of the configuration."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]

app = typer.Typer(help="Read the alert log, whether the engine runs or not.", no_args_is_help=True)
app.command("tail", epilog=alerts_tail.EXAMPLES)(alerts_tail.tail)
app.command("test", epilog=alerts_test.EXAMPLES)(alerts_test.run_over_recording)


@app.command("list", epilog=EXAMPLES)
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

    if unknown := [name for name in severity or () if name not in output.SEVERITIES]:
        raise fail(f"--severity {unknown[0]}: must be one of {', '.join(output.SEVERITIES)}")
    reader = _opened(log, config, set_)
    try:
        entries = reader.newest(limit)
    except AlertLogError as error:
        raise fail(str(error)) from None
    finally:
        reader.close()
    output.print_list(_chosen(entries, rule, symbol, severity), as_json=json, file=sys.stdout)


@app.command("show", epilog=EXAMPLES)
def show_alert(
    alert: Annotated[str, typer.Argument(metavar="ID", help="Id of an alert.")],
    json: JsonOption = False,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Show one alert, and the episode that it belongs to."""
    from marketfeed.cli import alerts_output as output

    reader = _opened(log, config, set_)
    try:
        entry = reader.find(alert)
        episodes = [one for one in reader.episodes() if entry is not None and one.key == entry.alert.key]
    except AlertLogError as error:
        raise fail(str(error)) from None
    finally:
        reader.close()
    if entry is None:
        raise fail(f"{alert}: the log has no such alert")
    output.print_one(entry, episodes, as_json=json, file=sys.stdout)


def _opened(log: Path | None, config: Path | None, set_: list[str] | None) -> SqliteReader:
    """Open the log; raises the exit with status 2."""
    from marketfeed.alerts.sqlite_reads import SqliteReader

    if log is None:
        loaded = load_config(config, set_)
        log = loaded.base / loaded.config.alerts.path
    try:
        return SqliteReader(log)
    except AlertLogError as error:
        raise fail(str(error)) from None


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
