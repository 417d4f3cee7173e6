"""PagerDuty: events as the Events API v2 defines them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketfeed.alerts.escalation.message import End, Message, Setup, Verdict
from marketfeed.alerts.escalation.pagerduty import PagerDuty, PagerDutyConfig, pagerduty_event
from marketfeed.errors import ConfigError
from tests.support.escalations import NOW_NS, Peer, answer, listening, raised

KEY = "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY12"
CLEARED = End(cause="cleared", at_ns=NOW_NS)


def pagerduty(port: int = 80, **keys: Any) -> PagerDuty:
    config = {"url": f"http://127.0.0.1:{port}/", "routing_key_env": "KEY", "allow_private": True, **keys}
    return PagerDuty(msgspec.convert(config, PagerDutyConfig), Setup("pd", Path("/"), {"KEY": KEY}))


async def test_an_episode_triggers_and_resolves_one_incident():
    alert = raised()
    async with listening(Peer(answer(202, b'{"status":"success"}'))) as peer:
        sender = pagerduty(peer.port)
        for end in (None, CLEARED):
            assert (await sender.send([Message(alert=alert, end=end)], NOW_NS)).verdict is Verdict.DELIVERED
        trigger, resolve = (json.loads(body) for _, body in peer.requests)
        assert sender.statistics(0)[f"http://127.0.0.1:{peer.port}"].succeeded == 2
    assert trigger == {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": alert.key,
        "client": "marketfeed",
        "payload": {
            "summary": "AAPL: spread of 60.5 bps",
            "source": "marketfeed",
            "severity": "critical",
            "timestamp": "2026-11-27T18:00:00.000001Z",
            "component": "AAPL",
            "class": "wide",
            "custom_details": {"symbol": "AAPL", "value": 60.5, "threshold": 50.0, "key": alert.key},
        },
    }
    assert resolve == {"routing_key": KEY, "event_action": "resolve", "dedup_key": alert.key}


def test_an_alert_about_no_symbol_and_a_long_text_are_valid_events():
    alert = msgspec.structs.replace(raised(), symbol="", value=None, message="x" * 2000)
    told = pagerduty_event(Message(alert=alert), "desk")["payload"]
    assert len(told["summary"]) == 1024
    assert told["component"] == "wide"
    assert set(told["custom_details"]) == {"threshold", "key"}
    silent = Message(alert=msgspec.structs.replace(alert, message=""))
    assert pagerduty_event(silent, "desk")["payload"]["summary"] == "wide"


@pytest.mark.parametrize(
    ("status", "verdict"), [(400, Verdict.REFUSED), (429, Verdict.FAILED), (500, Verdict.FAILED)]
)
async def test_an_invalid_event_is_not_retried(status, verdict):
    async with listening(Peer(answer(status, KEY.encode()))) as peer:
        outcome = await pagerduty(peer.port).send([Message(alert=raised())], NOW_NS)
    assert outcome.verdict is verdict
    assert KEY not in repr(outcome)


def test_all_mistakes_are_found_at_once_and_the_key_is_not_repeated():
    with pytest.raises(ConfigError) as found:
        pagerduty(routing_key_env=KEY, url="nowhere")
    assert [line.partition(":")[0] for line in found.value.mistakes] == ["routing_key_env", "url"]
    assert KEY not in str(found.value)
    assert KEY not in repr(pagerduty())
    assert KEY not in repr(vars(pagerduty()))
