"""The tables of docs/protocol.md list what the published documents describe, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from marketfeed.api import alerts, answers, messages, openapi, operations, schemas
from marketfeed.api.requests import REQUESTS
from marketfeed.errors import CloseCode, ErrorCode

PAGE = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text("utf-8")
OPENAPI = json.loads(openapi.document())
ADMIN_PATHS = (*openapi.OPERATORS, *(path for path in openapi.GATEWAY if path.path == openapi.LATENCY))
NEVER_SENT = {CloseCode.SLOW, CloseCode.ABNORMAL}  # what the engine counts where it sends no close frame


def section(title):
    """Return the text below the heading ``title``, up to the next."""
    (found,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return found


def tables(title):
    """Return the tables of a section: of each its rows, without head, as lists of cells."""
    found = re.findall(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section(title), re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()]
        for table in found
    ]


def codes(text):
    """Return the words in code style in ``text``."""
    return re.findall(r"`([^`]+)`", text)


def numbers(text):
    return {int(number) for number in re.findall(r"\b\d{3,4}\b", text)}


def properties(struct):
    return set(schemas.strict([struct])[struct.__name__]["properties"])


def keys(struct):
    """Return the keys of a message, without its type and the id of the request that it answers."""
    return properties(struct) - ({"T", "id"} if issubclass(struct, messages.Answer) else {"T"})


def test_requests_and_their_keys():
    (rows,) = tables("Requests")
    assert [codes(row[0])[0] for row in rows] == list(REQUESTS)
    for row, struct in zip(rows, REQUESTS.values(), strict=True):
        assert set(codes(row[1])) == properties(struct) - {"action", "id"}


def test_messages_and_their_keys():
    (rows,) = tables("Messages")
    listed = {(codes(row[0])[0], *sorted(set(codes(row[1])) - {"after"})) for row in rows}
    assert len(listed) == len(rows) == len(messages.ON_STREAM)
    assert listed == {(struct.__struct_config__.tag, *sorted(keys(struct))) for struct in messages.ON_STREAM}


def test_every_field_of_a_message_that_may_be_absent_is_said_to_be():
    (rows,) = tables("Messages")
    for row in rows:
        tag, listed = codes(row[0])[0], set(codes(row[1]))
        (struct,) = (
            one
            for one in messages.ON_STREAM
            if one.__struct_config__.tag == tag and listed - {"after"} == keys(one)
        )
        required = set(schemas.strict([struct])[struct.__name__]["required"]) - {"T"}
        if tag != "pong":  # what it repeats may be absent
            assert set(codes(row[1].partition(";")[0])) == required


def test_error_codes():
    (rows,) = tables("Errors")
    (reserved,) = re.findall(r"Reserved for later versions: (.*?)\.\n\n", section("Errors"), re.DOTALL)
    used = {int(row[0]) for row in rows}
    assert used | numbers(reserved) == set(ErrorCode)
    assert not used & numbers(reserved)


def test_close_codes():
    (rows,) = tables("Close codes")
    assert {int(row[0]) for row in rows} == set(CloseCode) - NEVER_SENT
    for code, _, reconnect in rows:
        assert int(code) < 4500 or reconnect == "no"


@pytest.mark.parametrize(
    ("title", "paths"),
    [("Over HTTP", openapi.GATEWAY), ("On the admin port", ADMIN_PATHS)],
)
def test_routes(title, paths):
    rows = tables(title)[0]
    assert {f"`{path.method} {path.path}`" for path in paths} == {row[0] for row in rows}
    assert len(rows) == len(paths)


def test_status_codes():
    (rows,) = tables("Status codes and limits")
    listed = [int(row[0]) for row in rows]
    assert listed == list(answers.STATUSES)
    used = {
        int(status)
        for item in OPENAPI["paths"].values()
        for method in item.keys() - {"servers"}
        for status in item[method]["responses"]
        if status.isdigit() and int(status) >= 400
    }
    assert used <= set(listed)


@pytest.mark.parametrize(
    ("title", "struct"),
    [
        ("Events", answers.EventsParameters),
        ("Long polls", answers.PollParameters),
        ("Short polls", answers.LatestParameters),
        ("Alerts over HTTP", alerts.AlertsParameters),
        ("History of alerts", alerts.HistoryParameters),
    ],
)
def test_parameters(title, struct):
    (rows,) = tables(title)
    assert [name for row in rows for name in codes(row[0])] == list(struct.__struct_fields__)


@pytest.mark.parametrize(
    ("title", "position", "struct"),
    [
        ("On the admin port", 1, operations.SessionList),
        ("On the admin port", 2, operations.SessionRow),
        ("Consumers of alerts", 0, alerts.ConsumerRow),
        ("Consumers of alerts", 1, alerts.DeadLetterRow),
    ],
)
def test_fields_of_answers_on_the_admin_port(title, position, struct):
    rows = tables(title)[position]
    assert [codes(cells[0])[0] for cells in rows] == list(struct.__struct_fields__)
    schema = schemas.strict([struct])[struct.__name__]["properties"]
    for name, words, _ in rows:
        assert words == type_words(schema[name.strip("`")])


def type_words(schema):
    """Return what the docs call the type of a field."""
    if "anyOf" in schema:
        return ", ".join(type_words(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return "object"
    return {"integer": "number", "array": "list"}.get(schema["type"], schema["type"])
