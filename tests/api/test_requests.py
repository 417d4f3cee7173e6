"""The schemas of requests accept what the gateway accepts."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from marketfeed.api import asyncapi
from marketfeed.api.requests import REQUESTS, Subscribe, Unsubscribe
from marketfeed.errors import RequestError
from marketfeed.fanout.wire import ENCODINGS
from marketfeed.gateway.protocol import names_of, parse_request

DOCUMENT = json.loads(asyncapi.document())
SCHEMA = Draft202012Validator(
    {
        "oneOf": [{"$ref": f"#/components/schemas/{struct.__name__}"} for struct in REQUESTS.values()],
        "components": DOCUMENT["components"],
    }
)
SUBSCRIBE = {"action": "subscribe"}


def accepted(request):
    """Tell whether the gateway would carry ``request`` out, tiers and cursors aside."""
    try:
        parsed = parse_request(json.dumps(request))
        if isinstance(parsed, Subscribe | Unsubscribe):
            names_of(parsed)
        return not isinstance(parsed, Subscribe) or parsed.encoding in (None, *ENCODINGS)
    except RequestError:
        return False


@pytest.mark.parametrize(
    "request_",
    [
        SUBSCRIBE,
        {"action": "unsubscribe", "quotes": ["A", "B*", "*"], "trades": []},
        {"action": "ping", "t": 1.5, "id": 7},
        {"action": "ping", "t": "x"},
        {"action": "ping", "t": None, "id": None},
        {"action": "ping", "t": True},
        {"action": "ping", "t": [1]},
        {"action": "ping", "t": 2**64 - 1},
        {"action": "auth"},
        {"action": "auth", "token": 1},
        {"action": "get"},
        {},
        [],
        "subscribe",
        SUBSCRIBE | {"id": "x" * 256},
        SUBSCRIBE | {"id": "x" * 257},
        SUBSCRIBE | {"id": 2**64 - 1},
        SUBSCRIBE | {"id": 2**64},
        SUBSCRIBE | {"id": -(2**63)},
        SUBSCRIBE | {"id": -(2**63) - 1},
        SUBSCRIBE | {"id": [1]},
        SUBSCRIBE | {"quotes": "A"},
        SUBSCRIBE | {"quotes": [1]},
        SUBSCRIBE | {"quotes": ["A" * 24]},
        SUBSCRIBE | {"quotes": ["A" * 25]},
        SUBSCRIBE | {"quotes": [""]},
        SUBSCRIBE | {"trades": ["A B"]},
        SUBSCRIBE | {"trades": ["*A"]},
        SUBSCRIBE | {"encoding": "binary", "tier": "vip", "after": "e1:1"},
        SUBSCRIBE | {"encoding": "xml"},
        SUBSCRIBE | {"tier": 1},
        SUBSCRIBE | {"after": 1},
        SUBSCRIBE | {"new": 1},
    ],
    ids=lambda request: json.dumps(request)[:40],
)
def test_a_request_is_accepted_if_and_only_if_it_is_valid(request_):
    assert SCHEMA.is_valid(request_) == accepted(request_)
