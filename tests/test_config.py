"""Configuration: what is taken, and that each mistake is one line that says where and what is allowed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from marketfeed.config import Config, TierConfig, load
from marketfeed.errors import ConfigError
from marketfeed.ingest.registry import feed_specs

ROOT = Path(__file__).parent.parent


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Load text as a configuration file named c.toml."""
    monkeypatch.chdir(tmp_path)

    def load_text(text, *overrides):
        Path("c.toml").write_text(text)
        return load(Path("c.toml"), overrides)

    return load_text


@pytest.fixture
def refusal(loaded):
    """Load text that must be refused; return the one line that says why."""

    def refuse(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            feed_specs(loaded(text, *overrides).config.feeds)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    return refuse


# What is taken.


def test_the_shipped_file_is_the_embedded_one():
    assert (ROOT / "config.toml").read_bytes() == (ROOT / "marketfeed/default.toml").read_bytes()


def test_the_shipped_file_says_the_defaults(loaded):
    shipped, empty = load(ROOT / "config.toml").config, loaded("").config
    assert msgspec.structs.replace(shipped, feeds=[]) == empty
    assert [feed["type"] for feed in shipped.feeds] == ["synthetic"]


def test_an_empty_file_has_the_three_tiers_and_no_feed(loaded):
    config = loaded("").config
    assert config.feeds == []
    assert config.tiers == {
        "vip": TierConfig(0, "every", 262_144),
        "premium": TierConfig(100, "latest", 65_536),
        "basic": TierConfig(500, "latest", 65_536),
    }


def test_a_file_that_names_tiers_has_these_and_completes_the_known_ones(loaded):
    text = (
        '[gateway]\ndefault_tier = "basic"\n'
        '[tiers.basic]\ninterval_ms = 250\n[tiers.gold]\ndelivery = "latest"\n'
    )
    assert loaded(text).config.tiers == {
        "basic": TierConfig(250, "latest", 65_536),
        "gold": TierConfig(0, "latest", 65_536),
    }


def test_set_changes_one_default_tier_and_keeps_the_others(loaded):
    tiers = loaded("", "tiers.premium.interval_ms=250", "tiers.gold.interval_ms=50").config.tiers
    assert {name: tier.interval_ms for name, tier in tiers.items()} == {
        "vip": 0,
        "premium": 250,
        "basic": 500,
        "gold": 50,
    }


def test_without_a_path_the_file_of_the_folder_comes_before_the_embedded_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    embedded = load(None)
    assert (embedded.source, embedded.base) == ("the built-in configuration", tmp_path)
    assert embedded.config == load(ROOT / "config.toml").config
    Path("config.toml").write_text("[gateway]\nport = 1\n")
    assert load(None).config.gateway.port == 1
    assert load(None).source == "config.toml"


def test_relative_paths_start_at_the_files_folder(tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/c.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert load(Path("etc/c.toml")).base == tmp_path / "etc"


def test_set_takes_toml_values_text_and_list_indices(loaded):
    config = loaded(
        '[[feeds]]\ntype = "synthetic"\n',
        "gateway.port=0",
        "gateway.allowed_origins=['https://a.example']",
        "feeds.0.rate=1_000",
        "feeds.0.activity=uniform",
        "limits.ping_s = 5",
    ).config
    assert config.gateway.port == 0
    assert config.gateway.allowed_origins == ["https://a.example"]
    assert config.feeds == [{"type": "synthetic", "rate": 1000, "activity": "uniform"}]
    assert config.limits.ping_s == 5.0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_authentication(loaded, host):
    assert loaded(f'[gateway]\nhost = "{host}"\n').config.gateway.host == host


def test_any_address_may_serve_anonymously_if_told_to(loaded):
    assert loaded('[gateway]\nhost = "0.0.0.0"\n[auth]\nanonymous = true\n').config.auth.anonymous


# The file.


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file or directory"):
        load(tmp_path / "gone.toml")


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "c.toml")


def test_text_that_is_not_toml_names_the_line(refusal):
    assert refusal("[engine]\nworkers = = 1\n").startswith("c.toml: not TOML: Invalid value (at line 2,")


# Keys, types and ranges: (text, what the line says after "c.toml: ").
MISTAKES = {
    "section that does not exist": ("[gatway]\n", "gatway: unknown key; did you mean gateway?"),
    "key that does not exist": (
        "[gateway]\nprot = 1\n",
        "gateway.prot: unknown key; did you mean port? allowed: host, port,",
    ),
    "key that a tier does not have": (
        "[tiers.vip]\n[tiers.basic]\ninterval = 1\n",
        "tiers.basic.interval: unknown key; did you mean interval_ms? allowed: interval_ms, delivery,",
    ),
    "text for a number": ('[gateway]\nport = "x"\n', "gateway.port: expected int, got str"),
    "number for a table": ("gateway = 1\n", "gateway: expected object, got int"),
    "text in a list's place": ('[gateway]\nallowed_origins = "*"\n', "gateway.allowed_origins: expected"),
    "wrong type in a list": ("[gateway]\nallowed_origins = [1]\n", "gateway.allowed_origins.0: expected str"),
    "wrong type in a tier": (
        '[tiers.vip]\n[tiers.gold]\ninterval_ms = "1"\n',
        "tiers.gold.interval_ms: expected float, got str",
    ),
    "tiers that are no tables": ("tiers = 1\n", "tiers: expected object"),
    "tier that is no table": ("[tiers]\nvip = 1\n", "tiers.vip: expected object"),
    "port above 65535": ("[gateway]\nport = 65536\n", "gateway.port: expected int <= 65535"),
    "port below 0": ("[admin]\nport = -1\n", "admin.port: expected int >= 0"),
    "no symbol": ("[engine]\nmax_symbols = 0\n", "engine.max_symbols: expected int >= 1"),
    "too many symbols": ("[engine]\nmax_symbols = 65537\n", "engine.max_symbols: expected int <= 65536"),
    "depth not a power of two": (
        "[engine]\nring_depth = 1000\n",
        "engine.ring_depth: a power of two, not 1000",
    ),
    "interval of nothing": ("[limits]\nping_s = 0\n", "limits.ping_s: expected float >= 0.001"),
    "interval without end": ("[limits]\nping_s = inf\n", "limits.ping_s: expected float <= 86400.0"),
    "interval that is no number": ("[engine]\ndrain_s = nan\n", "engine.drain_s: expected float"),
    "tier interval below a millisecond": (
        "[tiers.vip]\ninterval_ms = 0.5\n",
        "tiers.vip.interval_ms: 0, or 1 to 3600000, not 0.5",
    ),
    "negative tier interval": ("[tiers.vip]\ninterval_ms = -1\n", "tiers.vip.interval_ms: expected float >="),
    "unknown delivery": (
        '[tiers.vip]\ndelivery = "all"\n',
        "tiers.vip.delivery: one of every, latest, not 'all'",
    ),
    "name that is no tier's": ('[tiers."a b"]\n[tiers.vip]\n', "tiers.a b: a tier's name has 1 to 32"),
    "default tier that does not exist": (
        "[tiers.basic]\n[tiers.premium]\n",
        "gateway.default_tier: one of basic, premium",
    ),
    "no tier at all": ("[tiers]\n", "gateway.default_tier: one of (no tier is defined)"),
    "address without authentication": (
        '[gateway]\nhost = "0.0.0.0"\n',
        "gateway.host: '0.0.0.0' is not loopback",
    ),
    "empty host, which is any": ('[gateway]\nhost = ""\n', "gateway.host: '' is not loopback"),
    "admin address that is not loopback": (
        '[admin]\nhost = "10.0.0.1"\n',
        "admin.host: '10.0.0.1' is not loopback",
    ),
    "proxy that is no address": (
        '[gateway]\ntrusted_proxies = ["127.0.0.1", "proxy.lan"]\n',
        "gateway.trusted_proxies.1: an address, or a network such as 10.0.0.0/8, not 'proxy.lan'",
    ),
    "network with bits beside its prefix": (
        '[gateway]\ntrusted_proxies = ["10.0.0.1/8"]\n',
        "gateway.trusted_proxies.0: an address, or a network",
    ),
    "workers": ("[engine]\nworkers = 65\n", "engine.workers: expected int <= 64"),
    "tokens": ('[auth]\nmode = "jwt"\n', 'auth.mode: only "none" in this version'),
    "certificate without a key": (
        '[gateway]\ntls_cert = "a.pem"\n',
        "gateway.tls_key: tls_cert and tls_key go together",
    ),
    "feed that is no table": ("feeds = [1]\n", "feeds.0: expected object"),
}


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named(refusal, text, told):
    assert refusal(text).startswith(f"c.toml: {told}")


# --set.


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("gateway.port", "--set gateway.port: written as dotted.path=value"),
        ("=1", "--set =1: written as dotted.path=value"),
        ("feeds.1.rate=1", "--set feeds.1.rate=1: 1 is not an index from 0 to 0"),
        ("feeds.x.rate=1", "x is not an index from 0 to 0"),
        ("gateway.port.x=1", "x is below a plain value"),
        ("gateway.port.x.y=1", "x is below a plain value"),
        ("gateway.port=many", "gateway.port: expected int, got str"),
        ("gateway.prot=1", "gateway.prot: unknown key; did you mean port?"),
        ("nothing.here=1", "nothing: unknown key; allowed: engine,"),
    ],
)
def test_a_mistake_in_set_is_named(refusal, override, told):
    assert told in refusal('[gateway]\nport = 1\n[[feeds]]\ntype = "synthetic"\n', override)


def test_set_on_a_feed_of_a_file_without_feeds_is_an_error(refusal):
    assert "feeds.0.rate=1: the configuration has no feeds" in refusal("", "feeds.0.rate=1")


# Feeds.


def test_feeds_are_found_by_type_and_their_keys_checked(loaded):
    text = '[[feeds]]\nname = "a"\ntype = "synthetic"\nrate = 5\n[[feeds]]\ntype = "replay"\npath = "x.gz"\n'
    specs = feed_specs(loaded(text).config.feeds)
    assert [spec.name for spec in specs] == ["a", "replay"]
    assert specs[0].settings.rate == 5.0


FEED_MISTAKES = {
    "type that does not exist": (
        '[[feeds]]\ntype = "synth"\n',
        "feeds.0.type: unknown feed type 'synth'; one of ",
    ),
    "no type": ('[[feeds]]\nname = "a"\n', "feeds.0.type: missing; one of "),
    "two of one name": (
        '[[feeds]]\ntype = "synthetic"\n[[feeds]]\ntype = "synthetic"\n',
        "feeds.1.name: another feed is named synthetic already",
    ),
    "name that is no text": ('[[feeds]]\ntype = "synthetic"\nname = 1\n', "feeds.0.name: a text of 1 to 64"),
    "unknown key": (
        '[[feeds]]\ntype = "synthetic"\nrat = 1\n',
        "feeds.0.rat: unknown key; did you mean rate? allowed: symbols, prefix, rate,",
    ),
    "wrong type": ('[[feeds]]\ntype = "synthetic"\nrate = "x"\n', "feeds.0.rate: expected float, got str"),
    "out of range": ('[[feeds]]\ntype = "synthetic"\nrate = -1\n', "feeds.0.rate: expected float > 0"),
    "missing key": ('[[feeds]]\ntype = "replay"\n', "feeds.0: object missing required field path"),
}


@pytest.mark.parametrize(("text", "told"), FEED_MISTAKES.values(), ids=FEED_MISTAKES.keys())
def test_a_mistake_in_a_feed_is_named(refusal, text, told):
    assert told in refusal(text)


def test_configurations_do_not_change():
    with pytest.raises(AttributeError):
        Config().engine = None
