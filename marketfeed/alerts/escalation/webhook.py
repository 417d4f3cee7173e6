"""Kind ``webhook``: a POST to a URL, signed as Standard Webhooks define it.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from marketfeed.alerts.escalation.endpoint import Timeout, endpoint
from marketfeed.alerts.escalation.message import Message, Outcome, Setup, Verdict, rfc3339
from marketfeed.alerts.escalation.signing import key_of, signed_headers
from marketfeed.core.units import US
from marketfeed.errors import ConfigError, gathered
from marketfeed.secret import Name, read_secret, required

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketfeed.core.breaker import BreakerStatistics
    from marketfeed.secret import Secret

_GONE: Final = 410


class WebhookConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of an ``[[alerts.escalate]]`` table of kind ``webhook``."""

    url: Annotated[str, Meta(min_length=1)]
    secret_file: Name | None = None
    secret_env: Name | None = None
    previous_secret_file: Name | None = None  # signs too, while receivers change to the new one
    previous_secret_env: Name | None = None
    allow_private: bool = False
    timeout_s: Timeout = 15.0


class Webhook:
    """Posts one message at a time, as JSON. Every answer but 2xx and 410 is retried."""

    Config = WebhookConfig
    batch: int = 1
    resend_s: float | None = None

    def __init__(self, config: WebhookConfig, setup: Setup) -> None:
        found: list[str] = []
        self._secrets: list[Secret] = []
        for key, file, env in (
            ("secret", config.secret_file, config.secret_env),
            ("previous_secret", config.previous_secret_file, config.previous_secret_env),
        ):
            with gathered(found):
                secret = read_secret(key, file, env, setup.base, setup.environ)
                if key == "secret" or secret is not None:
                    self._secrets.append(
                        _signing(required(secret, key), f"{key}_file" if file else f"{key}_env")
                    )
        with gathered(found):
            self._endpoint = endpoint(config.url, "url", config.allow_private, config.timeout_s)
        if found:
            raise ConfigError(*found)

    async def send(self, messages: Sequence[Message], now_ns: int) -> Outcome:
        """Post ``messages``, which is one."""
        (message,) = messages
        body = msgspec.json.encode(payload(message))
        headers = signed_headers(self._secrets, message.id, now_ns, body)
        answer = await self._endpoint.post(body, headers, now_ns)
        if answer.status == _GONE:
            return Outcome(Verdict.GONE, answer.reason)
        return answer.outcome()

    def statistics(self, now_ns: int) -> Mapping[str, BreakerStatistics]:
        """Return the figures of the peer; ``now_ns`` is the event loop's clock."""
        return {str(self._endpoint.url): self._endpoint.statistics(now_ns)}


def payload(message: Message) -> dict[str, Any]:
    """Return the body of a webhook; ``data`` has the names and units of alerts to subscribers."""
    alert, end = message.alert, message.end
    data: dict[str, Any] = {
        "id": message.id,
        "key": alert.key,
        "rule": alert.rule,
        "S": alert.symbol,
        "sev": alert.severity,
        "state": message.cause,
        "v": alert.value,
        "th": alert.threshold,
        "t": alert.t_ns // US,
        "r": alert.r_ns // US,
        "msg": alert.message,
        "suppressed": alert.suppressed,
    }
    if end is not None:
        data["ended"] = end.at_ns // US
        if end.cause == "resolved":
            data |= {"by": end.by, "comment": end.comment}
    return {"type": f"alert.{message.cause}", "timestamp": rfc3339(message.at_ns), "data": data}


def _signing(secret: Secret, key: str) -> Secret:
    """Return ``secret`` if it can sign; raises ConfigError (``key: …``)."""
    try:
        key_of(secret)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    return secret
