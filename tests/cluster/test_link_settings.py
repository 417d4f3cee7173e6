"""What a link needs, from the configuration and the environment; no message repeats a secret."""

from __future__ import annotations

import importlib.util

import pytest
import trustme

from marketfeed.checks import idle, mistakes
from marketfeed.cluster.link_settings import VARIABLE, creds_text, link_settings, node_name, warnings
from marketfeed.config.cluster import ClusterConfig
from marketfeed.config.schema import load
from marketfeed.errors import ConfigError

CREDS = """-----BEGIN NATS USER JWT-----
eyJ0eXAiOiJKV1QifQ.e30.c2ln
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
SUAOY5JZ2WJKVR4UO2KJ2P3SW6FZFNWEOIMAXF4WZEUNVQXXUOKGM55CYE
------END USER NKEY SEED------
"""


@pytest.fixture
def creds(tmp_path):
    path = tmp_path / "node.creds"
    path.write_text(CREDS)
    path.chmod(0o600)
    return path


def test_the_settings_are_those_of_the_configuration():
    config = ClusterConfig(
        name="a", node="n1", servers=["nats://x:1"], user="me", replicas=1, queue_bytes=1 << 21
    )
    settings = link_settings(config, {VARIABLE: " secret \n"})
    assert (settings.servers, settings.name, settings.bucket) == (("nats://x:1",), "a.n1", "mf_a")
    assert (settings.replicas, settings.queue_bytes, settings.user) == (1, 1 << 21, "me")
    assert settings.password is not None
    assert settings.password.reveal() == "secret"
    assert "secret" not in repr(settings)


def test_a_node_is_named_after_its_host(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "feed-1.example.com")
    assert node_name(ClusterConfig()) == "feed-1-example-com"
    assert node_name(ClusterConfig(node="x")) == "x"


@pytest.mark.parametrize("absent", ["nats", "nkeys"])
def test_without_the_extra_one_line_names_it(monkeypatch, creds, absent):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else found(name))
    with pytest.raises(ConfigError) as caught:
        link_settings(ClusterConfig(creds=str(creds)), {})
    assert caught.value.mistakes == ("cluster: needs the package nats-py: pip install 'marketfeed[cluster]'",)


def test_a_user_needs_a_password():
    with pytest.raises(
        ConfigError, match=r"^cluster\.user: its password must be in the environment variable"
    ):
        link_settings(ClusterConfig(user="me"), {})


def test_credentials_are_read(creds):
    assert creds_text(creds) == CREDS
    assert link_settings(ClusterConfig(creds=str(creds)), {}).creds == creds


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.chmod(0o620), "may be written by its group or by all users: chmod go-w"),
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_text("SUAOY5JZ2WJKVR4U"), "is no credentials file of NATS"),
        (lambda path: path.write_text(CREDS[: CREDS.index("SUAO")]), "is no credentials file of NATS"),
        (lambda path: path.write_text(CREDS + "x" * 70_000), "is no credentials file of NATS"),
    ],
)
def test_credentials_that_cannot_be_used_are_refused(creds, change, told):
    change(creds)
    with pytest.raises(ConfigError, match=told) as caught:
        link_settings(ClusterConfig(creds=str(creds)), {})
    assert str(caught.value).startswith("cluster.creds: ")
    assert "SUAO" not in str(caught.value)


def test_all_mistakes_are_told_at_once():
    config = ClusterConfig(servers=["tls://x"], user="me", tls_ca="/nowhere.pem")
    with pytest.raises(ConfigError) as caught:
        link_settings(config, {})
    user, ca = caught.value.mistakes
    assert user.startswith("cluster.user: ")
    assert ca == "cluster.tls_ca: cannot be used: No such file or directory"


def test_tls_trusts_the_authority_and_presents_the_certificate(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("node")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    config = ClusterConfig(
        servers=["tls://x"],
        tls_ca=str(tmp_path / "ca.pem"),
        tls_cert=str(tmp_path / "cert.pem"),
        tls_key=str(tmp_path / "key.pem"),
    )
    settings = link_settings(config, {})
    assert settings.tls is not None
    assert len(settings.tls.get_ca_certs()) == 1
    (tmp_path / "key.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"^cluster\.tls_cert, cluster\.tls_key: cannot be used: "):
        link_settings(config, {})


def test_what_may_be_meant_otherwise_is_a_warning(creds):
    assert warnings(ClusterConfig(creds=str(creds))) == []
    creds.chmod(0o644)
    one, other = warnings(ClusterConfig(creds=str(creds), replicas=1))
    assert one.startswith("cluster.replicas: 1: ")
    assert other == f"cluster.creds: every user may read {creds}: chmod o-r {creds}"


def test_a_check_of_the_configuration_finds_both(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "c.toml").write_text('[cluster]\nuser = "me"\nreplicas = 1\n[[feeds]]\ntype = "synthetic"\n')
    loaded = load(tmp_path / "c.toml")
    (mistake,) = mistakes(loaded)
    assert mistake.startswith("cluster.user: ")
    (warning,) = idle(loaded)
    assert warning.startswith(f"{tmp_path / 'c.toml'}: cluster.replicas: 1: ")
