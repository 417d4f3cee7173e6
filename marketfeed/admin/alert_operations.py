"""Consumers of alerts and dead letters, for operators."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from marketfeed.alerts.messages import alert_message
from marketfeed.api.alerts import (
    SYMBOLS,
    ConsumerList,
    ConsumerParameters,
    ConsumerRow,
    DeadLetterList,
    DeadLetterRow,
    DeadParameters,
    RequeueBody,
    RequeuedAnswer,
)
from marketfeed.core.units import US
from marketfeed.gateway.alert_routes import MOST, answered, parsed, text_of
from marketfeed.gateway.http import Request, Response, error_response, json_response
from marketfeed.gateway.query import check_keys, number_of
from marketfeed.gateway.session_alerts import OFF

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from marketfeed.alerts.dispatch import Dispatch
    from marketfeed.gateway.http import Routes

    Handler = Callable[[Dispatch, Request], Awaitable[Response]]


class Dispatching(Protocol):
    """What has a dispatch, or None while alerts are off."""

    @property
    def dispatch(self) -> Dispatch | None: ...


class AlertOperations:
    """The handlers."""

    def __init__(self, alerting: Dispatching) -> None:
        self._alerting = alerting
        self.routes: Routes = {
            "/v1/alerts/consumers": {"GET": self._route(_consumers), "DELETE": self._route(_drop)},
            "/v1/alerts/dead": {"GET": self._route(_dead)},
            "/v1/alerts/requeue": {"POST": self._route(_requeue)},
        }

    def _route(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def route(request: Request) -> Response:
            if self._alerting.dispatch is None:
                return error_response(503, OFF)
            return await answered(partial(handler, self._alerting.dispatch, request))

        return route


async def _consumers(dispatch: Dispatch, request: Request) -> Response:
    """List consumers."""
    check_keys(request.query, ())
    dead = await dispatch.dead_letter_counts()
    statistics = dispatch.statistics()
    rows = []
    for consumer in dispatch.consumers():
        now = statistics[consumer.name]
        rows.append(
            ConsumerRow(
                consumer=consumer.name,
                state=now.state,
                alerts=consumer.patterns,
                symbols=consumer.symbols[:SYMBOLS],
                more_symbols=max(len(consumer.symbols) - SYMBOLS, 0),
                start=consumer.start,
                sessions=now.sessions,
                unacknowledged=now.unacknowledged,
                oldest=now.oldest_ns // US,
                waiting=max(dispatch.newest - now.position, 0),
                dead=dead.get(consumer.name, 0),
                position=now.position,
                floor=now.floor,
            )
        )
    return json_response(ConsumerList(rows))


async def _drop(dispatch: Dispatch, request: Request) -> Response:
    """Remove a consumer with all that is kept for it."""
    check_keys(request.query, ConsumerParameters.__struct_fields__)
    name = request.first("consumer", "")
    if not await dispatch.drop_consumer(name, text_of("by", request.first("by", ""))):
        return _unknown(name)
    return Response(b"", status=204)


async def _dead(dispatch: Dispatch, request: Request) -> Response:
    """List dead letters."""
    check_keys(request.query, DeadParameters.__struct_fields__)
    name = request.first("consumer", "") or None
    limit = number_of(request.query, "limit", MOST, MOST)
    if name is not None and not dispatch.has_consumer(name):
        return _unknown(name)
    rows = [
        DeadLetterRow(
            letter.consumer,
            letter.tries,
            letter.parked_ns // US,
            alert_message(letter.entry.alert, max(letter.tries, 1), ack=True),
        )
        for letter in await dispatch.dead_letters(name, limit)
    ]
    return json_response(DeadLetterList(rows))


async def _requeue(dispatch: Dispatch, request: Request) -> Response:
    """Deliver dead letters again."""
    check_keys(request.query, ())
    body = parsed(request, RequeueBody)
    by = text_of("by", body.by)
    if not dispatch.has_consumer(body.consumer):
        return _unknown(body.consumer)
    ids = body.alerts
    if ids is None:
        ids = [letter.entry.alert.id for letter in await dispatch.dead_letters(body.consumer)]
    entries = await dispatch.requeue(body.consumer, ids, by)
    return json_response(RequeuedAnswer([entry.alert.id for entry in entries]))


def _unknown(name: str) -> Response:
    return error_response(404, f"no consumer {name[:64]!r}")
