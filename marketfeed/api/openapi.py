"""The OpenAPI document of the gateway's port and of the admin port. Source: OpenAPI 3.1.0."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

import msgspec

from marketfeed import __version__
from marketfeed.api import access_operations, alert_operations, answers, cluster, engine, operations, usage
from marketfeed.api.messages import Quote, Trade
from marketfeed.api.routes import (
    ADMIN,
    EVERYWHERE,
    JSON,
    PROBE,
    PUBLIC,
    TEXT,
    Route,
    json_answer,
    struct_answer,
    text_answer,
)
from marketfeed.api.schemas import array_of, ref, strict, tolerant

LATENCY: Final = "/v1/latency"  # on both ports
RETRY_AFTER: Final = {
    "description": "Seconds to wait before the next attempt.",
    "schema": {"type": "integer", "minimum": 1},
}
CHALLENGE: Final = {"description": "`Bearer`.", "schema": {"type": "string", "const": "Bearer"}}
HEADERS: Final = {  # of errors, by status
    401: {"WWW-Authenticate": CHALLENGE},
    429: {"Retry-After": RETRY_AFTER},
    503: {"Retry-After": RETRY_AFTER},
}
TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key or token, if `auth.mode` is `keys` or `jwt`.",
}
ADMIN_TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "The token in `admin.token_file`. Without that key, none is required.",
}
CURSOR: Final = {"description": "Send it as `after` of the next poll.", "schema": {"type": "string"}}
SOURCE: Final = {
    "description": "`stale`: the source of ticks is not heard, and the answer may be out of date.",
    "required": False,  # absent while it is heard
    "schema": {"type": "string", "const": "stale"},
}
POLLED: Final = {"X-Cursor": CURSOR, "X-Source": SOURCE}
ETAG: Final = {"description": "Version of the answer, for If-None-Match.", "schema": {"type": "string"}}
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
    Route(
        "/v1/stream",
        "Open a WebSocket; asyncapi.json describes its messages.",
        None,
        (*EVERYWHERE, 426),
        answers.StreamParameters,
        HANDSHAKE,
        answers={"101": {"description": "The connection becomes a WebSocket."}},
    ),
    Route(
        "/v1/events",
        "Receive Server-Sent Events; asyncapi.json describes their data.",
        text_answer("text/event-stream", "An unbounded stream of events."),
        EVERYWHERE,
        answers.EventsParameters,
        RESUME,
    ),
    Route(
        "/v1/poll",
        "Wait for what is new since a cursor (long poll).",
        {**json_answer(ref(answers.PollAnswer), "What is new."), "headers": POLLED},
        EVERYWHERE,
        answers.PollParameters,
        answers={"204": {"description": "Nothing new before the timeout.", "headers": POLLED}},
    ),
    Route(
        "/v1/quotes",
        "Get the latest quote of each symbol (short poll).",
        {**json_answer(array_of([Quote]), "In order of `g`."), "headers": {"X-Source": SOURCE}},
        parameters=answers.LatestParameters,
        tagged=True,
    ),
    Route(
        "/v1/trades",
        "Get the latest trade of each symbol (short poll).",
        {**json_answer(array_of([Trade]), "In order of `g`."), "headers": {"X-Source": SOURCE}},
        parameters=answers.LatestParameters,
        tagged=True,
    ),
    Route(
        "/v1/symbols",
        "Get all symbols.",
        {**json_answer(ref(answers.SymbolList), "All symbols."), "headers": {"X-Source": SOURCE}},
    ),
    Route(
        "/v1/tickets",
        "Get a ticket for the URL of an event stream or WebSocket.",
        None,
        answers={"201": struct_answer(answers.TicketAnswer)},
        method="POST",
    ),
    *alert_operations.GATEWAY,
    Route(
        LATENCY,
        "Get latencies, per tier and hop.",
        json_answer(ref(answers.Latency), "Latencies; `log` on the admin port only."),
    ),
    Route(
        "/v1/engine",
        "Get version, tiers, the state of feeds, and what the token gives.",
        struct_answer(engine.EngineAnswer),
    ),
    Route(
        "/v1/nodes",
        "List the engines of the cluster that clients can use.",
        json_answer({"type": "array", "items": ref(engine.NodeRow)}, "Engines; without a cluster, this one."),
        parameters=engine.NodesParameters,
    ),
    Route("/", "Get the page.", text_answer("text/html", "The page."), PUBLIC, tagged=True),
    Route(
        "/page/{file}",
        "Get a file of the page.",
        text_answer("*/*", "The file."),
        (*PUBLIC, 404),
        tagged=True,
    ),
    Route(
        "/marketfeed.js",
        "Get the browser client, an ES module.",
        text_answer("text/javascript", "The module."),
        PUBLIC,
        tagged=True,
    ),
    Route(
        "/marketfeed-inflate.js",
        "Get the decompressor of the browser client, an ES module.",
        text_answer("text/javascript", "The module."),
        PUBLIC,
        tagged=True,
    ),
    Route(
        "/marketfeed-nodes.js",
        "Get the part of the browser client that uses other engines of a cluster, an ES module.",
        text_answer("text/javascript", "The module."),
        PUBLIC,
        tagged=True,
    ),
    Route(
        "/marketfeed-{hash}.js",
        "Get this version of the browser client; `sdk` of `/v1/engine` is the path.",
        text_answer("text/javascript", "The module, which never changes."),
        (*PUBLIC, 404),
        tagged=True,
    ),
    Route(
        "/asyncapi.json",
        "Get the AsyncAPI document.",
        json_answer({"type": "object"}, "The document."),
        PUBLIC,
        tagged=True,
    ),
    Route(
        "/openapi.json",
        "Get this document.",
        json_answer({"type": "object"}, "The document."),
        PUBLIC,
        tagged=True,
    ),
    Route("/robots.txt", "Exclude crawlers.", text_answer(TEXT, "Rules for crawlers."), PUBLIC, tagged=True),
)
OPERATORS: Final = (
    Route("/metrics", "Get metrics in Prometheus's format.", text_answer(TEXT, "Metrics."), ADMIN),
    Route(
        "/healthz",
        "Check whether the engine runs.",
        json_answer(ref(operations.HealthAnswer), "It does."),
        PROBE,
    ),
    Route(
        "/readyz",
        "Check whether the engine can serve subscribers.",
        json_answer(ref(operations.ReadinessAnswer), "It is ready."),
        PROBE,
        answers={
            "503": json_answer(
                ref(operations.ReadinessAnswer), "It is not ready; `problems` lists the reasons."
            )
        },
    ),
    Route(
        "/v1/latency/log",
        "Get the present file of the latency log, an HdrHistogram interval log.",
        text_answer(TEXT, "The file."),
        (*ADMIN, 404),
    ),
    Route(
        "/v1/latency/report",
        "Get the report about that file, as `marketfeed report --html` makes it.",
        text_answer("text/html", "The report."),
        (*ADMIN, 503),
    ),
    Route(
        "/v1/sessions",
        "List sessions, the slow ones first.",
        json_answer(ref(operations.SessionList), "Sessions."),
        ADMIN,
        operations.SessionsParameters,
    ),
    Route(
        "/v1/usage",
        "Get usage by user or tenant, or distinct users by symbol prefix.",
        json_answer(ref(usage.UsageAnswer), "`prefixes` with `by=symbols`, else `rows`."),
        (*ADMIN, 503),
        usage.UsageParameters,
    ),
    Route(
        "/v1/cluster",
        "Get the nodes of the engine's cluster.",
        json_answer(ref(cluster.ClusterAnswer), "The cluster as this node sees it."),
        (*ADMIN, 503),
    ),
    *alert_operations.OPERATORS,
    *access_operations.OPERATORS,
)
BODIES: Final = (*alert_operations.BODIES, *access_operations.BODIES)

STRUCTS: Final[tuple[type[Any], ...]] = (
    Quote,
    Trade,
    answers.ErrorAnswer,
    answers.PollAnswer,
    answers.SymbolList,
    answers.Latency,
    answers.TicketAnswer,
    engine.EngineAnswer,
    engine.NodeRow,
    operations.HealthAnswer,
    operations.ReadinessAnswer,
    operations.SessionList,
    usage.UsageAnswer,
    cluster.ClusterAnswer,
    *alert_operations.STRUCTS,
    *access_operations.STRUCTS,
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


def _parameters(route: Route) -> list[dict[str, Any]]:
    """Return the parameters of ``route``; lists are separated by commas."""
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    found += [{"name": name, "in": "header", **about} for name, about in route.headers.items()]
    if route.parameters is None:
        return found
    properties: dict[str, dict[str, Any]] = strict([route.parameters])[route.parameters.__name__][
        "properties"
    ]
    for name, schema in properties.items():
        parameter: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
        if name in route.required:
            parameter["required"] = True
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": False, "allowReserved": True}
        found.append(parameter)
    return found


def _responses(route: Route) -> dict[str, Any]:
    found = dict(route.answers)
    if route.ok is not None:
        headers = route.ok.get("headers", {}) | ({"ETag": ETAG} if route.tagged else {})
        found["200"] = route.ok | ({"headers": headers} if headers else {})
    if route.tagged:
        found["304"] = {"description": "Not changed since If-None-Match.", "headers": {"ETag": ETAG}}
    for status in route.errors:
        found[str(status)] = {"$ref": f"#/components/responses/{status}"}
    found["default"] = {"$ref": "#/components/responses/error"}
    return found


def _operation(route: Route) -> dict[str, Any]:
    name = route.path.strip("/").removeprefix("v1/").removesuffix(".json").removesuffix(".txt") or "index"
    operation: dict[str, Any] = {
        "operationId": name if route.method == "GET" else f"{name}/{route.method.lower()}",
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if 401 in route.errors:
        schemes = ["admin_token"] * (route not in GATEWAY or route.path == LATENCY)
        schemes += ["token"] * (route in GATEWAY)
        operation["security"] = [*({scheme: []} for scheme in schemes), {}]
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": ref(route.body)}}}
    return operation


def _paths() -> dict[str, Any]:
    """Return what each path supports, by method."""
    found: dict[str, Any] = {}
    for route in (*GATEWAY, *OPERATORS):
        item = found.setdefault(route.path, {})
        item[route.method.lower()] = _operation(route)
        if route in OPERATORS:
            item["servers"] = [ADMIN_SERVER]
        elif route.path == LATENCY:
            item["servers"] = [GATEWAY_SERVER, ADMIN_SERVER]
    return found


def _error(description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = json_answer(ref(answers.ErrorAnswer), description)
    return answer | ({"headers": headers} if headers else {})


def _document() -> dict[str, Any]:
    """Return the document."""
    errors = {str(status): _error(text, HEADERS.get(status)) for status, text in answers.STATUSES.items()}
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
        "paths": _paths(),
        "components": {
            "responses": {**errors, "error": _error("Any other error; `code` is its status.")},
            "securitySchemes": {"admin_token": ADMIN_TOKEN, "token": TOKEN},
            "schemas": {**strict(BODIES), **tolerant(STRUCTS)},
        },
    }


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(_document())
