"""Checks what test clients send and receive against the strict form of the published documents.

The strict form refuses fields that are not described. Of each shape of message, which is its type and its
keys, the first MOST are validated, and one in SAMPLE after that: a validation takes some 0.1 ms, and clients
at full rate would become too slow for what they test. The same goes for the rows of one answer.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websockets_connect

from marketfeed.api import answers, messages, openapi, routes
from marketfeed.api.requests import REQUESTS
from marketfeed.api.schemas import ref, strict
from marketfeed.gateway.files import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST: Final = 50
SAMPLE: Final = 200
DOCUMENT: Final = json.loads(openapi.document())
SCHEMAS: Final = strict([*messages.ON_STREAM, *REQUESTS.values(), *openapi.STRUCTS])
BY_TYPE: Final = {struct.__struct_config__.tag: struct for struct in messages.ON_STREAM}
ON_EVENTS: Final = {struct.__struct_config__.tag for struct in messages.ON_EVENTS}
ANY: Final = "*/*"
ON_POLLS: Final = {"q", "t", "gap"}
seen: dict[tuple[Any, ...], int] = {}  # messages by shape


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(schema), "components": {"schemas": SCHEMAS}})


def validate(value: Any, schema: Mapping[str, Any]) -> None:
    """Raise AssertionError if ``value`` does not match ``schema``, which may refer to SCHEMAS."""
    errors = list(_validator(json.dumps(schema)).iter_errors(value))
    assert not errors, f"{value!r:.500}: {[(error.json_path, error.message[:300]) for error in errors]}"


def _chosen(shape: tuple[Any, ...]) -> bool:
    """Count one more of ``shape``; tell whether this one is to be validated."""
    count = seen[shape] = seen.get(shape, 0) + 1
    return count <= MOST or count % SAMPLE == 0


def _struct_of(message: Mapping[str, Any]) -> type[Any]:
    """Return the struct of a message; two structs share the type ``success``."""
    assert message["T"] in BY_TYPE, f"an unknown type: {message!r:.300}"
    if message["T"] == "success":
        return messages.Connected if message.get("msg") == "connected" else messages.Authenticated
    return BY_TYPE[message["T"]]


def check_messages(received: Iterable[Mapping[str, Any]]) -> None:
    """Check messages of the engine, as in a frame, in an event or in the body of a poll."""
    for message in received:
        if _chosen((message["T"], *message)):
            validate(message, ref(_struct_of(message)))


def check_event(received: list[dict[str, Any]]) -> None:
    """Check the messages of an event of ``/v1/events``."""
    assert ON_EVENTS.issuperset(message["T"] for message in received)
    check_messages(received)


def check_poll(body: Mapping[str, Any]) -> None:
    """Check the body of a long poll, its messages as those of a frame."""
    assert ON_POLLS.issuperset(message["T"] for message in body["messages"])
    check_messages(body["messages"])
    if _chosen(("a poll", *body)):
        validate({**body, "messages": []}, ref(answers.PollAnswer))


def check_request(text: str | bytes) -> None:
    """Check a request of a client that the engine is to accept."""
    request = json.loads(text)
    assert request.get("action") in REQUESTS, f"{request!r:.300}"
    if _chosen(("a request", *request)):
        validate(request, ref(REQUESTS[request["action"]]))


def check_answer(method: str, target: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Check an answer over HTTP; ``headers`` by name in lower case.

    Answers of others, such as a proxy's, are passed over: their errors are not JSON.
    """
    if headers.get("server") != "marketfeed" and not headers.get("content-type", "").startswith(routes.JSON):
        return
    path = re.sub("^https?://[^/]*", "", target).partition("?")[0]
    operation = "get" if method == "HEAD" else method.lower()
    responses = _paths().get(path, {}).get(operation, {}).get("responses", {})
    described = responses.get(str(status), responses.get("default", {"$ref": "#/components/responses/error"}))
    if "$ref" in described:
        assert 400 <= status < 600, f"{method} {target}: {status} is not described"
        described = DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]]
    # Nobody knows when what is off, or whose file cannot be used, comes back.
    retried = status != 503 or not path.startswith(("/v1/alerts", "/v1/revo", "/v1/latency/"))
    for name, header in described.get("headers", {}).items() if retried else ():
        absent = name.lower() not in headers and header.get("required", True)
        assert not absent, f"{method} {target}: {status} without {name}"
    content = described.get("content", {})
    if method == "HEAD" or not body:
        return
    media = headers["content-type"].partition(";")[0]
    assert media in content or ANY in content, f"{method} {target}: {status} with {media}"
    if media == routes.JSON:
        validate(_sampled(json.loads(body)), content[media]["schema"])


@cache
def _paths() -> dict[str, Any]:
    """Return what the document says of each path, those of static files by their own names."""
    paths = DOCUMENT["paths"]
    return paths | {path: paths[label] for path, label in files().labels.items()}


def _sampled(answer: Any) -> Any:
    """Return ``answer`` without most of the rows of its long lists."""
    if not isinstance(answer, dict):
        return answer
    rows = {name: value for name, value in answer.items() if isinstance(value, list)}
    return {**answer, **{name: value[:MOST] + value[MOST::SAMPLE] for name, value in rows.items()}}


class CheckedConnection(ClientConnection):
    """A WebSocket whose requests and text frames are checked; of the frames the first MOST, and then samples.

    ``recv(decode=False)`` is for tests that must not parse while they read; these check what they kept.
    """

    frames = 0

    def send(self, message: Any, **options: Any) -> None:
        check_request(message)
        super().send(message, **options)

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Any:
        frame = super().recv(timeout, decode)
        self.frames += 1
        if isinstance(frame, str) and (self.frames <= MOST or self.frames % SAMPLE == 0):
            check_messages(json.loads(frame))
        return frame


def connect(url: str, **options: Any) -> CheckedConnection:
    """Open a checked WebSocket; ``options`` are those of websockets."""
    connection = websockets_connect(url, create_connection=CheckedConnection, **options)
    assert isinstance(connection, CheckedConnection)
    return connection
