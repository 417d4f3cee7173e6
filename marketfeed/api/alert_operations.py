"""Routes of alerts, for the OpenAPI document: those of the gateway, and those of the admin port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.api import alerts
from marketfeed.api.routes import ADMIN, EVERYWHERE, NO_CONTENT, Route, struct_answer

if TYPE_CHECKING:
    from msgspec import Struct

WRITING: Final = (*EVERYWHERE, 413)
NOTICE: Final = struct_answer(alerts.NoticeAnswer)
KEPT: Final = (
    "The publisher has used the key before: the id of its first notice. With `wait`: it is acknowledged."
)

GATEWAY: Final = (
    Route(
        "/v1/alerts",
        "Wait for alerts of a durable consumer (long poll).",
        struct_answer(alerts.AlertList),
        EVERYWHERE,
        alerts.AlertsParameters,
        required=("consumer",),
        answers={"204": {"description": "Nothing became due before the timeout."}},
    ),
    Route(
        "/v1/alerts",
        "Publish a notice, once per publisher and key.",
        struct_answer(alerts.NoticeAnswer, KEPT),
        (*WRITING, 409, 504),
        alerts.PublishParameters,
        method="POST",
        body=alerts.NoticeBody,
        answers={"201": NOTICE},
    ),
    Route(
        "/v1/alerts/log",
        "List alerts that were raised, cleared or published earlier, newest first.",
        struct_answer(alerts.AlertHistory),
        (*EVERYWHERE, 404),
        alerts.HistoryParameters,
    ),
    Route(
        "/v1/alerts/ack",
        "Acknowledge alerts of a durable consumer.",
        struct_answer(alerts.AcknowledgedAnswer),
        WRITING,
        method="POST",
        body=alerts.AcknowledgeBody,
    ),
    Route(
        "/v1/alerts/resolve",
        "Record that a person took on an episode.",
        struct_answer(alerts.EpisodeAnswer),
        (*WRITING, 404),
        method="POST",
        body=alerts.ResolveBody,
    ),
    Route("/v1/alerts/silences", "List silences.", struct_answer(alerts.SilenceList), EVERYWHERE),
    Route(
        "/v1/alerts/silences",
        "Begin a silence.",
        None,
        WRITING,
        method="POST",
        body=alerts.SilenceBody,
        answers={"201": struct_answer(alerts.SilenceAnswer)},
    ),
    Route(
        "/v1/alerts/silences",
        "End a silence now.",
        None,
        (*EVERYWHERE, 404),
        alerts.SilenceParameters,
        method="DELETE",
        required=("id",),
        answers={"204": NO_CONTENT},
    ),
)
OPERATORS: Final = (
    Route(
        "/v1/alerts/consumers",
        "List durable consumers.",
        struct_answer(alerts.ConsumerList),
        (*ADMIN, 503),
    ),
    Route(
        "/v1/alerts/consumers",
        "Drop a consumer, with its position, its unsettled alerts and its dead letters.",
        None,
        (*ADMIN, 404, 503),
        alerts.ConsumerParameters,
        method="DELETE",
        required=("consumer",),
        answers={"204": NO_CONTENT},
    ),
    Route(
        "/v1/alerts/dead",
        "List dead letters.",
        struct_answer(alerts.DeadLetterList),
        (*ADMIN, 404, 503),
        alerts.DeadParameters,
    ),
    Route(
        "/v1/alerts/requeue",
        "Deliver dead letters again.",
        struct_answer(alerts.RequeuedAnswer),
        (*ADMIN, 404, 413, 503),
        method="POST",
        body=alerts.RequeueBody,
    ),
)
STRUCTS: Final[tuple[type[Struct], ...]] = (
    alerts.AlertList,
    alerts.AlertHistory,
    alerts.AcknowledgedAnswer,
    alerts.NoticeAnswer,
    alerts.EpisodeAnswer,
    alerts.SilenceList,
    alerts.ConsumerList,
    alerts.DeadLetterList,
    alerts.RequeuedAnswer,
)
BODIES: Final[tuple[type[Struct], ...]] = tuple(
    route.body for route in (*GATEWAY, *OPERATORS) if route.body is not None
)
