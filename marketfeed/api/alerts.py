"""Alerts: their message, the bodies of answers and requests about them, and parameters, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from marketfeed.api.answers import Body
from marketfeed.api.fields import Count, Micros, Name
from marketfeed.api.messages import Alert, AlertId, AlertPattern, ConsumerName, Severity

MAX_KEY: Final = 256  # characters
MAX_TEXT: Final = 2000  # characters of a message or a comment
MAX_BY: Final = 256  # characters
MAX_DATA_BYTES: Final = 16_384  # of a notice, as thousands of the newest alerts are kept in memory
MAX_DATA_LEVELS: Final = 32  # of arrays and objects in it, far below what JSON libraries of clients accept
SYMBOLS: Final = 20  # of a consumer that an answer lists; it may have 10,000
Zero = "0 = not yet."


class AlertList(Body, frozen=True):
    """Alerts that are due for a consumer that polls."""

    alerts: list[Alert]


class AlertHistory(Body, frozen=True):
    """Alerts that were raised, cleared or published earlier, newest first."""

    alerts: list[Alert]
    next: Annotated[
        str | None,
        Meta(
            description="Send it as `before` for older ones, even if `alerts` is empty; null: none is older."
        ),
    ]


class AcknowledgedAnswer(Body, frozen=True):
    """What an acknowledgement has settled."""

    alerts: Sequence[AlertId]
    unknown: Annotated[
        Sequence[str],
        Meta(description="Ids that are not this consumer's, or were acknowledged before."),
    ]


class NoticeAnswer(Body, frozen=True):
    """A notice that is on disk."""

    id: AlertId
    key: str


class EpisodeAnswer(Body, frozen=True):
    """An episode of a rule and a symbol."""

    key: Annotated[str, Meta(description="The id of the alert that raised it.")]
    rule: str
    S: Annotated[str, Meta(description="The symbol; empty if it is about no single one.")]
    sev: Severity
    raised: Micros
    cleared: Annotated[int, Meta(ge=0, description=f"µs since the Unix epoch; {Zero}")]
    resolved: Annotated[int, Meta(ge=0, description=f"When a person took it on, µs; {Zero}")]
    by: Annotated[str, Meta(description="Who took it on.")]
    comment: str


class SilenceAnswer(Body, frozen=True):
    """A silence: alerts that it covers are kept in the log, and not delivered."""

    id: str
    rules: Sequence[str]
    symbols: Sequence[str]
    starts: Micros
    ends: Micros
    by: str
    comment: str
    state: Annotated[str, Meta(extra_json_schema={"enum": ["pending", "active", "expired"]})]


class SilenceList(Body, frozen=True):
    """Silences that have not ended, and the newest 1,000 of those that have, by start."""

    silences: list[SilenceAnswer]


class ConsumerRow(Body, frozen=True, kw_only=True):
    """A durable consumer."""

    consumer: ConsumerName
    state: Annotated[str, Meta(extra_json_schema={"enum": ["live", "stalled", "away"]})]
    alerts: Annotated[Sequence[str], Meta(description="Its patterns.")]
    symbols: Annotated[
        Sequence[str],
        Meta(description=f"Names and prefixes of the symbols that it is entitled to; the first {SYMBOLS}."),
    ] = ("*",)
    more_symbols: Annotated[Count, Meta(description="Names and prefixes beyond these.")] = 0
    start: Annotated[str, Meta(extra_json_schema={"enum": ["now", "all"]})]
    sessions: Annotated[Count, Meta(description="Sessions that share its alerts.")]
    unacknowledged: Annotated[Count, Meta(description="Delivered, and neither acknowledged nor parked.")]
    oldest: Annotated[
        int, Meta(ge=0, description="When its oldest unsettled alert was kept, µs; 0 = there is none.")
    ]
    waiting: Annotated[Count, Meta(description="Entries of the log that it has not read yet.")]
    dead: Annotated[Count, Meta(description="Its dead letters.")]
    position: Annotated[Count, Meta(description="The last entry read for it.")]
    floor: Annotated[Count, Meta(description="Every entry up to here is settled.")]


class ConsumerList(Body, frozen=True):
    """All durable consumers, by name."""

    consumers: list[ConsumerRow]


class DeadLetterRow(Body, frozen=True):
    """An alert that a consumer did not acknowledge."""

    consumer: ConsumerName
    tries: Count
    parked: Micros
    alert: Alert


class DeadLetterList(Body, frozen=True):
    """Dead letters, by consumer and position."""

    dead: list[DeadLetterRow]


class RequeuedAnswer(Body, frozen=True):
    """Dead letters that are delivered again."""

    alerts: list[AlertId]


# Bodies of requests.


class AcknowledgeBody(Body, frozen=True):
    """Acknowledge alerts of a consumer."""

    consumer: ConsumerName
    alerts: list[str]


class NoticeBody(Body, frozen=True, kw_only=True):
    """A notice to all consumers whose patterns match ``notice``, or to one."""

    key: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_KEY,
            description="The publisher's own key: a second notice of this publisher with it is not kept.",
        ),
    ]
    msg: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    sev: Severity = "info"
    S: Annotated[str, Meta(max_length=24)] = ""
    to: Annotated[ConsumerName | None, Meta(description="The only consumer that gets it.")] = None
    data: Annotated[
        dict[str, Any] | None,
        Meta(description=f"At most {MAX_DATA_BYTES:,} bytes of JSON in at most {MAX_DATA_LEVELS} levels."),
    ] = None


class ResolveBody(Body, frozen=True):
    """A person takes on an episode."""

    key: Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]
    by: Annotated[str, Meta(min_length=1, max_length=MAX_BY)]
    comment: Annotated[str, Meta(max_length=MAX_TEXT)] = ""


class SilenceBody(Body, frozen=True, kw_only=True):
    """Silence alerts whose rule and symbol match."""

    rules: Annotated[list[AlertPattern], Meta(description="Names of rules, or prefixes and *.")] = field(
        default_factory=lambda: ["*"]
    )
    symbols: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=25)]],
        Meta(description="Symbols, or prefixes and *."),
    ] = field(default_factory=lambda: ["*"])
    starts: Annotated[int, Meta(ge=0, le=2**53, description="µs; now if absent.")] | UnsetType = UNSET
    ends: Annotated[int, Meta(ge=0, le=2**53, description="µs since the Unix epoch.")]
    by: Annotated[str, Meta(min_length=1, max_length=MAX_BY)]
    comment: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]


class RequeueBody(Body, frozen=True):
    """Deliver dead letters again; all of the consumer without ``alerts``."""

    consumer: ConsumerName
    alerts: list[str] | None = None
    by: Annotated[str, Meta(max_length=MAX_BY)] = ""


# Parameters in the query.


class AlertsParameters(msgspec.Struct):
    """Parameters of ``GET /v1/alerts``."""

    consumer: ConsumerName
    alerts: Annotated[list[AlertPattern], Meta(description="Patterns of rules; without it `*`.")]
    start: Annotated[
        Literal["now", "all"], Meta(description="At the first use of the consumer; without it `all`.")
    ]
    timeout_s: Annotated[
        float,
        Meta(
            description="Answer with 204 after so long without an alert.",
            extra_json_schema={"minimum": 0, "maximum": 300, "default": 30},
        ),
    ]
    limit: Annotated[
        int,
        Meta(
            description="At most so many alerts.",
            extra_json_schema={"minimum": 1, "maximum": 1000, "default": 100},
        ),
    ]


class HistoryParameters(msgspec.Struct):
    """Parameters of ``GET /v1/alerts/log``."""

    alerts: Annotated[list[AlertPattern], Meta(description="Patterns of rules; without it `*`.")]
    symbols: Annotated[list[Name], Meta(description="Symbols, or prefixes and *; without it `*`.")]
    severity: Annotated[list[Severity], Meta(description="Severities; without it all.")]
    before: Annotated[
        str, Meta(description="Only older ones: an id, or `next` of another answer; without it the newest.")
    ]
    limit: Annotated[
        int,
        Meta(
            description="At most so many alerts.",
            extra_json_schema={"minimum": 1, "maximum": 1000, "default": 100},
        ),
    ]


class PublishParameters(msgspec.Struct):
    """Parameters of ``POST /v1/alerts``."""

    wait: Annotated[Literal["ack"], Meta(description="Answer when `to` has acknowledged, else 504.")]
    timeout_s: Annotated[
        float,
        Meta(description="How long to wait.", extra_json_schema={"minimum": 0, "maximum": 300, "default": 5}),
    ]


class SilenceParameters(msgspec.Struct):
    """Parameters of ``DELETE /v1/alerts/silences``."""

    id: Annotated[str, Meta(description="The silence to end now.")]
    by: Annotated[str, Meta(description="Who ends it; for the audit trail.")]


class ConsumerParameters(msgspec.Struct):
    """Parameters of ``DELETE /v1/alerts/consumers``."""

    consumer: ConsumerName
    by: Annotated[str, Meta(description="Who drops it; for the audit trail.")]


class DeadParameters(msgspec.Struct):
    """Parameters of ``GET /v1/alerts/dead``."""

    consumer: Annotated[ConsumerName, Meta(description="Only this consumer's.")]
    limit: Annotated[
        int,
        Meta(
            description="At most so many.",
            extra_json_schema={"minimum": 1, "maximum": 1000, "default": 1000},
        ),
    ]
