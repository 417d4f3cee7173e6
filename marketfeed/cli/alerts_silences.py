"""``marketfeed alerts`` silence and silences: keep alerts in the log for a time without delivering them."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketfeed.cli.alerts_place import (
    ByOption,
    JsonOption,
    LogOption,
    Place,
    UrlOption,
    login,
    read_log,
)
from marketfeed.cli.options import CaOption, ConfigOption, SetOption, fail

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts silence --symbol 'BTC*' --for 2h --comment 'upgrade of the venue'\n\n"
    "marketfeed alerts silence --rule wide --rule 'feed_*' --from 2026-11-28T22:00Z --for 1h30m "
    "--comment maintenance\n\n"
    "marketfeed alerts silence --expire 01JDQ4F9Z3W6M8T2K5X7QYVBN1"
)
LIST_EXAMPLES: Final = "Examples:\n\nmarketfeed alerts silences\n\nmarketfeed alerts silences --all --json"
PATH: Final = "/v1/alerts/silences"
NAMES: Final = ("state", "from", "until", "rules", "symbols", "by", "comment", "id")


def silence(
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Rule, or prefix with *; may be repeated. With --symbol, default: all."),
    ] = None,
    symbol: Annotated[
        list[str] | None,
        typer.Option(help="Symbol, or prefix with *; may be repeated. With --rule, default: all."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="WHEN", help="ISO 8601, UTC if it has no offset. Default: now."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="ISO 8601, UTC if it has no offset.")
    ] = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="Such as 30m, 2h, 1h30m or 1d, from --from on."),
    ] = None,
    comment: Annotated[str | None, typer.Option(help="Why; required.")] = None,
    by: ByOption = None,
    expire: Annotated[
        str | None, typer.Option(metavar="ID", help="End this silence now, instead of beginning one.")
    ] = None,
    json: JsonOption = False,
    log: LogOption = None,
    url: UrlOption = None,
    ca: CaOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Keep alerts of some rules and symbols in the log without delivering them, for some time."""
    place = Place(log, config, set_, url, ca)
    if expire is not None:
        if any((rule, symbol, from_, until, for_, comment)):
            raise fail("--expire: takes no other option of a silence than --by")
        _end(place, expire, login(by), as_json=json)
        return
    if not rule and not symbol:
        raise fail("--rule, --symbol: at least one is required; --rule '*' for every alert")
    if not comment:
        raise fail("--comment: required, as the reason for others")
    body = {"rules": rule or ["*"], "symbols": symbol or ["*"], "by": login(by), "comment": comment}
    _begin(place, body | _times(from_, until, for_), as_json=json)


def silences(
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    json: JsonOption = False,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """List silences that are active or begin later, by start."""
    from marketfeed.cli import alerts_output as output
    from marketfeed.core.units import US
    from marketfeed.gateway.alert_routes import silence_answer

    now_ns = time.time_ns()
    kept = read_log(log, config, set_, lambda reader: reader.silences())
    found = [silence_answer(one, now_ns) for one in kept if all_ or one.ends_ns > now_ns]
    if json:
        for one in found:
            output.print_json(one, sys.stdout)
        return
    if not found:
        output.print_said("no silences" if all_ else "no silences that have not ended", sys.stdout)
        return
    rows = [
        (
            one.state,
            output.moment(one.starts * US),
            output.moment(one.ends * US),
            " ".join(one.rules),
            " ".join(one.symbols),
            one.by,
            one.comment,
            one.id,
        )
        for one in found
    ]
    output.print_table(NAMES, rows, sys.stdout)


def _begin(place: Place, body: dict[str, Any], *, as_json: bool) -> None:
    from marketfeed.api.alerts import SilenceAnswer
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call
    from marketfeed.core.units import US

    found = place.changed(Call("POST", PATH, body), SilenceAnswer)
    if as_json:
        output.print_json(found, sys.stdout)
        return
    since = f"from {output.moment(found.starts * US)} " if found.state == "pending" else ""
    output.print_said(f"silenced {since}until {output.moment(found.ends * US)}: {found.id}", sys.stdout)


def _end(place: Place, silence_id: str, by: str, *, as_json: bool) -> None:
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call

    place.change(Call("DELETE", PATH, query={"id": silence_id, "by": by}))
    if as_json:
        output.print_json({"ended": silence_id}, sys.stdout)
    else:
        output.print_said(f"ended {silence_id}", sys.stdout)


def _times(from_: str | None, until: str | None, for_: str | None) -> dict[str, int]:
    """Return ``starts``, if it is given, and ``ends``, in µs; raises the exit with status 2."""
    from marketfeed.cli.alerts_times import duration_ns, when_ns
    from marketfeed.core.units import US

    if (until is None) == (for_ is None):
        raise fail("--until, --for: one of them is required, and not both")
    starts_ns = None if from_ is None else _parsed("--from", when_ns, from_)
    if until is not None:
        ends_ns = _parsed("--until", when_ns, until)
    else:
        begins_ns = time.time_ns() if starts_ns is None else starts_ns
        ends_ns = begins_ns + _parsed("--for", duration_ns, for_ or "")
    times = {"ends": ends_ns // US}
    return times if starts_ns is None else times | {"starts": starts_ns // US}


def _parsed(option: str, parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise fail(f"{option}: {error}") from None
