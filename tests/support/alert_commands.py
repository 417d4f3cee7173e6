"""Commands of ``marketfeed alerts`` on a log with a few entries, while no engine runs."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from marketfeed.alerts.sqlite_log import open_log
from marketfeed.alerts.sqlite_reads import SqliteReader
from marketfeed.cli import app
from marketfeed.core.units import S
from marketfeed.testing_alert_log import NOW_NS, example

ONE, TWO, THREE = (example(number) for number in (1, 2, 3))


async def fill(path):
    """Three alerts; consumer risk had the first as a dead letter and the second once, away had none."""
    async with open_log(path) as log:
        await log.use_consumer("risk", NOW_NS)
        await log.use_consumer("away", NOW_NS, patterns=["wide", "hot*"])
        await log.append([ONE, TWO, THREE], NOW_NS)
        await log.park("risk", {1: 10}, NOW_NS + 5 * S)
        log.record_attempts("risk", {2: 1})
        log.advance("risk", 1)


class Told:
    """What a command did."""

    def __init__(self, done):
        self.status, self.out, self.err = done.exit_code, done.stdout, done.stderr

    @property
    def json(self):
        return [json.loads(line) for line in self.out.splitlines()]


def alerts(log, *arguments):
    """Run a command on ``log``; anything but an exit fails the test."""
    done = CliRunner().invoke(app, ["alerts", *arguments, "--log", str(log)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Told(done)


def said(told):
    """Return the one line of a command that could not do its work."""
    assert (told.status, told.out) == (2, "")
    (line,) = told.err.splitlines()
    assert line.startswith("marketfeed: ")
    return line.removeprefix("marketfeed: ")


def read(log, query):
    reader = SqliteReader(log)
    try:
        return query(reader)
    finally:
        reader.close()
