"""``marketfeed alerts audit``: who changed what, whether an engine runs or not."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer

from marketfeed.cli.alerts_place import JsonOption, LogOption, read_log
from marketfeed.cli.options import ConfigOption, SetOption

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts audit --limit 20\n\n"
    "marketfeed alerts audit --consumer risk-1\n\n"
    "marketfeed alerts audit --subject 01JDQ4F9Z3W6M8T2K5X7QYVBN1 --json"
)
NAMES: Final = ("time", "action", "subject", "by", "detail")


def audit(
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject",
            "--consumer",
            metavar="NAME",
            help="Only records of this consumer, episode (its key) or silence (its id).",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 1000,
    json: JsonOption = False,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """List who changed what, oldest first: acknowledgements, dead letters, drops, resolutions, silences."""
    from marketfeed.cli import alerts_output as output

    records = read_log(log, config, set_, lambda reader: reader.newest_audit(limit, subject))
    if json:
        for record in records:
            output.print_json(record, sys.stdout)
        return
    if not records:
        output.print_said("no records", sys.stdout)
        return
    rows = [
        (output.moment(one.at_ns), one.action, one.subject, one.by or "-", _shown(one.detail))
        for one in records
    ]
    output.print_table(NAMES, rows, sys.stdout)


def _shown(detail: Any) -> str:
    """Return what a record says besides: ids of alerts, a comment, or the comment of a silence."""
    if isinstance(detail, list):
        return " ".join(map(str, detail))
    if isinstance(detail, dict):
        return str(detail.get("comment", ""))
    return str(detail or "")
