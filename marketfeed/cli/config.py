"""The command line of ``marketfeed config``: a configuration to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from marketfeed.config.schema import default_text

EXAMPLES: Final = "Example:\n\nmarketfeed config > config.toml"


def write_config(
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead; one that exists is never overwritten.")
    ] = None,
) -> None:
    """Print a configuration to start from: the defaults, each key with a comment on what it does."""
    try:
        # Not sys.stdout, which would try a disk that is full once more when the interpreter ends.
        file = open(sys.stdout.fileno(), "wb", closefd=False) if out is None else out.open("xb")  # noqa: SIM115
        with file:
            file.write(default_text().encode())
    except FileExistsError:
        problem = f"--out {out}: exists, and is not overwritten"
    except OSError as error:
        problem = f"{'stdout' if out is None else f'--out {out}'}: {error.strerror or error}"
    else:
        return
    print(f"marketfeed: {problem}", file=sys.stderr)
    raise typer.Exit(2)
