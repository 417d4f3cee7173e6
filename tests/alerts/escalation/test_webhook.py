"""Webhooks: signatures that the reference implementation verifies, and what each answer leads to."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from marketfeed.alerts.escalation.message import End, Message, Setup, Verdict
from marketfeed.alerts.escalation.signing import key_of, signed_headers
from marketfeed.alerts.escalation.webhook import Webhook, WebhookConfig, payload
from marketfeed.core.units import S
from marketfeed.errors import ConfigError
from marketfeed.secret import Secret
from tests.support.escalations import NOW_NS, Peer, answer, listening, raised

PAGES = Path(__file__).parents[3] / "docs"
WORD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ENVIRON = {"HOOK": WORD, "OLD": OLD}
MESSAGE = Message(alert=raised())


def webhook(port: int = 80, **keys: Any) -> Webhook:
    config = {"url": f"http://127.0.0.1:{port}/T0KEN", "secret_env": "HOOK", "allow_private": True, **keys}
    return Webhook(msgspec.convert(config, WebhookConfig), Setup("ops", Path("/"), ENVIRON))


def test_the_signature_of_the_published_example():
    """Source: the test vector of the specification's libraries."""
    headers = signed_headers(
        [Secret(WORD)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330 * S, b'{"test": 2432232314}'
    )
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("keys", [{}, {"previous_secret_env": "OLD"}])
async def test_the_reference_implementation_verifies_what_arrives(keys):
    now_ns = time.time_ns()  # it compares the timestamp with its clock
    async with listening(Peer(answer(204, b""))) as peer:
        outcome = await webhook(peer.port, **keys).send([MESSAGE], now_ns)
        assert outcome.verdict is Verdict.DELIVERED
        (_, body), headers = peer.requests[0], peer.headers()
    assert Verifier(WORD).verify(body, headers)["type"] == "alert.raised"
    if keys:
        assert headers["webhook-signature"].count("v1,") == 2
        assert Verifier(OLD).verify(body, headers)["type"] == "alert.raised"
    else:
        with pytest.raises(WebhookVerificationError):
            Verifier(OLD).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(WORD).verify(body + b" ", headers)


async def test_a_retry_has_the_same_id_and_body_and_its_own_timestamp():
    async with listening(Peer(answer(500))) as peer:
        sender = webhook(peer.port)
        for now_ns in (NOW_NS, NOW_NS + 3600 * S):
            assert (await sender.send([MESSAGE], now_ns)).verdict is Verdict.FAILED
        first, second = peer.headers(0), peer.headers(1)
        assert peer.requests[0][1] == peer.requests[1][1]
    assert first["webhook-id"] == second["webhook-id"] == f"raised_{MESSAGE.alert.key}"
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 3600
    assert first["webhook-signature"] != second["webhook-signature"]


async def test_410_switches_the_endpoint_off():
    async with listening(Peer(answer(410))) as peer:
        outcome = await webhook(peer.port).send([MESSAGE], NOW_NS)
    assert (outcome.verdict, outcome.reason) == (Verdict.GONE, "410 Gone")


async def test_retry_after_is_passed_on():
    async with listening(Peer(answer(429, retry_after="7"))) as peer:
        outcome = await webhook(peer.port).send([MESSAGE], NOW_NS)
    assert (outcome.verdict, outcome.retry_after_s) == (Verdict.FAILED, 7.0)


def test_the_body_has_the_names_and_units_of_alerts_to_subscribers():
    alert = raised()
    assert payload(MESSAGE) == {
        "type": "alert.raised",
        "timestamp": "2026-11-27T18:00:00.000001Z",
        "data": {
            "id": f"raised_{alert.key}", "key": alert.key, "rule": "wide", "S": "AAPL", "sev": "critical",
            "state": "raised", "v": 60.5, "th": 50.0, "t": NOW_NS // 1000, "r": NOW_NS // 1000 + 1,
            "msg": "AAPL: spread of 60.5 bps", "suppressed": 0,
        },
    }  # fmt: skip


def test_an_end_says_when_and_by_whom():
    end = End(cause="resolved", at_ns=NOW_NS + 5 * S, by="ann", comment="fat finger")
    told = payload(Message(alert=raised(), end=end))
    assert told["type"] == "alert.resolved"
    assert told["timestamp"] == "2026-11-27T18:00:05.000000Z"
    assert told["data"]["ended"] == NOW_NS // 1000 + 5_000_000
    assert (told["data"]["by"], told["data"]["comment"]) == ("ann", "fat finger")
    cleared = payload(Message(alert=raised(), end=End(cause="cleared", at_ns=NOW_NS)))
    assert cleared["data"]["state"] == "cleared"
    assert "by" not in cleared["data"]


async def test_statistics_are_by_peer_without_its_path():
    async with listening(Peer(answer(500))) as peer:
        sender = webhook(peer.port)
        await sender.send([MESSAGE], NOW_NS)
        ((name, figures),) = sender.statistics(0).items()
    assert name == f"http://127.0.0.1:{peer.port}"
    assert figures.failed == 1


@pytest.mark.parametrize(
    "word",
    [
        "",
        "whsec_",
        WORD.removeprefix("whsec_"),
        "whsec_c2hvcnQ=",
        "whsec_???",
        "whsec_" + "A" * 100,
        WORD + "=a",
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(word):
    with pytest.raises(ValueError, match="24 to 64 random bytes in base64") as found:
        key_of(Secret(word))
    if word.strip("whsec_"):
        assert word not in str(found.value)
        ENVIRON["BAD"] = word
        with pytest.raises(ConfigError) as mistake:
            webhook(secret_env="BAD")
        assert mistake.value.mistakes[0].startswith("secret_env: the secret must be whsec_")


def test_all_mistakes_are_found_at_once():
    with pytest.raises(ConfigError) as found:
        webhook(secret_env="NONE", previous_secret_file="/none", url="ftp://x")
    assert [line.partition(":")[0] for line in found.value.mistakes] == [
        "secret_env", "previous_secret_file", "url",
    ]  # fmt: skip


def test_the_documented_function_verifies_a_signature():
    pages = (page.read_text("utf-8") for page in PAGES.glob("*.md"))
    (source,) = (block for page in pages for block in re.findall(r"```python\n(.*?)```", page, re.S)
                 if "def verify(" in block)  # fmt: skip
    names: dict[str, Any] = {}
    exec(source, names)
    body = json.dumps(payload(MESSAGE)).encode()
    headers = signed_headers([Secret(OLD), Secret(WORD)], MESSAGE.id, time.time_ns(), body)
    assert names["verify"](WORD, headers, body)
    assert names["verify"](OLD, headers, body)
    assert not names["verify"](WORD, headers, body + b" ")
    assert not names["verify"](WORD, headers, body, tolerance_s=-1)
    assert not names["verify"](WORD, {**headers, "webhook-id": "other"}, body)
