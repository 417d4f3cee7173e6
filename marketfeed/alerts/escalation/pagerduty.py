"""Kind ``pagerduty``: events of the Events API v2, with ``dedup_key`` = the episode's key.

Source: https://developer.pagerduty.com/docs/events-api-v2-overview
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from marketfeed.alerts.escalation.endpoint import Timeout, endpoint
from marketfeed.alerts.escalation.message import Message, Outcome, Setup, rfc3339
from marketfeed.errors import ConfigError, gathered
from marketfeed.secret import Name, read_secret, required

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketfeed.core.breaker import BreakerStatistics

_SUMMARY_CHARACTERS: Final = 1024
_REFUSED: Final = frozenset({400})  # the event is invalid: "do not retry"


class PagerDutyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of an ``[[alerts.escalate]]`` table of kind ``pagerduty``."""

    routing_key_file: Name | None = None
    routing_key_env: Name | None = None
    url: Annotated[str, Meta(min_length=1)] = "https://events.pagerduty.com/v2/enqueue"
    source: Annotated[str, Meta(min_length=1, max_length=255)] = "marketfeed"
    allow_private: bool = False
    timeout_s: Timeout = 15.0


class PagerDuty:
    """Triggers an incident for an episode, and resolves it. An answer of 400 is not retried."""

    Config = PagerDutyConfig
    batch: int = 1
    resend_s: float | None = None

    def __init__(self, config: PagerDutyConfig, setup: Setup) -> None:
        found: list[str] = []
        with gathered(found):
            given = read_secret(
                "routing_key", config.routing_key_file, config.routing_key_env, setup.base, setup.environ
            )
            self._routing_key = required(given, "routing_key")
        with gathered(found):
            self._endpoint = endpoint(config.url, "url", config.allow_private, config.timeout_s)
        if found:
            raise ConfigError(*found)
        self._source = config.source

    async def send(self, messages: Sequence[Message], now_ns: int) -> Outcome:
        """Post ``messages``, which is one."""
        (message,) = messages
        event = {"routing_key": self._routing_key.reveal(), **pagerduty_event(message, self._source)}
        answer = await self._endpoint.post(msgspec.json.encode(event), {}, now_ns)
        return answer.outcome(refused=_REFUSED)

    def statistics(self, now_ns: int) -> Mapping[str, BreakerStatistics]:
        """Return the figures of the peer; ``now_ns`` is the event loop's clock."""
        return {str(self._endpoint.url): self._endpoint.statistics(now_ns)}


def pagerduty_event(message: Message, source: str) -> dict[str, Any]:
    """Return the event of ``message`` without its routing key."""
    alert = message.alert
    if message.end is not None:
        return {"event_action": "resolve", "dedup_key": alert.key}
    details = {"symbol": alert.symbol, "value": alert.value, "threshold": alert.threshold, "key": alert.key}
    return {
        "event_action": "trigger",
        "dedup_key": alert.key,
        "client": "marketfeed",
        "payload": {
            "summary": message.summary[:_SUMMARY_CHARACTERS],
            "source": source,
            "severity": alert.severity,
            "timestamp": rfc3339(message.at_ns),
            "component": alert.symbol or alert.rule,
            "class": alert.rule,
            "custom_details": {name: value for name, value in details.items() if value not in (None, "")},
        },
    }
