"""``marketfeed alerts`` ack, resolve and requeue: changes of what consumers and people have had."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from marketfeed.cli.alerts_place import (
    AdminTokenOption,
    AdminUrlOption,
    ByOption,
    JsonOption,
    LogOption,
    Place,
    UrlOption,
    login,
)
from marketfeed.cli.options import CaOption, ConfigOption, SetOption

ACK_EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts ack risk-1 01JDQ3M4R5XW8K2B7N6T9V0YHC\n\n"
    "marketfeed alerts ack risk-1 01JDQ3M4R5XW8K2B7N6T9V0YHC 01JDQ3M7D1QH2Y6C5FZ8R3VN0A --json"
)
RESOLVE_EXAMPLES: Final = (
    "Example:\n\n"
    "marketfeed alerts resolve 01JDQ3M4R5XW8K2B7N6T9V0YHC --by ann --comment 'the venue confirmed it'"
)
REQUEUE_EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts requeue risk-1   (all its dead letters)\n\n"
    "marketfeed alerts requeue risk-1 01JDQ3M4R5XW8K2B7N6T9V0YHC"
)

ConsumerArgument = Annotated[str, typer.Argument(metavar="CONSUMER", help="Name of the durable consumer.")]


def ack(
    consumer: ConsumerArgument,
    alerts: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of alerts.")],
    json: JsonOption = False,
    log: LogOption = None,
    url: UrlOption = None,
    ca: CaOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Acknowledge alerts for a consumer, dead letters too: they are not delivered to it again.

    Exits with status 1 if none was settled.
    """
    from marketfeed.api.alerts import AcknowledgedAnswer
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call

    body = {"consumer": consumer, "alerts": alerts}
    place = Place(log, config, set_, url, ca)
    place.check_consumer(consumer)
    found = place.changed(Call("POST", "/v1/alerts/ack", body), AcknowledgedAnswer)
    if json:
        output.print_json(found, sys.stdout)
    else:
        for alert in found.alerts:
            output.print_said(f"acknowledged {alert}", sys.stdout)
        for alert in found.unknown:
            output.print_said(f"unknown {alert}: not this consumer's, or acknowledged before", sys.stdout)
    if not found.alerts:
        raise typer.Exit(1)


def resolve(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of the episode: the id of its `raised`.")],
    by: ByOption = None,
    comment: Annotated[str, typer.Option(help="What is done about it.")] = "",
    json: JsonOption = False,
    log: LogOption = None,
    url: UrlOption = None,
    ca: CaOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Record that a person took on an episode. Who did so first stays recorded."""
    from marketfeed.api.alerts import EpisodeAnswer
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call
    from marketfeed.core.units import US

    body = {"key": key, "by": login(by), "comment": comment}
    found = Place(log, config, set_, url, ca).changed(Call("POST", "/v1/alerts/resolve", body), EpisodeAnswer)
    if json:
        output.print_json(found, sys.stdout)
        return
    # The engine keeps both on one line.
    mine = [found.by.split(), found.comment.split()] == [body["by"].split(), comment.split()]
    said = f"{'resolved' if mine else 'resolved before'}: {found.rule} {found.S}".rstrip()
    said += f", by {found.by} at {output.moment(found.resolved * US)}"
    output.print_said(f"{said}: {found.comment}" if found.comment else said, sys.stdout)


def requeue(
    consumer: ConsumerArgument,
    alerts: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Ids of alerts. Default: all dead letters.")
    ] = None,
    by: ByOption = None,
    json: JsonOption = False,
    log: LogOption = None,
    url: AdminUrlOption = None,
    ca: CaOption = None,
    admin_token_file: AdminTokenOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Deliver dead letters of a consumer again. Exits with status 1 if there are none."""
    from marketfeed.api.alerts import RequeuedAnswer
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call

    body = {"consumer": consumer, "alerts": alerts or None, "by": login(by)}
    call = Call("POST", "/v1/alerts/requeue", body, admin=True)
    place = Place(log, config, set_, url, ca, admin_token_file)
    place.check_consumer(consumer)
    found = place.changed(call, RequeuedAnswer)
    if json:
        output.print_json(found, sys.stdout)
    else:
        for alert in found.alerts:
            output.print_said(f"requeued {alert}", sys.stdout)
        missing = [alert for alert in alerts or () if alert not in set(found.alerts)]
        for alert in missing:
            output.print_said(
                f"unknown {alert}: no dead letter of this consumer, or not wanted by it any more", sys.stdout
            )
        if not found.alerts and not missing:
            output.print_said(f"{consumer} has no dead letters that it wants", sys.stdout)
    if not found.alerts:
        raise typer.Exit(1)
