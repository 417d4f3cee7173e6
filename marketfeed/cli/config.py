"""The command line of ``marketfeed config``, which prints the default configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from marketfeed.config.schema import default_text

EXAMPLES: Final = "Example:\n\nmarketfeed config > config.toml"


def write_config(
    out: Annotated[
        Path | None,
        typer.Option(help="Write to this file instead of stdout; existing files are never overwritten."),
    ] = None,
) -> None:
    """Print the default configuration, with comments, to start your own from."""
    try:
        # Not sys.stdout: on a full disk it would fail once more when the interpreter exits.
        file = open(sys.stdout.fileno(), "wb", closefd=False) if out is None else out.open("xb")  # noqa: SIM115
        with file:
            file.write(default_text().encode())
    except FileExistsError:
        problem = f"--out {out}: the file exists; it is not overwritten"
    except OSError as error:
        problem = f"{'stdout' if out is None else f'--out {out}'}: {error.strerror or error}"
    else:
        return
    print(f"marketfeed: {problem}", file=sys.stderr)
    raise typer.Exit(2)
