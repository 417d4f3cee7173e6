"""A program: fills the disk under an alert log, makes room again, and prints what the log answered."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from marketfeed.alerts.sqlite_log import open_log
from marketfeed.errors import AlertLogError
from marketfeed.testing_alert_log import NOW_NS, example

BALLAST_BYTES = 1 << 20


async def run(folder: Path) -> dict[str, Any]:
    """Publish until the disk is full, and again when it has room; ``folder`` is a tmpfs of 2 MiB."""
    ballast, answered, error = folder / "ballast", 0, ""
    ballast.write_bytes(bytes(BALLAST_BYTES))
    async with open_log(folder / "alerts.db") as log:
        try:
            while answered < 100_000:
                await log.append([example(answered)], NOW_NS)
                answered += 1
        except AlertLogError as failure:
            error = str(failure)
        read = len(await log.read(0, answered + 1))
        ballast.unlink()
        (again,) = await log.append([example(answered)], NOW_NS)
    async with open_log(folder / "alerts.db") as log:
        head = await log.head()
    return {"answered": answered, "error": error, "read": read, "again": again.position, "head": head}


if __name__ == "__main__":
    print(json.dumps(trio.run(run, Path(sys.argv[1]))))
