"""Request targets: what is a path, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.gateway.target import Target, TargetError, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/v1/symbols", Target("/v1/symbols")),
        ("/v1/quotes?symbols=A,B*&tier=", Target("/v1/quotes", {"symbols": ["A,B*"], "tier": [""]})),
        ("//x/v1/symbols", Target("//x/v1/symbols")),
        ("//x//v1/symbols?a=1", Target("//x//v1/symbols", {"a": ["1"]})),
        ("///v1/symbols", Target("///v1/symbols")),
        ("/v1/symbols/", Target("/v1/symbols/")),
        ("/%761/symbols", Target("/%761/symbols")),
        ("/http://x/v1/symbols", Target("/http://x/v1/symbols")),
        ("/v1/symbols;a=b", Target("/v1/symbols;a=b")),
        ("http://x/v1/symbols?a=1", Target("/v1/symbols", {"a": ["1"]}, "x")),
        ("HTTPS://x:1", Target("/", {}, "x:1")),
        ("http://x?a=1", Target("/", {"a": ["1"]}, "x")),
        ("http:////v1/symbols", Target("//v1/symbols", {}, "")),
        ("*", Target("*")),
    ],
)
def test_a_target_is_taken_as_it_is_written(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1/symbols",
        "x:443",
        "ftp://x/v1/symbols",
        "ws://x/v1/stream",
        "http:/v1/symbols",
        "?a=1",
        "/v1/symbols#a",
        "/v1/symbols?a#b",
        "/v1\\symbols",
        "\\\\x\\v1\\symbols",
        "/v1/symböls",
        "/v1/[",
        "/v1/\x00",
        "http:\\\\x/v1/symbols",
        "/a?" + "a&" * 101,
    ],
)
def test_what_is_no_target_is_refused(text):
    with pytest.raises(TargetError):
        parse_target(text)


@given(st.text(max_size=60))
def test_only_the_path_itself_is_the_path(text):
    try:
        target = parse_target(text)
    except TargetError:
        return
    if target.path == "/v1/symbols":
        assert text.lower().startswith(("/v1/symbols", "http://", "https://"))
