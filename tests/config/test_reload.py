"""Which keys of a configuration may change while the engine runs."""

from __future__ import annotations

import msgspec
import pytest

from marketfeed.config.reload import LIVE, changes, fixed
from marketfeed.config.schema import Config, load


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("")

    def loaded(text: str = "") -> Config:
        path.write_text(text)
        return load(path).config

    return loaded


def test_the_same_configuration_has_no_changes(config):
    assert changes(config(), config()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tiers.premium]\ninterval_ms = 50\n[tiers.vip]\n", "tiers"),
        ("[limits]\nsessions = 7\n", "limits"),
        ('[[feeds]]\ntype = "synthetic"\n', "feeds"),
        ('[gateway]\nallowed_origins = ["*"]\n', "gateway.allowed_origins"),
        ("[auth.defaults]\nmax_sessions = 7\n", "auth.defaults"),
        ("[auth.tenants.desk]\nmax_sessions = 7\n", "auth.tenants"),
        ('[auth]\nkey_file = "key.pem"\n', "auth.key_file"),
        ('[gateway]\nhosts = ["feed.example.com"]\n', "gateway.hosts"),
        ('[admin]\ntoken_file = "admin.token"\n', "admin.token_file"),
    ],
)
def test_what_may_change_is_told_and_allowed(config, text, told):
    assert changes(config(), config(text)) == [told]
    assert fixed([told]) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gateway]\nport = 1\n", "gateway.port"),
        ("[admin]\nport = 1\n", "admin.port"),
        ('[admin]\nhosts = ["marketfeed"]\n', "admin.hosts"),
        ("[engine]\nworkers = 2\n", "engine.workers"),
        ("[auth]\nanonymous = true\n", "auth.anonymous"),
        ('[auth]\nmode = "keys"\nkeys_file = "keys.json"\n', "auth.mode"),
        ('[auth]\npath = "other.db"\n', "auth.path"),
        ("[latency]\ninterval_s = 1.0\n", "latency.interval_s"),
    ],
)
def test_what_may_not_is_named_by_its_key(config, text, told):
    assert fixed(changes(config(), config(text))) == [told]


def test_every_live_path_exists():
    for path in LIVE:
        section, _, key = path.partition(".")
        assert section in Config.__struct_fields__
        assert not key or key in getattr(msgspec.convert({}, Config), section).__struct_fields__
