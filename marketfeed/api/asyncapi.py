"""The AsyncAPI document of ``/v1/stream`` and ``/v1/events``. Source: AsyncAPI 3.0.0.

The document describes the engine: it receives requests and sends frames and events.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from marketfeed import __version__
from marketfeed.api.messages import ON_EVENTS, ON_STREAM
from marketfeed.api.requests import REQUESTS
from marketfeed.api.schemas import array_of, strict, tolerant

MANUAL: Final = "docs/protocol.md of this version describes order, cursors, tiers and limits."
BINARY: Final = """\
One or more frames, back to back, little-endian: a header of 16 bytes (version u8 = 1, kind u8, flags u16, \
length u32 of the payload, sent_ns u64), then the payload. Kind 1: symbol ids, a JSON object. Kinds 2 and 3: \
quotes and trades, records of 64 bytes. Kind 4: a JSON array of the messages of a text frame that are not \
ticks. Kind 5: heartbeat, no payload. Kind 6, only with `compress` and alone in its message: a text frame in \
raw deflate, at most 1 MiB of text. docs/protocol.md, section Binary, has the layout of the records."""
PORT: Final = {"default": "8765", "description": "`gateway.port`"}


def _request(name: str) -> dict[str, Any]:
    struct = REQUESTS[name]
    return {
        "name": name,
        "title": struct.__name__,
        "summary": str(struct.__doc__),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
    }


def _document() -> dict[str, Any]:
    """Return the document."""
    stream = "#/channels/stream"
    frames = [{"$ref": f"{stream}/messages/{name}"} for name in ("frame", "binaryFrame")]
    operations: dict[str, Any] = {
        name: {
            "action": "receive",
            "channel": {"$ref": stream},
            "summary": str(struct.__doc__),
            "messages": [{"$ref": f"{stream}/messages/{name}"}],
            "reply": {"channel": {"$ref": stream}, "messages": frames},
        }
        for name, struct in REQUESTS.items()
    }
    operations["sendFrames"] = {
        "action": "send",
        "channel": {"$ref": stream},
        "summary": "Answers, snapshots and live ticks.",
        "messages": frames,
    }
    operations["sendEvents"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/events"},
        "summary": "Snapshots and live ticks as Server-Sent Events.",
        "messages": [{"$ref": "#/channels/events/messages/event"}],
        "bindings": {"http": {"method": "GET", "bindingVersion": "0.3.0"}},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "marketfeed",
            "version": __version__,
            "description": f"Real-time quotes and trades over WebSocket and Server-Sent Events. {MANUAL}",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {"host": "127.0.0.1:{port}", "protocol": "ws", "variables": {"port": PORT}},
            "http": {"host": "127.0.0.1:{port}", "protocol": "http", "variables": {"port": PORT}},
        },
        "channels": {
            "stream": {
                "address": "/v1/stream",
                "title": "WebSocket",
                "description": "Each frame of a client is one request."
                " Each frame of the engine is an array of messages, or binary.",
                "servers": [{"$ref": "#/servers/websocket"}],
                "messages": {
                    **{name: {"$ref": f"#/components/messages/{name}"} for name in REQUESTS},
                    "frame": {"$ref": "#/components/messages/frame"},
                    "binaryFrame": {"$ref": "#/components/messages/binaryFrame"},
                },
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            },
            "events": {
                "address": "/v1/events",
                "title": "Server-Sent Events",
                "description": "openapi.json of this version describes the parameters of the request.",
                "servers": [{"$ref": "#/servers/http"}],
                "messages": {"event": {"$ref": "#/components/messages/event"}},
            },
        },
        "operations": operations,
        "components": {
            "messages": {
                **{name: _request(name) for name in REQUESTS},
                "frame": {
                    "title": "Text frame",
                    "summary": "An array of messages; encoding `json`.",
                    "contentType": "application/json",
                    "payload": array_of(ON_STREAM),
                },
                "binaryFrame": {
                    "title": "Binary frame",
                    "summary": "Encoding `binary`; or, with `compress`, a compressed text frame.",
                    "description": BINARY,
                    "contentType": "application/octet-stream",
                    "payload": {"type": "string", "format": "binary"},
                },
                "event": {
                    "title": "Event",
                    "summary": "The field data: an array of messages. The field id: the cursor after it.",
                    "contentType": "application/json",
                    "payload": array_of(ON_EVENTS),
                },
            },
            "schemas": {**strict(REQUESTS.values()), **tolerant(ON_STREAM)},
        },
    }


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(_document())
