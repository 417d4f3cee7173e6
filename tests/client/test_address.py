"""Where an engine is, and whom to trust there."""

from __future__ import annotations

import pytest

from marketfeed.client.address import endpoint, endpoint_of, stream_url
from marketfeed.client.unreachable import plainly
from marketfeed.config.schema import GatewayConfig
from marketfeed.errors import ConfigError


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1:8765", "ws:///v1/stream", "http://a:99999/"])
def test_a_url_that_is_none_of_an_engine(url):
    with pytest.raises(ConfigError, match="--url"):
        endpoint(url)


@pytest.mark.parametrize(
    ("gateway", "url"),
    [
        (GatewayConfig(), "ws://127.0.0.1:8765/v1/stream"),
        (GatewayConfig(host="::1", port=9), "ws://[::1]:9/v1/stream"),
        (GatewayConfig(host="feed.example.com"), "ws://feed.example.com:8765/v1/stream"),
        (GatewayConfig(host="0.0.0.0"), "ws://127.0.0.1:8765/v1/stream"),
        (GatewayConfig(host="::"), "ws://[::1]:8765/v1/stream"),
        (GatewayConfig(tls_cert="cert.pem", tls_key="key.pem"), "wss://127.0.0.1:8765/v1/stream"),
    ],
)
def test_the_stream_of_a_configuration(gateway, url):
    assert stream_url(gateway) == url


def test_the_address_of_an_engine_means_its_stream():
    assert endpoint("http://127.0.0.1:8765/").url == "ws://127.0.0.1:8765/v1/stream"
    assert endpoint("https://feed.example.com").url == "wss://feed.example.com/v1/stream"
    assert endpoint("http://proxy/behind?key=1").resource == "/behind/v1/stream?key=1"


def test_a_url_without_a_path_means_the_stream():
    assert endpoint("ws://127.0.0.1:8765").resource == "/v1/stream"
    assert endpoint("ws://127.0.0.1:8765/behind/a/proxy?key=1").resource == "/behind/a/proxy?key=1"


def test_a_port_that_the_engine_picks_itself_needs_a_url():
    with pytest.raises(ConfigError, match=r"gateway\.port: 0 .*: --url http://"):
        stream_url(GatewayConfig(port=0))


def test_a_ca_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"--ca .*nope\.pem: No such file or directory"):
        endpoint("wss://x/", tmp_path / "nope.pem")
    (tmp_path / "empty.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"--ca .*empty\.pem: contains no certificate in PEM format"):
        endpoint("wss://x/", tmp_path / "empty.pem")
    with pytest.raises(ConfigError, match="requires an https:// or wss:// URL"):
        endpoint("ws://x/", tmp_path / "empty.pem")
    for name, said in (("nope.pem", "No such file"), ("empty.pem", "contains no certificate in PEM format")):
        gateway = GatewayConfig(tls_cert=str(tmp_path / name), tls_key="key.pem")
        with pytest.raises(ConfigError, match=rf"gateway\.tls_cert: .*{name}: {said}"):
            endpoint_of(gateway)


@pytest.mark.parametrize("host", ["a" * 70 + ".com", "a..b", ".."])
def test_what_cannot_be_a_host_name_is_refused_at_once(host):
    with pytest.raises(ConfigError, match=r"--url .*: \".*\" is not a valid host name"):
        endpoint(f"ws://{host}/v1/stream")


def test_no_error_number_is_shown():
    assert plainly(OSError(113, "No route to host")) == "No route to host"
    assert plainly(ConnectionResetError(104, "Connection reset by peer")) == "Connection reset by peer"
    assert plainly(TimeoutError()) == "no answer"
