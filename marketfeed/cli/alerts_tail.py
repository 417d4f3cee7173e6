"""The command line of ``marketfeed alerts tail``."""

from __future__ import annotations

from typing import Annotated, Final

import trio
import typer

from marketfeed.cli.options import CaOption, ConfigOption, SetOption, TokenOption, endpoint_from, fail
from marketfeed.errors import ConfigError

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts tail\n\n"
    "marketfeed alerts tail --rule 'feed_*' --rule watcher --json | jq .message\n\n"
    "marketfeed alerts tail --consumer desk --ack --from-start >> desk.log"
)


def tail(
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Only this rule, or prefix with *; may be repeated. `notice`: published notices."),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Follow as this durable consumer, which the first use creates. --rule sets its patterns.",
        ),
    ] = None,
    ack: Annotated[
        bool,
        typer.Option(
            "--ack",
            help="Acknowledge each alert after it was printed; else it comes again. Needs --consumer.",
        ),
    ] = False,
    from_start: Annotated[
        bool,
        typer.Option(
            "--from-start",
            help="A new consumer begins with the oldest alert in the log. Default: now. Needs --consumer.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of the engine, http://HOST:PORT, or of its stream, ws:// or wss://. "
            "Default: as the configuration says."
        ),
    ] = None,
    token: TokenOption = None,
    ca: CaOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Show alerts as they come, until Ctrl-C.

    Without --consumer it is a live view: what comes while it is not connected is not shown.
    """
    from marketfeed.alerts.log import consumer_problem, pattern_problem
    from marketfeed.cli.alerts_follow import Follower, Subscription
    from marketfeed.client.address import stream_of

    patterns = rule or ["*"]
    for option, given in (("--ack", ack), ("--from-start", from_start)):
        if given and consumer is None:
            raise fail(f"{option}: needs --consumer NAME, since a live view keeps nothing")
    problems = [f"--rule {pattern}: {why}" for pattern in patterns if (why := pattern_problem(pattern))]
    if not problems and consumer is not None and (why := consumer_problem(consumer, patterns)):
        problems.append(f"--consumer {consumer}: {why}")
    if problems:
        raise fail(problems[0])
    try:
        stream = None if url is None else stream_of(url)
        engine = endpoint_from(stream, ca, config, "--url http://HOST:PORT", set_)
        wanted = Subscription(tuple(patterns), consumer, ack, from_start, token)
        status = trio.run(Follower(engine, wanted, as_json=json).run)
    except ConfigError as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:  # before the signal receiver was open
        status = 0
    raise typer.Exit(status)
