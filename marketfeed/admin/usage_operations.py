"""Usage, for operators."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from msgspec import UNSET

from marketfeed.access.usage import User, day_of
from marketfeed.access.usage_report import Asked, DayOfUser, asked, day_text, report
from marketfeed.api.usage import PrefixRow, UsageAnswer, UsageParameters, UsageRow
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


def _encoded(days: Sequence[DayOfUser], about: Asked, today: str, sessions: Mapping[User, int]) -> bytes:
    rows: list[UsageRow] = []
    prefixes: list[PrefixRow] = []
    of_tenant: Counter[str] = Counter()
    for user, number in sessions.items():
        of_tenant[user.tenant] += number
    for row in report(days, about):
        if isinstance(row, PrefixRow):
            prefixes.append(row)
            continue
        if row.day == today and row.sub is not UNSET:
            row.sessions = sessions.get(User(row.tenant, row.sub), 0)
        elif row.day == today:
            row.sessions = of_tenant[row.tenant]
        rows.append(row)
    return msgspec.json.encode(
        UsageAnswer(prefixes=prefixes) if about.by == "symbols" else UsageAnswer(rows=rows)
    )
