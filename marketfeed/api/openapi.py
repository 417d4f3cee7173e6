"""The OpenAPI document of the gateway's port and of the admin port. Source: OpenAPI 3.1.0."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import msgspec

from marketfeed import __version__
from marketfeed.api import answers, operations
from marketfeed.api.messages import Quote, Trade
from marketfeed.api.schemas import array_of, ref, strict, tolerant

JSON: Final = "application/json"
TEXT: Final = "text/plain"
LATENCY: Final = "/v1/latency"  # on both ports
EVERYWHERE: Final = (400, 403, 421, 429)  # errors that every route of the gateway may return
ADMIN: Final = (400, 421)
RETRY_AFTER: Final = {
    "description": "Seconds to wait before the next attempt.",
    "schema": {"type": "integer", "minimum": 1},
}
CURSOR: Final = {"description": "Send it as `after` of the next poll.", "schema": {"type": "string"}}
ETAG: Final = {"description": "Version of the answer, for If-None-Match.", "schema": {"type": "string"}}


@dataclass(frozen=True)
class Path:
    """A path that supports GET, and HEAD, whose answer has no body."""

    path: str
    summary: str
    ok: dict[str, Any] | None  # answer 200
    errors: tuple[int, ...] = EVERYWHERE
    parameters: type[Any] | None = None
    headers: dict[str, Any] = field(default_factory=dict)  # parameters in headers of the request
    answers: dict[str, Any] = field(default_factory=dict)  # other answers, by status
    tagged: bool = False  # has an ETag and answers 304 to a matching If-None-Match


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _text(media: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": {"type": "string"}}}}


HANDSHAKE: Final = {
    "Upgrade": {"required": True, "schema": {"type": "string", "const": "websocket"}},
    "Sec-WebSocket-Version": {"required": True, "schema": {"type": "string", "const": "13"}},
    "Sec-WebSocket-Key": {"required": True, "schema": {"type": "string"}},
}
RESUME: Final = {
    "Last-Event-ID": {
        "description": "Resume from this cursor; takes precedence over `after`; sent by browsers.",
        "schema": {"type": "string"},
    }
}
GATEWAY: Final = (
    Path(
        "/v1/stream",
        "Open a WebSocket; asyncapi.json describes its messages.",
        None,
        (*EVERYWHERE, 426, 503),
        headers=HANDSHAKE,
        answers={"101": {"description": "The connection becomes a WebSocket."}},
    ),
    Path(
        "/v1/events",
        "Receive Server-Sent Events; asyncapi.json describes their data.",
        _text("text/event-stream", "An unbounded stream of events."),
        (*EVERYWHERE, 503),
        answers.EventsParameters,
        RESUME,
    ),
    Path(
        "/v1/poll",
        "Wait for what is new since a cursor (long poll).",
        {**_json(ref(answers.PollAnswer), "What is new."), "headers": {"X-Cursor": CURSOR}},
        (*EVERYWHERE, 503),
        answers.PollParameters,
        answers={"204": {"description": "Nothing new before the timeout.", "headers": {"X-Cursor": CURSOR}}},
    ),
    Path(
        "/v1/quotes",
        "Get the latest quote of each symbol (short poll).",
        _json(array_of([Quote]), "In order of `g`."),
        parameters=answers.LatestParameters,
        tagged=True,
    ),
    Path(
        "/v1/trades",
        "Get the latest trade of each symbol (short poll).",
        _json(array_of([Trade]), "In order of `g`."),
        parameters=answers.LatestParameters,
        tagged=True,
    ),
    Path("/v1/symbols", "Get all symbols.", _json(ref(answers.SymbolList), "All symbols.")),
    Path(
        LATENCY,
        "Get latencies, per tier and hop.",
        _json(ref(answers.Latency), "Latencies; `log` on the admin port only."),
    ),
    Path(
        "/asyncapi.json",
        "Get the AsyncAPI document.",
        _json({"type": "object"}, "The document."),
        tagged=True,
    ),
    Path("/openapi.json", "Get this document.", _json({"type": "object"}, "The document."), tagged=True),
    Path("/robots.txt", "Exclude crawlers.", _text(TEXT, "Rules for crawlers."), tagged=True),
)
OPERATORS: Final = (
    Path("/metrics", "Get metrics in Prometheus's format.", _text(TEXT, "Metrics."), ADMIN),
    Path(
        "/healthz", "Check whether the engine runs.", _json(ref(operations.HealthAnswer), "It does."), ADMIN
    ),
    Path(
        "/readyz",
        "Check whether the engine can serve subscribers.",
        _json(ref(operations.ReadinessAnswer), "It is ready."),
        ADMIN,
        answers={
            "503": _json(ref(operations.ReadinessAnswer), "It is not ready; `problems` lists the reasons.")
        },
    ),
    Path(
        "/v1/sessions",
        "List sessions, the slow ones first.",
        _json(ref(operations.SessionList), "Sessions."),
        ADMIN,
        operations.SessionsParameters,
    ),
)

STRUCTS: Final = (
    Quote,
    Trade,
    answers.ErrorAnswer,
    answers.PollAnswer,
    answers.SymbolList,
    answers.Latency,
    operations.HealthAnswer,
    operations.ReadinessAnswer,
    operations.SessionList,
)


def _server(title: str, section: str, port: str) -> dict[str, Any]:
    return {
        "url": "http://{host}:{port}",
        "description": title,
        "variables": {
            "host": {"default": "127.0.0.1", "description": f"`{section}.host`"},
            "port": {"default": port, "description": f"`{section}.port`"},
        },
    }


GATEWAY_SERVER: Final = _server("The gateway: subscribers.", "gateway", "8765")
ADMIN_SERVER: Final = _server("The admin listener: operators.", "admin", "8766")


def _parameters(path: Path) -> list[dict[str, Any]]:
    """Return the parameters of ``path``; lists are separated by commas."""
    found = [{"name": name, "in": "header", **about} for name, about in path.headers.items()]
    if path.parameters is None:
        return found
    properties: dict[str, dict[str, Any]] = strict([path.parameters])[path.parameters.__name__]["properties"]
    for name, schema in properties.items():
        parameter: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": False, "allowReserved": True}
        found.append(parameter)
    return found


def _responses(path: Path) -> dict[str, Any]:
    found = dict(path.answers)
    if path.ok is not None:
        found["200"] = path.ok | ({"headers": {"ETag": ETAG}} if path.tagged else {})
    if path.tagged:
        found["304"] = {"description": "Not changed since If-None-Match.", "headers": {"ETag": ETAG}}
    for status in path.errors:
        found[str(status)] = {"$ref": f"#/components/responses/{status}"}
    found["default"] = {"$ref": "#/components/responses/error"}
    return found


def _item(path: Path) -> dict[str, Any]:
    name = path.path.strip("/").removeprefix("v1/").removesuffix(".json").removesuffix(".txt")
    item: dict[str, Any] = {
        "get": {
            "operationId": name,
            "summary": path.summary,
            "parameters": _parameters(path),
            "responses": _responses(path),
        }
    }
    if path in OPERATORS:
        item["servers"] = [ADMIN_SERVER]
    elif path.path == LATENCY:
        item["servers"] = [GATEWAY_SERVER, ADMIN_SERVER]
    return item


def _error(description: str, *headers: str) -> dict[str, Any]:
    answer = _json(ref(answers.ErrorAnswer), description)
    return answer | ({"headers": dict.fromkeys(headers, RETRY_AFTER)} if headers else {})


def _document() -> dict[str, Any]:
    """Return the document."""
    errors = {
        str(status): _error(text, *(("Retry-After",) if status in (429, 503) else ()))
        for status, text in answers.STATUSES.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "marketfeed",
            "version": __version__,
            "description": "Routes of the gateway and of the admin listener. HEAD works where GET does."
            " An unknown parameter is an error, except `_`, which is ignored.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [GATEWAY_SERVER],
        "paths": {path.path: _item(path) for path in (*GATEWAY, *OPERATORS)},
        "components": {
            "responses": {**errors, "error": _error("Any other error; `code` is its status.")},
            "schemas": tolerant(STRUCTS),
        },
    }


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(_document())
