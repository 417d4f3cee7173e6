"""``[cluster]``: an optional table, and each mistake in it is one line that says what is allowed."""

from __future__ import annotations

import pytest

from marketfeed.checks import idle
from marketfeed.config.cluster import ClusterConfig
from marketfeed.config.reload import changes, fixed
from marketfeed.config.schema import Loaded, load
from marketfeed.errors import ConfigError


@pytest.fixture
def loaded(tmp_path):
    def load_text(text: str) -> Loaded:
        (tmp_path / "c.toml").write_text(text)
        return load(tmp_path / "c.toml")

    return load_text


@pytest.fixture
def refused(loaded):
    """Return the mistakes in a ``[cluster]`` table with these lines."""

    def mistakes(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(f"[cluster]\n{text}\n")
        return [mistake.partition("c.toml: ")[2] for mistake in caught.value.mistakes]

    return mistakes


def test_without_the_table_there_is_no_cluster(loaded):
    assert loaded("").config.cluster is None


@pytest.mark.parametrize(("role", "warned"), [("both", True), ("ingest", True), ("gateway", False)])
def test_a_gateway_needs_no_feeds(loaded, role, warned):
    warnings = idle(loaded(f'[cluster]\nrole = "{role}"\n'))
    assert any("no [[feeds]]" in warning for warning in warnings) == warned


def test_an_empty_table_has_the_defaults(loaded):
    assert loaded("[cluster]\n").config.cluster == ClusterConfig()


def test_paths_start_at_the_folder_of_the_file(loaded, tmp_path):
    text = '[cluster]\nservers = ["tls://h"]\ncreds = "a.creds"\ntls_ca = "/ca.pem"\n'
    cluster = loaded(text).config.cluster
    assert (cluster.creds, cluster.tls_ca) == (str(tmp_path / "a.creds"), "/ca.pem")


@pytest.mark.parametrize("key", ["name", "node", "shard", "site"])
@pytest.mark.parametrize("value", ["a.b", "a b", "*", ">", "é"])
def test_a_name_is_one_token_of_a_subject(refused, key, value):
    assert refused(f'{key} = "{value}"') == [
        f'cluster.{key}: must consist of letters, digits, _ and -, not "{value}"'
    ]


@pytest.mark.parametrize(
    "server", ["nats://h", "nats://h:4222", "nats://[::1]:1", "tls://nats.example.com:1"]
)
def test_a_server_is_a_url_with_a_host(loaded, server):
    assert loaded(f'[cluster]\nservers = ["{server}"]\n').config.cluster.servers == [server]


@pytest.mark.parametrize(
    "server", ["", "h:4222", "http://h", "nats://", "nats://h:0x1", "nats://h/x", "nats://h?a", "nats://[::1"]
)
def test_another_server_is_refused(refused, server):
    (first, *_) = refused(f'servers = ["{server}"]')
    assert first == f'cluster.servers.0: must be nats://HOST:PORT or tls://HOST:PORT, not "{server}"'


@pytest.mark.parametrize("key", ['servers = ["nats://u:secret@h:4222"]', 'url = "https://u:secret@h"'])
def test_a_password_in_a_url_is_refused_and_not_repeated(refused, key):
    (told,) = refused(key)
    assert "must not contain a user or a password: cluster.creds or cluster.user gives them" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("servers = []", 'cluster.servers: must name at least one server, such as "nats://127.0.0.1:4222"'),
        (
            'servers = ["nats://a", "tls://b"]',
            "cluster.servers: must all begin with nats://, or all with tls://",
        ),
        ('user = "a"\ncreds = "b"', "cluster.user: not allowed together with cluster.creds"),
        ('tls_ca = "a"', "cluster.tls_ca: requires cluster.servers that begin with tls://"),
        (
            'servers = ["tls://a"]\ntls_key = "b"',
            "cluster.tls_cert: missing; required with cluster.tls_key: both are PEM files",
        ),
        ('url = "wss://a"', 'cluster.url: must be http://HOST:PORT or https://HOST:PORT, not "wss://a"'),
        (
            "stale_s = 0.15",
            "cluster.stale_s, cluster.beat_ms: stale_s must be at least two beats, 0.2 s, not 0.15",
        ),
        ("replicas = 2", "cluster.replicas: must be one of 1, 3, 5, not 2"),
    ],
)
def test_what_a_rule_forbids_is_told_in_one_line(refused, text, told):
    assert refused(text) == [told]


def test_a_key_in_another_table_is_told_where_it_belongs(loaded):
    with pytest.raises(
        ConfigError, match=r"gateway\.lease_s: unknown here; belongs in the \[cluster\] table"
    ):
        loaded("[gateway]\nlease_s = 8.0\n")


def test_no_key_may_change_without_a_restart(loaded):
    none, one = loaded("").config, loaded("[cluster]\n").config
    other = loaded('[cluster]\nshard = "s1"\ncapacity = 5\n').config
    for before, after, told in (
        (none, one, ["cluster"]),
        (one, none, ["cluster"]),
        (one, other, ["cluster.shard", "cluster.capacity"]),
    ):
        assert changes(before, after) == told
        assert fixed(told) == told
