"""``marketfeed alerts publish``: a notice of a person or a script."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated, Any, Final

import typer

from marketfeed.cli.alerts_place import JsonOption, LogOption, Place, UrlOption, struct_of
from marketfeed.cli.options import CaOption, ConfigOption, SetOption, fail

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts publish 'the venue closes early today'\n\n"
    "marketfeed alerts publish 'order 17 is too large' --key order-17 --to risk-1 --data '{\"order\":17}'\n\n"
    "marketfeed alerts publish 'stop trading' --severity critical --to risk-1 --wait-ack --timeout 10"
)
TIMEOUT_S: Final = 5.0
NOT_ACKNOWLEDGED: Final = 504  # the status of HTTP


def publish(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="One line for people.")],
    key: Annotated[
        str | None,
        typer.Option(
            help="Your own key: a second notice of yours with it is not kept. Default: a random one."
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="CONSUMER", help="The only consumer that gets it.")
    ] = None,
    severity: Annotated[str, typer.Option(help="info, warning or critical.")] = "info",
    symbol: Annotated[str, typer.Option(help="The symbol that it is about.")] = "",
    data: Annotated[str | None, typer.Option(metavar="JSON", help="An object that is passed on.")] = None,
    wait_ack: Annotated[
        bool, typer.Option("--wait-ack", help="Wait until the consumer in --to has acknowledged it.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Wait no longer; 5 without it, at most 300.")
    ] = None,
    json: JsonOption = False,
    log: LogOption = None,
    url: UrlOption = None,
    ca: CaOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Publish a notice: to all consumers whose patterns match `notice`, or to one.

    Exits with status 1 if --wait-ack ends without acknowledgement; the notice then remains queued.
    """
    from marketfeed.api.alerts import NoticeAnswer
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call, CallError

    output.check_severities([severity])
    query = _wait(to, wait_ack, timeout)
    key = secrets.token_hex(8) if key is None else key
    body = {"key": key, "msg": message, "sev": severity, "S": symbol, "to": to, "data": _object(data)}
    wait_s = float(query.get("timeout_s", 0))
    call = Call("POST", "/v1/alerts", body, query, wait_s=wait_s)
    place = Place(log, config, set_, url, ca)
    try:
        answer = place.answer(call, needs_engine="--wait-ack" if wait_ack else "")
    except CallError as error:
        if error.status != NOT_ACKNOWLEDGED:
            raise fail(str(error)) from None
        fail(f"{error}; to wait again, publish it with --key {key}")
        raise typer.Exit(1) from None
    found = struct_of(answer, NoticeAnswer)
    if json:
        output.print_json(found, sys.stdout)
        return
    if wait_ack:
        said = f"acknowledged by {to}"
    else:
        said = "published" if answer.status == 201 else "published before"
    output.print_said(f"{said}: {found.id}, key {found.key}", sys.stdout)


def _wait(to: str | None, wait_ack: bool, timeout: float | None) -> dict[str, str]:
    """Return the parameters that have the engine wait; raises the exit with status 2."""
    from marketfeed.gateway.query import MAX_TIMEOUT_S

    if not wait_ack:
        if timeout is not None:
            raise fail("--timeout: needs --wait-ack")
        return {}
    if to is None:
        raise fail("--wait-ack: needs --to CONSUMER, which has to acknowledge the notice")
    wait_s = TIMEOUT_S if timeout is None else timeout
    if not 0 <= wait_s <= MAX_TIMEOUT_S:
        raise fail(f"--timeout: 0 to {MAX_TIMEOUT_S:g}, not {timeout}")
    return {"wait": "ack", "timeout_s": str(wait_s)}


def _object(data: str | None) -> dict[str, Any] | None:
    """Return the JSON object ``data``; raises the exit with status 2."""
    import msgspec

    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.ValidationError as error:
        raise fail(f"--data: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise fail(f"--data: not JSON: {error}") from None
