"""The tables of docs/clients.md list what both clients have, and nothing else."""

from __future__ import annotations

import inspect
import pkgutil
import re
from pathlib import Path
from typing import get_args

import marketfeed.client
from marketfeed.client.messages import Message
from marketfeed.errors import MarketfeedError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
TYPES = (ROOT / "js" / "types.d.ts").read_text("utf-8")


def rows(head):
    """Return the rows of the table that begins with ``head``, as lists of cells."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


def codes(text):
    """Return the words in code style in ``text``."""
    return re.findall(r"`([^`]+)`", text)


def keys(interface):
    """Return the keys of an interface in the types of marketfeed.js."""
    found = re.search(rf"^export interface {interface} {{\n(.*?)^}}", TYPES, re.DOTALL | re.MULTILINE)
    assert found is not None
    return set(re.findall(r"^  (?:readonly )?(\w+)[?<(:]", found[1], re.MULTILINE))


def test_messages_of_both_clients():
    table = rows("Python")
    assert {name for row in table for name in codes(row[0])} == {one.__name__ for one in get_args(Message)}
    listed = {tag for row in table for tag in codes(row[1])}
    assert listed <= set(re.findall(r'"(\w+)"', " ".join(re.findall(r"^  T: (.*);", TYPES, re.MULTILINE))))


def test_arguments_of_connect():
    listed = {name for row in rows("argument") for name in codes(row[0])}
    assert listed == set(inspect.signature(marketfeed.client.connect).parameters) - {"url"}


def test_options_of_marketfeed_js():
    assert {name for row in rows("option") for name in codes(row[0])} == keys("Options")


def test_events_of_marketfeed_js():
    assert {name for row in rows("event") for name in codes(row[0])} == keys("Events")


def test_methods_of_a_feed_in_javascript():
    text = PAGE.partition("\n## JavaScript\n")[2]
    assert set(re.findall(r"\bfeed\.(\w+)", text.replace("feed.example", ""))) == keys("Feed") - {
        "encoding",
        "tier",
    }


def test_errors_of_the_python_client():
    for row in rows("error"):
        (name,) = codes(row[0])
        assert issubclass(getattr(marketfeed.errors, name), MarketfeedError)


def test_names_of_the_python_client():
    named = set(
        re.findall(r"`([A-Z]\w+)`", PAGE.partition("\n## Python\n")[2].partition("\n## JavaScript\n")[0])
    )
    unknown = {
        name
        for name in named
        if not hasattr(marketfeed.client, name) and not hasattr(marketfeed.errors, name)
    }
    assert unknown <= {"False", "True", "None", "HOST:PORT", "QUOTE"}


def test_no_module_takes_the_place_of_a_name():
    """The import of a submodule sets the attribute of its name, also after ``__getattr__`` has set it."""
    modules = {module.name for module in pkgutil.iter_modules(marketfeed.client.__path__)}
    assert not modules & set(marketfeed.client.__all__)
