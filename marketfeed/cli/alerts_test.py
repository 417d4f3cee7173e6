"""The command line of ``marketfeed alerts test``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from marketfeed.cli.options import ConfigOption, SetOption, fail, load_config
from marketfeed.errors import ConfigError, RecordingError, StartError

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts test day.mfr.zst\n\n"
    "marketfeed alerts test day.mfr.zst --rule wide --set alerts.rules.0.bps=60 --summary\n\n"
    "marketfeed alerts test ibm.zip --feed ibm --json"
)


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
    from marketfeed.cli import rule_trial

    logs.configure("warning")
    loaded = load_config(config, set_)
    try:
        status = rule_trial.run(
            loaded, recording, rule or [],
            format=format, feed=feed, as_json=json, summary_only=summary,
        )  # fmt: skip
    except (ConfigError, RecordingError, StartError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)
