"""The published documents: valid, complete, and in agreement with the code that they describe."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import marketfeed
from marketfeed.admin.health import Phase
from marketfeed.admin.listener import OPEN, Admin
from marketfeed.api import answers, asyncapi, messages, openapi, operations, schemas
from marketfeed.api.requests import REQUESTS
from marketfeed.core.symbols import is_pattern, is_symbol
from marketfeed.errors import CloseCode
from marketfeed.fanout.wire import ENCODINGS
from marketfeed.gateway.query import MAX_TIMEOUT_S
from marketfeed.gateway.session import SILENT
from marketfeed.ingest.supervise import FeedState
from marketfeed.server.sessions import SHOWN_STATES
from tests.support.live import serving
from tests.support.peers import MODULES

ASYNCAPI = json.loads(asyncapi.document())
OPENAPI = json.loads(openapi.document())
SPECS = MODULES / "@asyncapi" / "specs" / "schemas" / "3.0.0-without-$id.json"


def references(value):
    """Yield every reference in ``value``."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)


def resolved(document, ref):
    assert ref.startswith("#/"), ref
    found = document
    for key in ref.removeprefix("#/").split("/"):
        found = found[key]
    return found


def test_the_openapi_document_is_valid():
    assert OPENAPI["openapi"] == "3.1.0"
    assert not list(OpenAPIV31SpecValidator(OPENAPI).iter_errors())


def test_the_asyncapi_document_is_valid():
    if not SPECS.exists():
        pytest.skip("needs: npm install --prefix .venv/foreign @asyncapi/specs@6")
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert not list(Draft7Validator(json.loads(SPECS.read_text())).iter_errors(ASYNCAPI))


@pytest.mark.parametrize("document", [ASYNCAPI, OPENAPI], ids=["asyncapi", "openapi"])
def test_a_document_refers_to_nothing_that_it_does_not_hold(document):
    found = list(references(document))
    assert found
    assert all(resolved(document, ref) for ref in found)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
        assert schema["description"]
    assert document["info"]["version"] == marketfeed.__version__


def test_channels_have_messages_and_operations_have_channels():
    channels = ASYNCAPI["channels"]
    assert all(channel["messages"] for channel in channels.values())
    used = set()
    for operation in ASYNCAPI["operations"].values():
        channel = operation["channel"]["$ref"].removeprefix("#/channels/")
        sent = [*operation["messages"], *operation.get("reply", {}).get("messages", [])]
        assert all(message["$ref"].startswith(f"#/channels/{channel}/messages/") for message in sent)
        used |= {message["$ref"] for message in sent}
    assert used == {
        f"#/channels/{name}/messages/{message}" for name in channels for message in channels[name]["messages"]
    }


@pytest.mark.parametrize("document", [ASYNCAPI, OPENAPI], ids=["asyncapi", "openapi"])
def test_clients_may_receive_fields_of_later_versions_and_send_none(document):
    requests = {struct.__name__ for struct in (*REQUESTS.values(), *openapi.BODIES)}
    for name, schema in document["components"]["schemas"].items():
        closed = schema.get("additionalProperties") is False
        assert closed == (name in requests), name


def test_the_strict_form_refuses_fields_that_are_not_described():
    strict = schemas.strict([*messages.ON_STREAM, answers.PollAnswer, operations.SessionList])
    assert len(strict) > len(messages.ON_STREAM)
    assert all(schema["additionalProperties"] is False for schema in strict.values())
    beat = Draft202012Validator(strict["Heartbeat"])
    assert beat.is_valid({"T": "heartbeat", "t": 1})
    assert not beat.is_valid({"T": "heartbeat", "t": 1, "new": 1})
    assert Draft202012Validator(schemas.tolerant([messages.Heartbeat])["Heartbeat"]).is_valid(
        {"T": "heartbeat", "t": 1, "new": 1}
    )


def methods_of(server):
    """Return the pairs of a path and a method that are served; paths as they are described."""
    described_as = server._rules.labels.get
    return {
        (described_as(path, path), method) for path, methods in server._routes.items() for method in methods
    }


def described(routes):
    """Return the pairs of a path and a method that are described, each once."""
    found = [(route.path, route.method) for route in routes]
    assert len(set(found)) == len(found)
    return set(found)


async def test_every_route_of_the_gateway_is_described_with_its_parameters():
    async with serving() as live:
        assert methods_of(live.gateway.routes.server) == described(openapi.GATEWAY)


def test_every_route_of_the_admin_listener_is_described():
    class Nothing:
        def __getattr__(self, name):
            return self

    nothing: Any = Nothing()
    server = Admin(nothing, nothing, nothing).server
    assert methods_of(server) == described(openapi.OPERATORS) | {(openapi.LATENCY, "GET")}


def test_every_route_that_requires_the_admin_token_says_so():
    for route in (*openapi.OPERATORS, *openapi.GATEWAY):
        operation = OPENAPI["paths"][route.path][route.method.lower()]
        required = route.path not in OPEN and (route.path.startswith("/v1/") or route in openapi.OPERATORS)
        assert ("401" in operation["responses"]) == ("security" in operation) == required
        named = {scheme for one in operation.get("security", ()) for scheme in one}
        gateway = {"token"} if route in openapi.GATEWAY else set()
        admin = {"admin_token"} if route in openapi.OPERATORS or route.path == openapi.LATENCY else set()
        assert named == ((gateway | admin) if required else set())


def enum_of(struct, name):
    """Return the values of the property ``name`` of ``struct``, or of the values of a property."""
    schema = schemas.strict([struct])[struct.__name__]["properties"][name]
    return set(schema.get("enum") or schema["additionalProperties"]["enum"])


def test_enumerations_hold_what_the_code_can_send():
    assert enum_of(operations.ReadinessAnswer, "feeds") == {state.value for state in FeedState}
    phases = {phase.value for phase in Phase} - {Phase.SERVING.value}
    assert enum_of(operations.ReadinessAnswer, "status") == phases | {"ready", "not ready"}
    assert enum_of(operations.SessionRow, "state") == set(SHOWN_STATES.values())
    assert enum_of(messages.Subscription, "encoding") == set(ENCODINGS)
    assert enum_of(messages.Closing, "code") == {
        int(code)
        for code in CloseCode
        if code not in SILENT and code not in (CloseCode.SLOW, CloseCode.ABNORMAL)
    }


def test_patterns_are_those_of_symbols_and_names():
    names = Draft202012Validator(schemas.strict([answers.PollAnswer])["PollAnswer"]["properties"]["reset"])
    symbols = Draft202012Validator(schemas.strict([messages.Gap])["Gap"]["properties"]["S"])
    some = [chr(code) for code in range(300)]
    some += ["", "A*", "*A", "**", "A" * 24, "A" * 25, "A" * 24 + "*", "A" * 25 + "*", "A B", "EUR/USD"]
    for text in some:
        assert symbols.is_valid(text) == is_symbol(text), text
        assert names.is_valid([text]) == (is_symbol(text) or is_pattern(text)), text


def test_limits_of_parameters_are_those_of_the_code():
    timeout = schemas.strict([answers.PollParameters])["PollParameters"]["properties"]["timeout_s"]
    assert timeout["maximum"] == MAX_TIMEOUT_S
