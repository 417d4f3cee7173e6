"""Hosts and origins in configurations and in requests of browsers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.authority import (
    Authority,
    Origin,
    canonical_origin,
    host_problem,
    origin_problem,
    parse_authority,
    parse_origin,
)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("feed.example.com", Authority("feed.example.com", None, False)),
        ("FEED.example.com.:80", Authority("feed.example.com", 80, False)),
        ("a_b-1:", Authority("a_b-1", None, False)),
        ("127.0.0.1:8765", Authority("127.0.0.1", 8765, True)),
        ("[::1]:8765", Authority("[::1]", 8765, True)),
        ("[0:0::1]", Authority("[::1]", None, True)),
        ("[fe80::1%25eth0]:1", Authority("[fe80::1%eth0]", 1, True)),
    ],
)
def test_a_host_header_is_taken_apart(text, parsed):
    assert parse_authority(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]:x",
        "[127.0.0.1]",
        "127.1",
        "1.2.3.4.5",
        "0x7f.1",
        "a.0x7f",
        "127.0.0.1 evil",
        "127.0.0.1,evil",
        "user@127.0.0.1",
        "127.0.0.1/evil",
        "a:b",
        "a:65536",
        "a:-1",
        "a: 1",
        "a..b",
        ".a",
        "a b",
        "a\tb",
        "ä.de",
        "-a",
        "*",
        "*.a",
        "a" * 64,
        "a." * 127 + "a",
    ],
)
def test_what_is_neither_a_name_nor_an_address_is_none(text):
    assert parse_authority(text) is None


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text):
    parsed = parse_authority(text)
    assert parsed is None or parse_authority(parsed.host) == parsed._replace(port=None)
    origin_problem(text)
    host_problem(text)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("http://localhost:8765", Origin("http", "localhost", 8765)),
        ("https://X.example", Origin("https", "x.example", 443)),
        ("http://[::1]", Origin("http", "[::1]", 80)),
        ("http://x:80", Origin("http", "x", 80)),
        ("chrome-extension://abc", Origin("chrome-extension", "abc", None)),
        ("null", None),
        ("", None),
        ("https://", None),
        ("https://x/", None),
        ("https://x https://y", None),
        ("https://u@x", None),
        ("//x", None),
        ("x", None),
        ("javascript:x", None),
    ],
)
def test_an_origin_header_is_taken_apart(text, parsed):
    assert parse_origin(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "https://example.com",
        "https://EXAMPLE.com",
        "http://x",
        "http://x:8080",
        "http://[::1]:8765",
        "http://127.0.0.1:3000",
        "https://*.example.com",
        "https://*.example.com:8443",
        "https://xn--bcher-kva.de",
        "chrome-extension://abcdefgh",
        "tauri://localhost",
    ],
)
def test_an_origin_that_browsers_send_is_no_problem(text):
    assert origin_problem(text) is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("https://x/", "https://x"),
        ("https://x/page?a#b", "https://x"),
        ("x", "https://x"),
        ("localhost:3000", "https://localhost:3000"),
        ("*.example.com", "https://*.example.com"),
        ("https://x:443", "https://x"),
        ("http://x:80", "http://x"),
        ("http://x:08080", "http://x:8080"),
        (" https://x", "https://x"),
        ("https://x ", "https://x"),
        ("wss://x/v1/stream", "https://x"),
        ("ws://x:8765", "http://x:8765"),
        ("https://user:pass@x", "https://x"),
        ("https://x.", "https://x"),
        ("http://::1:8765", "http://[::1]:8765"),
        ("http://::1", "http://[::1]"),
        ("http://[0:0:0::1]", "http://[::1]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_that_can_never_match_is_a_problem_that_says_what_it_should_be(text, meant):
    problem = origin_problem(text)
    assert problem is not None
    assert problem.endswith(f"not {text!r}; did you mean {meant}?")
    assert origin_problem(meant) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "http://*",
        "https://*",
        "null",
        "file:///x",
        "https://",
        "https://a b",
        "https://x,https://y",
        "https://foo*.example.com",
        "https://a.*.com",
        "https://*.1.2.3.4",
        "http://127.1",
        "https://x:99999",
        "https://*.*.com",
        "http://[::1",
        "http:/x",
        "https//x",
        "https://[fe80::1%eth0]",
        "https://faß.example",
    ],
)
def test_an_origin_without_a_meaning_is_a_problem_that_shows_it(text):
    problem = origin_problem(text)
    assert problem is not None
    assert repr(text) in problem
    assert "did you mean" not in problem


@given(st.text(max_size=30))
def test_what_is_proposed_can_match(text):
    meant = canonical_origin(text)
    assert meant is None or origin_problem(meant) is None


@pytest.mark.parametrize(
    "text", ["*", "feed.example.com", "*.example.com", "Marketfeed", "10.0.0.1", "[::1]"]
)
def test_a_host_that_requests_can_name_is_no_problem(text):
    assert host_problem(text) is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("https://feed.example.com/", "feed.example.com"),
        ("feed:8766", "feed"),
        (" feed", "feed"),
        ("::1", "[::1]"),
        ("bücher.de", "xn--bcher-kva.de"),
        ("feed.", "feed"),
        ("https://*.example.com", "*.example.com"),
    ],
)
def test_a_host_that_can_never_match_is_a_problem_that_says_what_it_should_be(text, meant):
    assert (host_problem(text) or "").endswith(f"not {text!r}; did you mean {meant}?")


@pytest.mark.parametrize("text", ["", "a b", "*x", "a.*", "*.", "a,b", "127.1"])
def test_a_host_without_a_meaning_is_a_problem_that_shows_it(text):
    assert repr(text) in (host_problem(text) or "")
