"""URLs of peers: what is refused before anything is looked up, and that their tokens are shown nowhere."""

from __future__ import annotations

import pytest

from marketfeed.alerts.escalation.url import checked_url, parse_url


@pytest.mark.parametrize(
    ("text", "suffix", "parts", "authority"),
    [
        ("https://Hooks.Example.com", "", ("https", "hooks.example.com", 443, "/"), "hooks.example.com"),
        ("HTTP://a.example:8080/x?y=1", "", ("http", "a.example", 8080, "/x?y=1"), "a.example:8080"),
        ("https://a.example?y=1", "", ("https", "a.example", 443, "/?y=1"), "a.example"),
        ("http://[2606:4700:0::1]:81/", "", ("http", "2606:4700::1", 81, "/"), "[2606:4700::1]:81"),
        ("http://am:9093/", "/api", ("http", "am", 9093, "/api"), "am:9093"),
        ("http://am:9093/p/", "/api", ("http", "am", 9093, "/p/api"), "am:9093"),
    ],
)
def test_a_url_has_a_host_a_port_and_a_target(text, suffix, parts, authority):
    found = parse_url(text, suffix)
    assert (found.scheme, found.host, found.port, found.target) == parts
    assert found.authority == authority


def test_the_address_takes_the_place_of_the_host():
    assert parse_url("https://a.example/x?y").at("8.8.8.8") == "https://8.8.8.8:443/x?y"
    assert parse_url("http://a.example:81").at("2606:4700::1") == "http://[2606:4700::1]:81/"


@pytest.mark.parametrize(
    "text",
    [
        *("", "T0KEN", "ftp://a.example/T0KEN", "file:///T0KEN", "javascript:T0KEN", "//a.example/T0KEN"),
        *("https:/a.example/T0KEN", "https://", "https:///T0KEN", "unix:///T0KEN", "gopher://a/T0KEN"),
        *("https://T0KEN@a.example/", "https://user:T0KEN@a.example/", "https://a.example@T0KEN/"),
        *("https://a.example/#T0KEN", "https://a.example/T0KEN#", "https://a.example/T0 KEN"),
        *("https://a.example\\@T0KEN/", "https://a.example/T0KEN\r\nHost: b", "https://ä.example/T0KEN"),
        *("http://2130706433/T0KEN", "http://0x7f000001/T0KEN", "http://0x7f.1/T0KEN", "http://127.1/T0KEN"),
        *("http://0177.0.0.1/T0KEN", "http://0/T0KEN", "http://1.2.3.4.5/T0KEN", "http://[::1/T0KEN"),
        *("http://[fe80::1%25eth0]/T0KEN", "http://a.example:99999/T0KEN", "http://a.example:0/T0KEN"),
        *("http://a..example/T0KEN", "http://%31%32%37.0.0.1/T0KEN", "http://[127.0.0.1]/T0KEN"),
        "http://a.example/T0KEN" + "x" * 3000,
    ],
)
def test_other_urls_are_refused_and_not_repeated(text):
    with pytest.raises(ValueError, match=r"^must be a URL") as found:
        parse_url(text)
    assert "T0KEN" not in str(found.value)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "0.0.0.0"),
        *("[::ffff:7f00:1]", "[fd00::1]", "[fe80::1]", "224.0.0.1", "[64:ff9b::7f00:1]", "100.64.0.1"),
    ],
)
def test_a_private_host_requires_allow_private(host):
    with pytest.raises(ValueError, match="that requires allow_private = true"):
        checked_url(f"http://{host}/", allow_private=False)
    assert checked_url(f"http://{host}/", allow_private=True).port == 80


def test_public_hosts_and_names_do_not():
    assert checked_url("https://8.8.8.8/", allow_private=False).host == "8.8.8.8"
    assert checked_url("https://internal.example/", allow_private=False).host == "internal.example"


def test_a_path_with_a_suffix_has_no_query():
    with pytest.raises(ValueError, match="without a query"):
        parse_url("http://am:9093/?x=1", "/api")


def test_a_token_in_the_path_is_in_no_text_of_a_url():
    found = parse_url("https://hooks.example.com/services/T0KEN?key=T0KEN")
    assert str(found) == "https://hooks.example.com:443"
    assert "T0KEN" not in repr(found)
