"""Requests about alerts while no engine runs: its own handlers over the log, so that checks, limits and
answers are the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from marketfeed.admin.alert_operations import AlertOperations
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import Dispatch
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.cli.alerts_http import Answer, CallError
from marketfeed.errors import RequestError
from marketfeed.gateway.alert_routes import AlertRoutes
from marketfeed.gateway.authorization import Authorizer
from marketfeed.gateway.http import Request, Response
from marketfeed.gateway.limits import Counters
from marketfeed.gateway.waits import Waits

if TYPE_CHECKING:
    from pathlib import Path

    from marketfeed.cli.alerts_http import Call
    from marketfeed.config.schema import AlertsConfig
    from marketfeed.gateway.http import Routes


@dataclass(frozen=True)
class _Operated:
    dispatch: Dispatch


async def answer_offline(path: Path, alerts: AlertsConfig, call: Call) -> Answer:
    """Return what an engine with the log at ``path`` would answer. Raises AlertLogError and CallError."""
    async with open_log(path) as log:
        limits = DeliveryLimits(alerts.max_tries, alerts.in_flight)
        dispatch = await Dispatch.started(log, limits, time.time_ns)
        if call.admin:
            routes = AlertOperations(_Operated(dispatch)).routes
        else:
            routes = AlertRoutes(dispatch, time.time_ns, Waits(), Authorizer(None, Counters())).routes
        return await answer_of(routes, call)


async def answer_of(routes: Routes, call: Call) -> Answer:
    """Return what a listener with ``routes`` would answer. Raises CallError."""
    query = {name: [value] for name, value in (call.query or {}).items()}
    request = Request(call.path, query, call.method, body=msgspec.json.encode(call.body))
    try:
        response = await routes[call.path][call.method](request)
    except RequestError as error:
        raise CallError(400, str(error)) from None
    assert isinstance(response, Response)
    value: Any = msgspec.json.decode(response.body) if response.body else None
    if response.status >= 300:
        raise CallError(response.status, value["error"]["msg"])
    return Answer(response.status, value)
