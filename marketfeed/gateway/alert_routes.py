"""Alerts over HTTP: polls of consumers, history, acknowledgements, notices, incidents and silences.

The file is longer than 300 lines because it holds a handler per route, and what each makes of its body.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from marketfeed.access.entitlement import UNBOUNDED
from marketfeed.alerts.active import POLLING
from marketfeed.alerts.alert import Alert, alert_id, ulid
from marketfeed.alerts.log import Silence
from marketfeed.alerts.messages import alert_message
from marketfeed.alerts.service import AlertRefusedError, AlertsOffError, NoticeConflictError
from marketfeed.alerts.silencing import shown_silences
from marketfeed.api.alerts import (
    MAX_DATA_BYTES,
    MAX_DATA_LEVELS,
    AcknowledgeBody,
    AcknowledgedAnswer,
    AlertHistory,
    AlertList,
    AlertsParameters,
    EpisodeAnswer,
    HistoryParameters,
    NoticeAnswer,
    NoticeBody,
    PublishParameters,
    ResolveBody,
    SilenceAnswer,
    SilenceBody,
    SilenceList,
    SilenceParameters,
)
from marketfeed.core.printable import one_line
from marketfeed.core.symbols import is_symbol
from marketfeed.core.units import MS, US
from marketfeed.errors import AlertLogError, ErrorCode, RequestError
from marketfeed.gateway.entitled import check_alerts, check_publishing, symbols_of
from marketfeed.gateway.http import Request, Response, error_response, json_response
from marketfeed.gateway.query import check_keys, consumer_of, number_of, timeout_of, wanted_of
from marketfeed.gateway.session_alerts import OFF, messages_of
from marketfeed.gateway.turns import Turns, client_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from marketfeed.access.entitlement import Entitlement
    from marketfeed.alerts.delivery import Due
    from marketfeed.alerts.history import Page
    from marketfeed.alerts.log import Episode
    from marketfeed.alerts.service import AlertService
    from marketfeed.gateway.authorization import Authorizer
    from marketfeed.gateway.http import Routes
    from marketfeed.gateway.waits import Waits

    Handler = Callable[[AlertService, Request, Entitlement], Awaitable[Response]]
    # With the holder of the token; "" without access control.
    HolderHandler = Callable[[AlertService, Request, Entitlement, str], Awaitable[Response]]

MOST: Final = 1000  # alerts in one answer
NOTICE: Final = "notice"  # the rule of notices
T = TypeVar("T")


class AlertRoutes:
    """The handlers over ``alerts``; None: alerts are off. ``wall_ns`` is the Unix clock."""

    def __init__(
        self, alerts: AlertService | None, wall_ns: Callable[[], int], waits: Waits, authorizer: Authorizer
    ) -> None:
        self._alerts, self._wall_ns, self._waits, self._authorizer = alerts, wall_ns, waits, authorizer
        self._turns = Turns()  # of those who read the history
        self.routes: Routes = {
            "/v1/alerts": {"GET": self._route(self._poll), "POST": self._held(self._publish)},
            "/v1/alerts/log": {"GET": self._route(self._history)},
            "/v1/alerts/ack": {"POST": self._route(self._acknowledge)},
            "/v1/alerts/resolve": {"POST": self._route(self._resolve)},
            "/v1/alerts/silences": {
                "GET": self._route(self._silences),
                "POST": self._route(self._silence),
                "DELETE": self._route(self._expire),
            },
        }

    def _route(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        return self._held(lambda alerts, request, entitlement, _: handler(alerts, request, entitlement))

    def _held(self, handler: HolderHandler) -> Callable[[Request], Awaitable[Response]]:
        async def route(request: Request) -> Response:
            grant = await self._authorizer.grant(request)
            if self._alerts is None:
                return error_response(503, OFF)
            entitlement, holder = (UNBOUNDED, "") if grant is None else (grant.entitlement, grant.holder)
            authorized = replace(request, grant=grant)
            response = await answered(partial(handler, self._alerts, authorized, entitlement, holder))
            self._authorizer.check(grant)  # it may have expired, or been revoked, meanwhile
            return response

        return route

    async def _poll(self, alerts: AlertService, request: Request, entitlement: Entitlement) -> Response:
        """Wait for alerts of a consumer."""
        check_keys(request.query, AlertsParameters.__struct_fields__)
        consumer, patterns, start = consumer_of(request.query)
        timeout_s = timeout_of(request.query)
        limit = number_of(request.query, "limit", MOST, 100)
        check_alerts(entitlement, consumer)
        # One session over all polls of the consumer, which therefore acknowledges after a poll has ended.
        session = POLLING + consumer

        if request.method == "HEAD":  # takes nothing
            return Response(b"")

        async def take() -> list[Due]:
            await alerts.join(session, consumer, start, patterns, symbols_of(entitlement))
            with trio.move_on_after(timeout_s):
                return await alerts.take(session, limit)
            return []

        due = await self._waits.run(request, take)
        if isinstance(due, Response):
            return due
        messages = messages_of(due, entitlement)
        return json_response(AlertList(messages)) if messages else Response(b"", status=204)

    async def _history(self, alerts: AlertService, request: Request, entitlement: Entitlement) -> Response:
        """List alerts that were appended earlier."""
        check_keys(request.query, HistoryParameters.__struct_fields__)
        wanted, before = wanted_of(request.query, symbols_of(entitlement))
        limit = number_of(request.query, "limit", MOST, 100)
        check_alerts(entitlement, None)

        async def look_back() -> Page | None:
            async with self._turns.of(client_of(request, request.grant)):
                return await alerts.history(wanted, before, limit)

        page = await self._waits.run(request, look_back)
        if isinstance(page, Response):
            return page
        if page is None:
            return error_response(404, f"before: no alert {before[:40]!r}")
        messages = [alert_message(alert) for alert in page.alerts]
        return json_response(AlertHistory(messages, None if page.next is None else str(page.next)))

    async def _acknowledge(
        self, alerts: AlertService, request: Request, entitlement: Entitlement
    ) -> Response:
        """Settle alerts of a consumer."""
        check_keys(request.query, ())
        body = parsed(request, AcknowledgeBody)
        check_alerts(entitlement, body.consumer)
        found = await alerts.acknowledge(body.consumer, body.alerts)
        return json_response(AcknowledgedAnswer(found.ids, found.unknown))

    async def _publish(
        self, alerts: AlertService, request: Request, entitlement: Entitlement, publisher: str
    ) -> Response:
        """Keep a notice, and wait for its acknowledgement if the client wants that."""
        check_keys(request.query, PublishParameters.__struct_fields__)
        if request.first("wait", "ack") != "ack":
            raise RequestError(ErrorCode.SYNTAX, "wait: ack")
        wait_s = timeout_of(request.query, "5") if "wait" in request.query else None
        notice = notice_of(parsed(request, NoticeBody), publisher, self._wall_ns())
        check_publishing(entitlement, notice.to)
        published = await self._waits.run(request, lambda: alerts.publish(notice, wait_s))
        if isinstance(published, Response):
            return published
        if wait_s is not None and not published.acknowledged:
            text = f"still queued: {notice.to} has not acknowledged it within {wait_s:g} s; id {published.id}"
            return error_response(504, text)
        return json_response(
            NoticeAnswer(published.id, notice.key), 201 if published.new and wait_s is None else 200
        )

    async def _resolve(self, alerts: AlertService, request: Request, entitlement: Entitlement) -> Response:
        """Record that a person took on an episode."""
        check_keys(request.query, ())
        body = parsed(request, ResolveBody)
        check_publishing(entitlement, None)
        by, comment = text_of("by", body.by), text_of("comment", body.comment)
        if not by:
            raise RequestError(ErrorCode.SYNTAX, "by: white space only")
        episode = await alerts.resolve(body.key, by, comment)
        if episode is None:
            return error_response(404, f"no episode has the key {body.key[:40]!r}")
        return json_response(episode_answer(episode))

    async def _silences(self, alerts: AlertService, request: Request, entitlement: Entitlement) -> Response:
        """List silences."""
        check_keys(request.query, ())
        check_publishing(entitlement, None)
        now_ns = self._wall_ns()
        listed = shown_silences(await alerts.silences(), now_ns)
        return json_response(SilenceList([silence_answer(one, now_ns) for one in listed]))

    async def _silence(self, alerts: AlertService, request: Request, entitlement: Entitlement) -> Response:
        """Begin a silence."""
        check_keys(request.query, ())
        check_publishing(entitlement, None)
        now_ns = self._wall_ns()
        silence = silence_of(parsed(request, SilenceBody), now_ns)
        await alerts.add_silence(silence)
        return json_response(silence_answer(silence, now_ns), 201)

    async def _expire(self, alerts: AlertService, request: Request, entitlement: Entitlement) -> Response:
        """End a silence."""
        check_keys(request.query, SilenceParameters.__struct_fields__)
        check_publishing(entitlement, None)
        silence = request.first("id", "")
        if not await alerts.expire_silence(silence, text_of("by", request.first("by", ""))):
            return error_response(404, f"no silence {silence[:40]!r} that ends later than now")
        return Response(b"", status=204)


async def answered(work: Callable[[], Awaitable[Response]]) -> Response:
    """Return the answer of ``work()``, or that to its error."""
    try:
        return await work()
    except AlertRefusedError as error:
        return error_response(409 if isinstance(error, NoticeConflictError) else 400, str(error))
    except (AlertLogError, AlertsOffError) as error:
        return error_response(503, str(error))


def parsed(request: Request, kind: type[T]) -> T:
    """Return the body of a request; raises RequestError."""
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.ValidationError as error:
        raise RequestError(ErrorCode.SYNTAX, f"the body: {error}") from None
    except RecursionError:
        raise RequestError(ErrorCode.SYNTAX, "the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(ErrorCode.SYNTAX, f"the body is not JSON: {error}") from None


def notice_of(body: NoticeBody, publisher: str, now_ns: int) -> Alert:
    """Return the notice that a publisher asks for; raises RequestError."""
    if body.S and not is_symbol(body.S):
        raise RequestError(ErrorCode.SYNTAX, f"S: not a symbol: {body.S[:40]!r}")
    message = text_of("msg", body.msg)
    if not message:
        raise RequestError(ErrorCode.SYNTAX, "msg: white space only")
    if too_deep(body.data):
        raise RequestError(ErrorCode.SYNTAX, f"data: nested in at most {MAX_DATA_LEVELS} levels")
    if body.data is not None and len(msgspec.json.encode(body.data)) > MAX_DATA_BYTES:
        raise RequestError(ErrorCode.SYNTAX, f"data: at most {MAX_DATA_BYTES} bytes of JSON")
    return Alert(
        # With the publisher and its key, so that two notices of one moment have ids of their own.
        id=alert_id(NOTICE, f"{publisher}\0{body.S}\0{body.key}", NOTICE, 0, now_ns),
        key=body.key,
        rule=NOTICE,
        symbol=body.S,
        severity=body.sev,
        state="notice",
        r_ns=now_ns,
        message=message,
        to=body.to,
        publisher=publisher,
        data=body.data,
    )


def text_of(key: str, text: str) -> str:
    """Return what a person wrote as one line; raises RequestError."""
    try:
        return one_line(text)
    except ValueError as error:
        raise RequestError(ErrorCode.SYNTAX, f"{key}: {error}") from None


def too_deep(value: Any, levels: int = MAX_DATA_LEVELS) -> bool:
    """Return whether arrays and objects of ``value``, itself included, are nested in more than ``levels``."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(too_deep(one, levels - 1) for one in inner)


def silence_of(body: SilenceBody, now_ns: int) -> Silence:
    """Return the silence that a person asks for."""
    starts_ns = now_ns if body.starts is msgspec.UNSET else body.starts * US
    return Silence(
        id=ulid(time.time_ns() // MS, secrets.token_bytes(10)),
        rules=tuple(body.rules),
        symbols=tuple(body.symbols),
        starts_ns=starts_ns,
        ends_ns=body.ends * US,
        created_by=text_of("by", body.by),
        comment=text_of("comment", body.comment),
    )


def silence_answer(silence: Silence, now_ns: int) -> SilenceAnswer:
    """Return ``silence`` as clients see it."""
    state = "pending" if now_ns < silence.starts_ns else "active"
    return SilenceAnswer(
        id=silence.id,
        rules=silence.rules,
        symbols=silence.symbols,
        starts=silence.starts_ns // US,
        ends=silence.ends_ns // US,
        by=silence.created_by,
        comment=silence.comment,
        state="expired" if silence.ends_ns <= now_ns else state,
    )


def episode_answer(episode: Episode) -> EpisodeAnswer:
    """Return ``episode`` as clients see it."""
    return EpisodeAnswer(
        key=episode.key,
        rule=episode.rule,
        S=episode.symbol,
        sev=episode.severity,
        raised=episode.raised_ns // US,
        cleared=episode.cleared_ns // US,
        resolved=episode.resolved_ns // US,
        by=episode.resolved_by,
        comment=episode.comment,
    )
