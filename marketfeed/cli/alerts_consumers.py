"""``marketfeed alerts consumers``: list durable consumers, and drop one.

A running engine knows the state of each, and is asked. Without one the log says what it kept: positions are
then those of the last deliveries.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketfeed.cli.alerts_place import (
    AdminTokenOption,
    AdminUrlOption,
    ByOption,
    JsonOption,
    LogOption,
    Place,
    login,
    read_log,
)
from marketfeed.cli.options import CaOption, ConfigOption, SetOption, fail

if TYPE_CHECKING:
    from marketfeed.alerts.log import Consumer, Progress
    from marketfeed.alerts.sqlite_reads import SqliteReader

EXAMPLES: Final = (
    "Examples:\n\nmarketfeed alerts consumers\n\nmarketfeed alerts consumers drop risk-1 --yes --by ann"
)
PATH: Final = "/v1/alerts/consumers"
STEP: Final = 500  # entries
NAMES: Final = ("consumer", "state", "unacknowledged", "oldest", "waiting", "dead", "patterns", "symbols")
SHOWN: Final = 5  # symbols of a consumer in the table

app = typer.Typer(
    help="List durable consumers, or drop one.", invoke_without_command=True, no_args_is_help=False
)


@app.callback(epilog=EXAMPLES)
def consumers(
    context: typer.Context,
    json: JsonOption = False,
    log: LogOption = None,
    url: AdminUrlOption = None,
    ca: CaOption = None,
    admin_token_file: AdminTokenOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """List durable consumers: what each has not acknowledged, and what waits for it."""
    from marketfeed.cli.alerts_http import Call

    if context.invoked_subcommand is not None:
        if json or any((log, url, ca, admin_token_file, config, set_)):
            raise fail(f"options of {context.invoked_subcommand} come after it")
        return
    place = Place(log, config, set_, url, ca, admin_token_file)
    rows = place.asked(Call("GET", PATH, admin=True), _rows_in)
    _print(read_log(log, config, set_, rows_of) if rows is None else rows, as_json=json)


@app.command(epilog=EXAMPLES)
def drop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The consumer.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: ByOption = None,
    json: JsonOption = False,
    log: LogOption = None,
    url: AdminUrlOption = None,
    ca: CaOption = None,
    admin_token_file: AdminTokenOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Drop a consumer, with its position, its unsettled alerts and its dead letters."""
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call

    place = Place(log, config, set_, url, ca, admin_token_file)
    place.check_consumer(name)
    if not yes:
        _ask(name)
    query = {"consumer": name, "by": login(by)}
    place.change(Call("DELETE", PATH, query=query, admin=True))
    if json:
        output.print_json({"dropped": name}, sys.stdout)
    else:
        output.print_said(f"dropped {name}", sys.stdout)


def _ask(name: str) -> None:
    """Ask for consent; raises the exit with status 1 without it, with 2 if there is no terminal to ask on."""
    if not sys.stdin.isatty():
        raise fail("there is no terminal to ask on: use --yes")
    question = f"Drop consumer {name!a}, with its position, its unsettled alerts and its dead letters?"
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def _rows_in(answer: Any) -> list[dict[str, Any]]:
    """Return the consumers in an engine's answer; raises UnreachableError."""
    import msgspec

    from marketfeed.api.alerts import ConsumerRow
    from marketfeed.cli.alerts_http import UnreachableError, read_as

    rows = answer.get("consumers") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise UnreachableError("the answer is not an engine's")
    return [msgspec.to_builtins(read_as(ConsumerRow, row)) for row in rows]


def rows_of(reader: SqliteReader) -> list[dict[str, Any]]:
    """Return what the log has of each consumer, with the keys of the engine's answer that it can know."""
    head = reader.head()
    dead = reader.dead_letter_counts()
    return [_row(reader, consumer, head, dead) for consumer in reader.consumers()]


def _row(reader: SqliteReader, consumer: Consumer, head: int, dead: dict[str, int]) -> dict[str, Any]:
    from marketfeed.alerts.log import Progress
    from marketfeed.api.alerts import SYMBOLS
    from marketfeed.core.units import US

    progress = reader.progress(consumer.name) or Progress(consumer.floor)
    position = max((progress.floor, *progress.settled, *progress.tries))
    return {
        "consumer": consumer.name,
        "alerts": consumer.patterns,
        "symbols": consumer.symbols[:SYMBOLS],
        "more_symbols": max(len(consumer.symbols) - SYMBOLS, 0),
        "start": consumer.start,
        "unacknowledged": len(progress.tries),
        "oldest": _oldest_ns(reader, consumer, progress) // US,
        "waiting": max(head - position, 0),  # both are read while an engine may append
        "dead": dead.get(consumer.name, 0),
        "position": position,
        "floor": progress.floor,
    }


def _oldest_ns(reader: SqliteReader, consumer: Consumer, progress: Progress) -> int:
    """Return when the oldest unsettled alert of a consumer was kept; 0 if there is none."""
    if progress.requeued:  # they lie below the floor
        return progress.requeued[0].at_ns
    after = progress.floor
    while entries := reader.read(after, STEP):
        for entry in entries:
            if entry.position not in progress.settled and consumer.wants(entry):
                return entry.at_ns
        after = entries[-1].position
    return 0


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_times import age
    from marketfeed.core.units import US

    if as_json:
        for row in rows:
            output.print_json(row, sys.stdout)
        return
    if not rows:
        output.print_said("no consumers", sys.stdout)
        return
    now_us = time.time_ns() // US
    cells = [
        (
            row["consumer"],
            row.get("state", "-"),
            row["unacknowledged"],
            age((now_us - row["oldest"]) // 1_000_000) if row["oldest"] else "-",
            row["waiting"],
            row["dead"],
            " ".join(row["alerts"]),
            _symbols_in(row),
        )
        for row in rows
    ]
    if all(cell[-1] == "*" for cell in cells):  # without access control
        output.print_table(NAMES[:-1], [cell[:-1] for cell in cells], sys.stdout)
    else:
        output.print_table(NAMES, cells, sys.stdout)


def _symbols_in(row: dict[str, Any]) -> str:
    """Return the symbols of a consumer as text; "-" if it gets only alerts about none."""
    shown, more = row["symbols"][:SHOWN], row["more_symbols"]
    left = len(row["symbols"]) - len(shown) + more
    return " ".join([*shown, *([f"and {left} more"] if left else [])]) or "-"
