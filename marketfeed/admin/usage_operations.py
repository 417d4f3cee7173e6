"""Usage, for operators."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from marketfeed.access.usage import User, day_of
from marketfeed.access.usage_report import Asked, DayOfUser, asked, by_prefix, by_tenant, by_user, day_text
from marketfeed.api.usage import UsageAnswer, UsageParameters
from marketfeed.errors import AccessFileError
from marketfeed.gateway.http import Request, Response, error_response
from marketfeed.gateway.query import check_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketfeed.gateway.http import Routes
    from marketfeed.server.metering import Metering

OFF: Final = 'metering is off in this engine: auth.mode is "none"'


class UsageOperations:
    """The handlers."""

    def __init__(self, metering: Metering) -> None:
        self._metering = metering
        self.routes: Routes = {"/v1/usage": {"GET": self._usage}}

    async def _usage(self, request: Request) -> Response:
        """Return usage; encoded in a thread, as there may be a hundred thousand users."""
        query = request.query
        check_keys(query, UsageParameters.__struct_fields__)
        given = {key: request.first(key, "") for key in UsageParameters.__struct_fields__ if key in query}
        listed = [one for one in given.pop("prefixes", "").split(",") if one]
        metering = self._metering
        if not metering.enabled:
            return error_response(503, OFF)
        today = day_of(time.time())
        try:
            about = asked(today, **given, prefixes=listed)
        except ValueError as error:
            return error_response(400, str(error))
        try:
            days = await metering.days(about.first, about.last, about.tenant)
        except AccessFileError as error:
            return error_response(503, str(error))
        sessions = dict(metering.book.sessions)
        body = await trio.to_thread.run_sync(_encoded, days, about, day_text(today), sessions)
        return Response(body)


def answer_of(days: Sequence[DayOfUser], about: Asked) -> UsageAnswer:
    """Return the report ``about`` usage of some days."""
    if about.by == "symbols":
        return UsageAnswer(prefixes=by_prefix(days, about.prefixes))
    return UsageAnswer(rows=by_user(days) if about.by == "user" else by_tenant(days))


def _encoded(days: Sequence[DayOfUser], about: Asked, today: str, sessions: Mapping[User, int]) -> bytes:
    answer = answer_of(days, about)
    if answer.rows is not msgspec.UNSET:
        by_name: dict[str, int] = {}
        for user, number in sessions.items():
            by_name[user.tenant] = by_name.get(user.tenant, 0) + number
        for row in answer.rows:
            if row.day == today:
                of_user = row.sub is not msgspec.UNSET
                row.sessions = (
                    sessions.get(User(row.tenant, str(row.sub)), 0) if of_user else by_name.get(row.tenant, 0)
                )
    return msgspec.json.encode(answer)
