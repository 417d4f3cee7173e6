"""The command line of ``marketfeed alerts``: read the alert log, whether the engine runs or not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from marketfeed.cli.options import ConfigOption, SetOption, fail, load_config
from marketfeed.errors import AlertLogError, ConfigError, RecordingError, StartError

if TYPE_CHECKING:
    from marketfeed.alerts.log import Entry
    from marketfeed.alerts.sqlite_reads import SqliteReader

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts list --severity critical\n\n"
    "marketfeed alerts list --symbol 'BTC*' --json\n\n"
    "marketfeed alerts show 01JDQ3M4R5XW8K2B7N6T9V0YHC"
)
TEST_EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts test day.mfr.zst\n\n"
    "marketfeed alerts test day.mfr.zst --rule wide --set alerts.rules.0.bps=60 --summary\n\n"
    "marketfeed alerts test ibm.zip --feed ibm --json"
)
LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="The log. Default: alerts.path of the configuration."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]

app = typer.Typer(help="Read the alert log, whether the engine runs or not.", no_args_is_help=True)


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


@app.command("test", epilog=TEST_EXAMPLES)
def run_over_recording(
    recording: Annotated[
        Path, typer.Argument(metavar="RECORDING", help="Recording, in any format that `replay` feeds read.")
    ],
    rule: Annotated[
        list[str] | None, typer.Option(help="Only this rule of the configuration; may be repeated.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Format of the recording. Default: by the file's name.")
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option(help="Read the recording with the keys of this `replay` feed of the configuration."),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Print the figures per rule only.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per alert, then one with the figures.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Run the configured rules over a recording, and print what they would have raised.

    Runs on the times of the recording, as fast as it can be read. Nothing is written to the log.
    """
    from marketfeed import logs
    from marketfeed.cli import alerts_test

    logs.configure("warning")
    loaded = load_config(config, set_)
    try:
        status = alerts_test.run(
            loaded, recording, rule or [],
            format=format, feed=feed, as_json=json, summary_only=summary,
        )  # fmt: skip
    except (ConfigError, RecordingError, StartError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)


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
