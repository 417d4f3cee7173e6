"""A dispatch over a log on disk, with a clock that the test sets and a log that may fail."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from marketfeed.alerts.alert import alert_id
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import Dispatch
from marketfeed.alerts.log import Silence
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.core.units import S
from marketfeed.errors import AlertLogError
from marketfeed.testing_alert_log import NOW_NS, example

LIMITS = DeliveryLimits(max_tries=10, in_flight=4)


class Wall:
    """A Unix clock that the test sets."""

    def __init__(self):
        self.now_ns = NOW_NS

    def __call__(self):
        return self.now_ns


class Failing:
    """The log, whose method ``broken`` fails."""

    log: Any

    def __init__(self):
        self.broken = ""

    def __getattr__(self, name):
        if name == self.broken:
            return self._fail
        return getattr(self.log, name)

    async def _fail(self, *_, **__):
        await trio.lowlevel.checkpoint()
        raise AlertLogError("no room to write it: free space on its disk")


@asynccontextmanager
async def dispatching(folder, limits=LIMITS, wall=None, failing=None):
    async with open_log(folder / "alerts.db") as log, trio.open_nursery() as nursery:
        alerts: Any = failing or log
        if failing is not None:
            failing.log = log
        dispatch = await Dispatch.started(alerts, limits, wall or Wall())
        nursery.start_soon(dispatch.run)
        yield dispatch
        nursery.cancel_scope.cancel()


def ids(due):
    return [one.entry.alert.id for one in due]


def notice(key, to=None, publisher=""):
    own_id = alert_id("notice", f"{publisher}\0{key}", "notice", 0, NOW_NS)
    return msgspec.structs.replace(
        example(1, "notice", "notice"),
        id=own_id,
        key=key,
        symbol="",
        message="filled",
        to=to,
        publisher=publisher,
    )


def silence(**fields: Any):
    known: dict[str, Any] = {
        "starts_ns": NOW_NS,
        "ends_ns": NOW_NS + 60 * S,
        "created_by": "ann",
        "comment": "test",
    }
    return Silence(id="one", **(known | fields))
