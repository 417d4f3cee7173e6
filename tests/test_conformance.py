"""The checks that test clients make find what the published documents do not describe."""

from __future__ import annotations

import json

import pytest

from tests.support import conformance
from tests.support.conformance import MOST, SAMPLE, check_answer, check_event, check_messages, check_request

BEAT = {"T": "heartbeat", "t": 1}
SERVED = {"server": "marketfeed", "content-type": "application/json"}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(conformance, "seen", {})


def test_what_is_described_passes():
    check_messages([BEAT, {"T": "lag", "on": True}, {"T": "pong"}])
    check_request('{"action":"subscribe","quotes":["A","B*"],"id":7}')
    check_answer("GET", "/healthz", 200, SERVED, b'{"status":"ok","epoch":"e1"}')
    check_answer("GET", "/v1/nope", 404, SERVED, b'{"error":{"code":404,"msg":"no"}}')
    check_answer("GET", "/v1/poll?quotes=A", 204, {**SERVED, "x-cursor": "e1:1"}, b"")
    check_answer("GET", "/v1/events", 502, {"server": "nginx", "content-type": "text/html"}, b"<p>")


@pytest.mark.parametrize(
    "message",
    [
        {**BEAT, "new": 1},
        {"T": "heartbeat"},
        {"T": "heartbeat", "t": "1"},
        {"T": "unheard", "t": 1},
        {"T": "error", "code": 499, "msg": ""},
        {"T": "closing", "code": 1006, "msg": ""},
    ],
)
def test_a_message_that_is_not_described_is_found(message):
    with pytest.raises(AssertionError):
        check_messages([message])


def test_a_message_that_does_not_belong_in_events_is_found():
    with pytest.raises(AssertionError):
        check_event([BEAT])


@pytest.mark.parametrize(
    "sent", [{"action": "get"}, {"action": "ping", "u": 1}, {"action": "auth", "id": "x" * 257}]
)
def test_a_request_that_the_engine_refuses_is_found(sent):
    with pytest.raises(AssertionError):
        check_request(json.dumps(sent))


@pytest.mark.parametrize(
    ("target", "status", "headers", "body"),
    [
        ("/healthz", 200, SERVED, b'{"status":"ok","epoch":"e1","new":1}'),
        ("/healthz", 202, SERVED, b"{}"),
        ("/v1/poll", 204, SERVED, b""),
        ("/metrics", 200, SERVED, b"{}"),
        ("/v1/poll", 503, SERVED, b'{"error":{"code":503,"msg":"no Retry-After"}}'),
        ("/v1/poll", 400, SERVED, b'{"error":"bad"}'),
        ("/new", 200, SERVED, b"{}"),
    ],
)
def test_an_answer_that_is_not_described_is_found(target, status, headers, body):
    with pytest.raises(AssertionError):
        check_answer("GET", target, status, headers, body)


def test_of_many_messages_of_a_shape_a_sample_is_validated(monkeypatch):
    validated = []
    monkeypatch.setattr(conformance, "validate", lambda value, schema: validated.append(value["t"]))
    check_messages({**BEAT, "t": number} for number in range(1, 2 * SAMPLE + 1))
    assert validated == [*range(1, MOST + 1), SAMPLE, 2 * SAMPLE]
