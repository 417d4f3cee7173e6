"""The ``marketfeed`` command.

Longer than most files here: one command after the other, and what each says of itself.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import trio
import typer

from marketfeed import logs
from marketfeed.cli import export as exporting
from marketfeed.cli.embedded import show_version, write_config
from marketfeed.config.schema import Loaded, load
from marketfeed.core.counts import amount
from marketfeed.core.printable import printable
from marketfeed.errors import ConfigError, LogError, StartError

if TYPE_CHECKING:
    from marketfeed.client.connection import Endpoint

MOST_ERROR: Final = 4000  # characters of a line

app = typer.Typer(
    name="marketfeed",
    help="Distribute real-time market data: quote feeds in, tiers of subscribers out.",
    epilog="Try:\n\nmarketfeed serve\n\nmarketfeed watch 'SY00*'   (in another terminal)",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Configuration file. Without it: ./config.toml, else the built-in one."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one key, such as gateway.port=9000 or feeds.0.rate=1000."
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca", metavar="FILE", help="Trust the certificates in this PEM file, not the system's; for wss://."
    ),
]
LogOption = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]


def _fail(text: str) -> typer.Exit:
    # Line by line: what of the text came from a file or a peer may hold anything.
    for line in text.split("\n"):
        print(f"marketfeed: {printable(line, MOST_ERROR)}", file=sys.stderr)
    return typer.Exit(2)


def _load(config: Path | None, overrides: list[str] | None) -> Loaded:
    from marketfeed.ingest.registry import feed_keys

    try:
        return load(config, overrides or [], feed_keys=feed_keys)
    except ConfigError as error:
        raise _fail(str(error)) from None


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Distribute real-time market data: quote feeds in, tiers of subscribers out."""


@app.command(
    epilog="Examples:\n\n"
    "marketfeed serve --set feeds.0.rate=100000\n\n"
    "marketfeed serve --config prod.toml --check"
)
def serve(
    config: ConfigOption = None,
    set_: SetOption = None,
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and exit.")] = False,
    log_level: LogOption = "info",
) -> None:
    """Run the engine. Prints one line on stdout once it takes subscribers; logs go to stderr.

    SIGTERM or Ctrl-C drains: sessions are told, and the exit status is 0. A second one stops at once (130).
    """
    if log_level not in ("debug", "info", "warning", "error"):
        raise _fail(f"--log-level {log_level}: one of debug, info, warning, error")
    logs.configure(log_level)
    from marketfeed import engine  # imported late: --help needs no engine
    from marketfeed.checks import idle, log_problem, mistakes
    from marketfeed.ingest.registry import feed_keys

    def read() -> Loaded:
        return load(config, set_ or [], mistakes, feed_keys)

    try:
        loaded = read()
        if check:
            engine.check(loaded)
            feeds, tiers = len(loaded.config.feeds), len(loaded.config.tiers)
            print(f"config ok: {loaded.source}, {amount(feeds, 'feeds')}, {amount(tiers, 'tiers')}")
            for warning in filter(None, (*idle(loaded), log_problem(loaded))):
                print(f"marketfeed: warning: {printable(warning, MOST_ERROR)}", file=sys.stderr)
            return
        status = trio.run(engine.serve, loaded, log_level, read)
    except (ConfigError, StartError) as error:
        raise _fail(str(error)) from None
    raise typer.Exit(status)


@app.command(
    epilog="Examples:\n\n"
    "marketfeed watch SY0000 SY0001\n\n"
    "marketfeed watch 'BTC*' --tier premium\n\n"
    "marketfeed watch '*' --url wss://feed.example.com/v1/stream | grep trade"
)
def watch(
    symbols: Annotated[
        list[str], typer.Argument(help="Symbols, or prefixes such as 'BTC*' (quote the star).")
    ],
    url: Annotated[
        str | None, typer.Option(help="The engine's stream; default: the one the configuration names.")
    ] = None,
    tier: Annotated[str | None, typer.Option(help="vip, premium, basic, or what the engine has.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Access token, where the engine asks for one.", envvar="MARKETFEED_TOKEN"),
    ] = None,
    ca: CaOption = None,
    config: ConfigOption = None,
) -> None:
    """Show quotes and trades live: a table on a terminal, a line a tick otherwise."""
    from marketfeed.cli.watch import Watch

    try:
        status = trio.run(Watch(_endpoint(url, ca, config), symbols, tier, token).run)
    except ConfigError as error:
        raise _fail(str(error)) from None
    except KeyboardInterrupt:  # before the command listened for it
        status = 0
    raise typer.Exit(status)


@app.command(
    epilog="Examples:\n\n"
    "marketfeed report var/latency.hlog\n\n"
    "marketfeed report var/latency*.hlog --by worker --hop send --html out.html\n\n"
    "marketfeed report new.hlog --against old.hlog\n\n"
    "marketfeed report var/latency.hlog --hop total --tier vip --budget p99=20ms"
)
def report(
    logs_: Annotated[
        list[Path], typer.Argument(metavar="FILE.hlog…", help="Latency logs; several are merged.")
    ],
    by: Annotated[
        str,
        typer.Option(help="What has a row of its own beside the hop: tier, symbol, worker; or hop alone."),
    ] = "hop,tier",
    hop: Annotated[
        list[str] | None, typer.Option(help="Only this hop, such as total; may be repeated.")
    ] = None,
    tier: Annotated[list[str] | None, typer.Option(help="Only this tier; may be repeated.")] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="Only this symbol; may be repeated.")] = None,
    worker: Annotated[list[str] | None, typer.Option(help="Only this worker; may be repeated.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="From here on: 2026-11-24T20:30 (UTC), or a Unix time.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Before this moment, likewise.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page.")] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write percentile curves and their course as a picture.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table, in ns.")] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another run's log: show the change, and whether it is more than spread."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Exit status 1 if a row is above it, such as p99=20ms; may be repeated."),
    ] = None,
    unit: Annotated[
        str, typer.Option(help="What the values of another tool's log count: ns, us (YCSB), ms or s.")
    ] = "ns",
) -> None:
    """Say what latency logs hold: percentiles per hop and tier, as table, picture, page or CSV."""
    from marketfeed.cli import report as terminal
    from marketfeed.latency.report import BY, Budget, Selection
    from marketfeed.latency.units import moment_s, unit_ns

    names = tuple(name.strip() for name in by.split(","))
    if unknown := [name for name in names if name not in BY]:
        raise _fail(f"--by {unknown[0]}: one or more of {', '.join(BY)}")
    try:
        choice = Selection(
            names,
            tuple(hop or ()),
            tuple(tier or ()),
            tuple(symbol or ()),
            tuple(worker or ()),
            from_s=moment_s(from_) if from_ else -math.inf,
            to_s=moment_s(to) if to else math.inf,
            unit_ns=unit_ns(unit),
        )
        budgets = [Budget.parse(text) for text in budget or ()]
        status = terminal.report(
            logs_, choice, against or [], budgets, {"csv": csv, "png": png, "html": html}
        )
    except LogError as error:
        raise _fail(str(error)) from None
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)


@app.command(
    epilog="Examples:\n\n"
    "marketfeed record --out day.mfr.zst\n\n"
    "marketfeed record 'BTC*' ETH-USD --out rec/crypto.mfr.zst --rotate-mb 500 --rotate-s 3600"
)
def record(
    out: Annotated[
        Path, typer.Option(help="File to write: .mfr, or .mfr.zst to have it compressed. Never overwritten.")
    ],
    symbols: Annotated[
        list[str] | None, typer.Argument(help="Symbols, or prefixes such as 'BTC*'; without any, everything.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The engine's stream; default: the one the configuration names.")
    ] = None,
    tier: Annotated[
        str | None, typer.Option(help="Complete on a tier with delivery 'every'; default: the engine's.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Access token, where the engine asks for one.", envvar="MARKETFEED_TOKEN"),
    ] = None,
    rotate_mb: Annotated[
        float,
        typer.Option(min=0, help="Begin a new file after so many megabytes; each has the time in its name."),
    ] = 0,
    rotate_s: Annotated[float, typer.Option(min=0, help="Begin a new file after so many seconds.")] = 0,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="End after so many seconds; without it, at Ctrl-C.")
    ] = None,
    ca: CaOption = None,
    config: ConfigOption = None,
) -> None:
    """Record a live engine's ticks; replay plays them back, and simulate tries tiers on them.

    Gaps are told at the end, and written. Ctrl-C ends the file; one that was cut is read up to there.
    """
    from marketfeed.recordings.record import TickRecorder
    from marketfeed.recordings.writer import RecordingWriter

    try:
        writer = RecordingWriter(out, round(rotate_mb * 1e6), round(rotate_s * 1e9))
        engine = _endpoint(url, ca, config)
        recorder = TickRecorder(engine, symbols or ["*"], tier, token, writer, seconds)
        status = trio.run(recorder.run)
    except ConfigError as error:
        raise _fail(str(error)) from None
    except KeyboardInterrupt:  # before the command listened for it
        status = 0
    raise typer.Exit(status)


@app.command(
    epilog="Examples:\n\n"
    "marketfeed simulate day.mfr.zst --tier premium.interval_ms=250\n\n"
    "marketfeed simulate ibm.zip --feed ibm --tier basic.interval_ms=1000 --tier fast.interval_ms=20"
)
def simulate(
    recording: Annotated[Path, typer.Argument(help="A recording, of any format that replay takes.")],
    tier: Annotated[
        list[str] | None,
        typer.Option("--tier", metavar="NAME.KEY=VALUE", help="What if: such as premium.interval_ms=250."),
    ] = None,
    format: Annotated[str | None, typer.Option(help="Its format; without it, what its name tells.")] = None,
    feed: Annotated[
        str | None, typer.Option(help="Read it as this replay feed of the configuration: columns, zone …")
    ] = None,
    symbols: Annotated[
        list[str] | None, typer.Option(help="What the sessions subscribe to; without it, everything.")
    ] = None,
    phases: Annotated[
        int, typer.Option(min=1, max=128, help="Phases of an interval tier to take the mean of.")
    ] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Run a recording through the tiers on a clock without pauses: what each delivers, conflates and costs.

    Figures are those of one session that takes everything, without what a network adds. Tiers as
    configured stand beside what --tier makes of them, and the change.
    """
    from marketfeed.cli import simulate as whatif

    logs.configure("warning")
    loaded = _load(config, set_)
    try:
        status = whatif.run(
            loaded, recording, tier or [],
            format=format, feed=feed, symbols=symbols, phases=phases, as_json=json,
        )  # fmt: skip
    except (ConfigError, StartError) as error:
        raise _fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)


app.command(epilog=exporting.EXAMPLES)(exporting.export)


@app.command(
    epilog="Examples:\n\n"
    "marketfeed probe SY0000\n\n"
    "marketfeed probe wss://feed.example.com/v1/stream BTC-USD --tier vip --tier premium=100 --seconds 60"
)
def probe(
    symbols: Annotated[
        list[str],
        typer.Argument(
            metavar="[URL] SYMBOL…",
            help="The engine's stream, ws:// or wss://; without it, the one the configuration names. "
            "Then what to subscribe to; one busy symbol is enough.",
        ),
    ],
    tier: Annotated[
        list[str] | None,
        typer.Option(
            help="A session on this tier; with its interval in ms where it sends the latest: premium=100."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long to measure.")] = 10.0,
    interruption: Annotated[str, typer.Option(help="A tick later than this is an interruption.")] = "1s",
    out: Annotated[Path | None, typer.Option(help="Write a latency log, for `marketfeed report`.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Access token, where the engine asks for one.", envvar="MARKETFEED_TOKEN"),
    ] = None,
    ca: CaOption = None,
    config: ConfigOption = None,
) -> None:
    """Measure what subscribers get, from this machine: latency per tier, round trips, interruptions."""
    from marketfeed.cli.probe import LatencyProbe, Seen
    from marketfeed.client.connection import BY_ARGUMENT, endpoint
    from marketfeed.latency.units import duration_ns

    url, names = (symbols[0], symbols[1:]) if "://" in symbols[0] else (None, symbols)
    if not names:
        raise _fail(f"SYMBOL: what to subscribe to at {url} is missing; one busy symbol is enough")
    try:
        limit_ns = duration_ns(interruption)
        seen = [Seen.parse(text, limit_ns) for text in tier or [""]]
        engine = _endpoint(None, ca, config, BY_ARGUMENT) if url is None else endpoint(url, ca, "")
        lines = trio.run(LatencyProbe(engine, names, seen, token, out).run, seconds)
    except (ConfigError, LogError, StartError) as error:
        raise _fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print("\n".join(filter(None, lines)))
    if not all(one.arrivals.ticks for one in seen):
        raise typer.Exit(1)


app.command("config", epilog="Example:\n\nmarketfeed config > config.toml")(write_config)


def _endpoint(url: str | None, ca: Path | None, config: Path | None, elsewhere: str = "") -> Endpoint:
    """Return the stream at ``url``, else that of the engine with this configuration; raises ConfigError.

    ``elsewhere`` is how the command is given a URL, if not by ``--url``.
    """
    from marketfeed.client.connection import BY_OPTION, endpoint, endpoint_of

    if url is not None:
        return endpoint(url, ca)
    return endpoint_of(_load(config, None).config.gateway, ca, elsewhere or BY_OPTION)


def main() -> None:
    """Run the command line."""
    app()
