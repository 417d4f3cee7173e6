"""Alertmanager: alerts of its API v2, to every peer."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from marketfeed.alerts.escalation.alertmanager import Alertmanager, AlertmanagerConfig, alertmanager_alert
from marketfeed.alerts.escalation.message import End, Message, Outcome, Setup, Verdict
from marketfeed.core.units import S
from marketfeed.errors import ConfigError
from tests.support.escalations import NOW_NS, Peer, answer, listening, raised


def alertmanager(*urls: str, **keys: Any) -> Alertmanager:
    config = msgspec.convert({"urls": list(urls), "allow_private": True, **keys}, AlertmanagerConfig)
    return Alertmanager(config, Setup("am", Path("/"), {}))


async def told(*peers: Peer) -> Outcome:
    async with AsyncExitStack() as stack:
        for peer in peers:
            await stack.enter_async_context(listening(peer))
        sender = alertmanager(*(f"http://127.0.0.1:{peer.port}" for peer in peers))
        return await sender.send([Message(alert=raised("A")), Message(alert=raised("B"))], NOW_NS)


async def test_every_peer_gets_all_alerts_in_one_post():
    peers = Peer(answer()), Peer(answer())
    assert (await told(*peers)).verdict is Verdict.DELIVERED
    for peer in peers:
        ((request, body),) = peer.requests
        assert request.target == b"/api/v2/alerts"
        assert [alert["labels"]["symbol"] for alert in json.loads(body)] == ["A", "B"]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ((200, 500), Verdict.DELIVERED),
        ((500, 200), Verdict.DELIVERED),
        ((500, 503), Verdict.FAILED),
        ((400, 400), Verdict.FAILED),
    ],
)
async def test_one_peer_that_has_it_is_enough(answers, verdict):
    outcome = await told(*(Peer(answer(status)) for status in answers))
    assert outcome.verdict is verdict
    assert outcome.reason.startswith("http://127.0.0.1:")


async def test_a_peer_that_hangs_does_not_delay_the_others(mock_clock):
    hangs, works = Peer(None), Peer(answer())

    async def hasten() -> None:
        while not hangs.requests or not works.requests:
            await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hasten)
        assert (await told(hangs, works)).verdict is Verdict.DELIVERED


async def test_peers_with_open_breakers_defer():
    async with listening(Peer(answer(503))) as peer:
        sender = alertmanager(f"http://127.0.0.1:{peer.port}")
        outcomes = [(await sender.send([Message(alert=raised())], NOW_NS)).verdict for _ in range(6)]
        assert outcomes == [Verdict.FAILED] * 5 + [Verdict.DEFERRED]
        assert sender.statistics(0)[f"http://127.0.0.1:{peer.port}"].opened == 1


def test_labels_identify_the_alert_and_annotations_describe_it():
    alert = raised()
    message = Message(alert=alert)
    assert alertmanager_alert(message, NOW_NS + 240 * S) == {
        "labels": {"alertname": "wide", "severity": "critical", "symbol": "AAPL", "key": alert.key},
        "annotations": {"summary": "AAPL: spread of 60.5 bps", "value": "60.5", "threshold": "50"},
        "startsAt": "2026-11-27T18:00:00.000001Z",
        "endsAt": "2026-11-27T18:04:00.000000Z",
    }


def test_an_end_ends_the_same_alert():
    alert = msgspec.structs.replace(raised(), symbol="", value=None, threshold=None)
    end = End(cause="resolved", at_ns=NOW_NS + 5 * S, by="ann", comment="seen")
    lasts = alertmanager_alert(Message(alert=alert), NOW_NS)
    ended = alertmanager_alert(Message(alert=alert, end=end), NOW_NS + 240 * S)
    assert (
        ended["labels"] == lasts["labels"] == {"alertname": "wide", "severity": "critical", "key": alert.key}
    )
    assert ended["endsAt"] == "2026-11-27T18:00:05.000000Z"
    assert ended["annotations"] == {"summary": alert.message, "resolved_by": "ann", "comment": "seen"}


def test_an_alert_never_ends_before_it_starts():
    end = End(cause="cleared", at_ns=NOW_NS - S)
    ended = alertmanager_alert(Message(alert=raised(), end=end), 0)
    assert ended["endsAt"] == ended["startsAt"]


def test_peers_behind_one_proxy_are_told_apart():
    sender = alertmanager("http://10.0.0.1/am1", "http://10.0.0.1/am2")
    assert list(sender.statistics(0)) == ["http://10.0.0.1:80", "http://10.0.0.1:80#1"]
    assert sender.resend_s == 60
    assert sender.batch == 256


def test_all_mistakes_are_found_at_once():
    with pytest.raises(ConfigError) as found:
        alertmanager("http://10.0.0.1", "http://10.0.0.1/", "nowhere", "http://a/?x")
    assert [line.partition(":")[0] for line in found.value.mistakes] == ["urls.1", "urls.2", "urls.3"]
