"""Configuration: what is taken, and that each mistake is one line that says where and what is allowed."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.config.schema import Config, GatewayConfig, TierConfig, load
from marketfeed.config.validation import mistakes, shown, without
from marketfeed.errors import ConfigError
from marketfeed.feeds.synthetic import SyntheticConfig
from marketfeed.ingest.registry import feed_keys, feed_specs, read_specs

ROOT = Path(__file__).parent.parent
KEYS = [
    *Config.__struct_fields__, *GatewayConfig.__struct_fields__, *TierConfig.__struct_fields__, "rules", "vip"
]  # fmt: skip


def taken(data):
    """Tell whether msgspec itself takes ``data`` as a configuration."""
    try:
        msgspec.convert(data, Config)
    except (msgspec.ValidationError, ValueError):
        return False
    return True


def write(text):
    """Write text to a configuration file named c.toml; return its path."""
    Path("c.toml").write_text(text)
    return Path("c.toml")


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Load text as a configuration file named c.toml."""
    monkeypatch.chdir(tmp_path)

    def load_text(text, *overrides):
        return load(write(text), overrides, feed_keys=feed_keys)

    return load_text


@pytest.fixture
def refusal(loaded):
    """Load text that must be refused; return the one line that says why."""

    def refuse(text, *overrides):
        def both():
            configuration = loaded(text, *overrides)
            raise configuration.refusal(read_specs(configuration.config.feeds)[1])

        with pytest.raises(ConfigError) as caught:
            both()
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    return refuse


# What is taken.


def test_the_shipped_file_is_the_embedded_one():
    assert (ROOT / "config.toml").read_bytes() == (ROOT / "marketfeed/default.toml").read_bytes()


def without_paths(config):
    """Return ``config`` without the absolute paths that its folder gives."""
    return msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, path=""))


def test_the_shipped_file_says_the_defaults(loaded):
    shipped, empty = load(ROOT / "config.toml").config, loaded("").config
    assert without_paths(msgspec.structs.replace(shipped, feeds=[])) == without_paths(empty)
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
    assert without_paths(embedded.config) == without_paths(load(ROOT / "config.toml").config)
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


def test_with_a_token_the_admin_port_may_have_any_address(loaded, tmp_path):
    admin = loaded('[admin]\nhost = "0.0.0.0"\ntoken_file = "admin.token"\n').config.admin
    assert admin.token_file == str(tmp_path / "admin.token")


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[engine]\nworkers = = 1\n", "Invalid value (at line 2, column 11)"),
        ("[engine]\nworkers", "(at line 2, column 8, the end of the file)"),
        ("[engine]\n[engine]\n", "Cannot declare ('engine',) twice (at line 2, column 8)"),
        ("a = 1\na = 2\n", "Cannot overwrite a value (at line 2, column 6)"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "Exceeds the limit"),
    ],
    ids=["syntax", "end", "table twice", "key twice", "depth", "digits"],
)
def test_text_that_is_not_toml_names_the_line_and_column(refusal, text, told):
    line = refusal(text)
    assert line.startswith("c.toml: not TOML: ")
    assert told in line


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbf[gateway]\nport = 1\n")
    assert load(tmp_path / "c.toml").config.gateway.port == 1


def test_all_mistakes_are_told_together_each_with_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """
    [engine]
    ring_depth = 1000
    [gateway]
    prot = 9000
    host = 5
    [limits]
    ping_s = "20"
    stall_s = 0
    [tiers.vip]
    delivery = "all"
    [[feeds]]
    type = "synthetic"
    """
    asked = []

    def further(configuration):
        asked.append(configuration.config)
        return ["feeds.0.rate: wrong"]

    overrides = ["admin.port=-1", "feeds.9.rate=1", "feeds.0.rate=5", "gateway.default_tier=gold"]
    with pytest.raises(ConfigError) as caught:
        load(write(text), overrides, further)
    assert [line[: len(told)] for line, told in zip(caught.value.mistakes, ALL_TOLD, strict=True)] == ALL_TOLD
    (config,) = asked  # without what is wrong
    assert config.gateway == GatewayConfig(default_tier="gold")
    assert config.tiers == {"vip": TierConfig(0, "every", 262_144)}


ALL_TOLD = [
    "--set feeds.9.rate=1: there is no feed 9; there is one feed, 0 (synthetic)",
    "c.toml: gateway.prot: unknown key",
    "c.toml: gateway.host: must be a string, not 5",
    "c.toml: limits.ping_s: must be",
    "c.toml: limits.stall_s: must be",
    "c.toml: tiers.vip.delivery: must be one of",
    "--set admin.port=-1: must be an integer from 0 to 65535, not -1",
    "c.toml: engine.ring_depth: must be a power of two, not 1000",
    '--set gateway.default_tier=gold: must be one of the tiers "vip", not "gold"',
    "--set feeds.0.rate=5: wrong",
]


def test_nothing_further_is_asked_of_a_configuration_without_mistakes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load(write(""), (), lambda loaded: pytest.fail("asked"))


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()


@pytest.mark.slow
@given(
    st.dictionaries(
        st.sampled_from(KEYS),
        st.recursive(
            VALUES,
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
            ),
        ),
        max_size=5,
    )
)
def test_a_table_is_refused_where_msgspec_refuses_it_and_without_what_is_named_it_is_taken(data):
    found = mistakes(data, Config)
    assert all(len(str(mistake).splitlines()) == 1 for mistake in found)
    assert bool(found) == (not taken(data))
    assert taken(without(data, found))


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
    "text for a number": (
        '[gateway]\nport = "x"\n',
        'gateway.port: must be an integer from 0 to 65535, not the string "x"',
    ),
    "number for a table": ("gateway = 1\n", "gateway: must be a table, not 1"),
    "text in a list's place": (
        '[gateway]\nallowed_origins = "*"\n',
        'gateway.allowed_origins: must be a list of strings, not the string "*"',
    ),
    "wrong type in a list": (
        "[gateway]\nallowed_origins = [1]\n",
        "gateway.allowed_origins.0: must be a string, not 1",
    ),
    "wrong type in a tier": (
        '[tiers.vip]\n[tiers.gold]\ninterval_ms = "1"\n',
        'tiers.gold.interval_ms: must be a number from 0 to 3600000, not the string "1": write it',
    ),
    "tiers that are no tables": ("tiers = 1\n", "tiers: must be a table, not 1"),
    "tier that is no table": ("[tiers]\nvip = 1\n", "tiers.vip: must be a table, not 1"),
    "port above 65535": (
        "[gateway]\nport = 65536\n",
        "gateway.port: must be an integer from 0 to 65535, not 65536",
    ),
    "port below 0": ("[admin]\nport = -1\n", "admin.port: must be an integer from 0 to 65535, not -1"),
    "no symbol": (
        "[engine]\nmax_symbols = 0\n",
        "engine.max_symbols: must be an integer from 1 to 65536, not 0",
    ),
    "too many symbols": (
        "[engine]\nmax_symbols = 65537\n",
        "engine.max_symbols: must be an integer from 1 to 65536, not 65537",
    ),
    "depth not a power of two": (
        "[engine]\nring_depth = 1000\n",
        "engine.ring_depth: must be a power of two, not 1000",
    ),
    "interval of nothing": (
        "[limits]\nping_s = 0\n",
        "limits.ping_s: must be a number from 0.001 to 86400, not 0",
    ),
    "interval without end": (
        "[limits]\nping_s = inf\n",
        "limits.ping_s: must be a number from 0.001 to 86400, not inf",
    ),
    "interval that is no number": (
        "[engine]\ndrain_s = nan\n",
        "engine.drain_s: must be a number from 0.001 to 86400, not nan",
    ),
    "tier interval below a millisecond": (
        "[tiers.vip]\ninterval_ms = 0.5\n",
        "tiers.vip.interval_ms: must be 0, or from 1 to 3600000, not 0.5",
    ),
    "negative tier interval": (
        "[tiers.vip]\ninterval_ms = -1\n",
        "tiers.vip.interval_ms: must be a number from 0 to 3600000, not -1",
    ),
    "unknown delivery": (
        '[tiers.vip]\ndelivery = "all"\n',
        'tiers.vip.delivery: must be one of "every", "latest", not the string "all"',
    ),
    "name that is no tier's": ('[tiers."a b"]\n[tiers.vip]\n', "tiers.a b: a tier's name must be 1 to 32"),
    "default tier that does not exist": (
        "[tiers.basic]\n[tiers.premium]\n",
        'gateway.default_tier: must be one of the tiers "basic", "premium", not "vip"',
    ),
    "no tier at all": (
        "[tiers]\n",
        'gateway.default_tier: must be one of the tiers (there are none), not "vip"',
    ),
    "address without authentication": (
        '[gateway]\nhost = "0.0.0.0"\n',
        'gateway.host: "0.0.0.0" is not loopback',
    ),
    "empty host, which is any": ('[gateway]\nhost = ""\n', 'gateway.host: "" is not loopback'),
    "admin address that is not loopback": (
        '[admin]\nhost = "10.0.0.1"\n[auth]\nanonymous = true\n',
        'admin.host: "10.0.0.1" is not loopback: that requires admin.token_file, a file with the token',
    ),
    "empty path of a token": ('[admin]\ntoken_file = ""\n', "admin.token_file: must be a string that is not"),
    "origin with a path": (
        '[gateway]\nallowed_origins = ["https://a.example", "https://x/"]\n',
        "gateway.allowed_origins.1: must be an origin as browsers send it, such as https://example.com or"
        " https://*.example.com, not 'https://x/'; did you mean https://x?",
    ),
    "origin with the port that browsers leave out": (
        '[gateway]\nallowed_origins = ["https://x:443"]\n',
        "gateway.allowed_origins.0: must be an origin as browsers send it",
    ),
    "origin that is nothing": (
        '[gateway]\nallowed_origins = [""]\n',
        "gateway.allowed_origins.0: must be an origin",
    ),
    "host with a scheme": (
        '[gateway]\nhosts = ["https://feed.example.com"]\n',
        "gateway.hosts.0: must be a name without scheme and port",
    ),
    "served name with a port": (
        '[admin]\nhosts = ["marketfeed:8766"]\n',
        "admin.hosts.0: must be a name without scheme and port, such as feed.example.com or *.example.com,"
        " or \"*\" for any, not 'marketfeed:8766'; did you mean marketfeed?",
    ),
    "proxy that is no address": (
        '[gateway]\ntrusted_proxies = ["127.0.0.1", "proxy.lan"]\n',
        'gateway.trusted_proxies.1: must be an address, or a network such as 10.0.0.0/8, not "proxy.lan"',
    ),
    "network with bits beside its prefix": (
        '[gateway]\ntrusted_proxies = ["10.0.0.1/8"]\n',
        "gateway.trusted_proxies.0: must be an address, or a network",
    ),
    "workers": ("[engine]\nworkers = 65\n", "engine.workers: must be an integer from 0 to 64, not 65"),
    "tokens without an algorithm": (
        '[auth]\nmode = "jwt"\n',
        "auth.algorithm: missing; required with auth.mode",
    ),
    "certificate without a key": (
        '[gateway]\ntls_cert = "a.pem"\n',
        "gateway.tls_key: missing; required with gateway.tls_cert",
    ),
    "feed that is no table": ("feeds = [1]\n", "feeds.0: must be a table, not 1"),
    "[feeds] in place of [[feeds]]": (
        '[feeds]\ntype = "synthetic"\n',
        "feeds: must be a list of tables: write [[feeds]] instead of [feeds]",
    ),
    "[[gateway]] in place of [gateway]": (
        "[[gateway]]\nport = 1\n",
        "gateway: must be one table: write [gateway] instead of [[gateway]]",
    ),
    "[[tiers.vip]] in place of [tiers.vip]": (
        "[[tiers.vip]]\n",
        "tiers.vip: must be one table: write [tiers.vip] instead of [[tiers.vip]]",
    ),
    "[[tiers]] in place of [tiers.NAME]": (
        '[[tiers]]\nname = "vip"\n',
        "tiers: must be one table: write [tiers.NAME] instead of [[tiers]]",
    ),
    "text in place of [[feeds]]": (
        'feeds = "demo"\n',
        'feeds: must be a list of tables, each written with [[…]], not the string "demo"',
    ),
    "number in quotes": (
        '[gateway]\nport = "8765"\n',
        'gateway.port: must be an integer from 0 to 65535, not the string "8765": write it without quotes',
    ),
    "true in quotes": (
        '[auth]\nanonymous = "true"\n',
        'auth.anonymous: must be true or false, not the string "true": write true without quotes',
    ),
    "truth for a number": (
        "[engine]\nworkers = true\n",
        "engine.workers: must be an integer from 0 to 64, not true",
    ),
    "number for a truth": ("[latency]\nprobe = 1\n", "latency.probe: must be true or false, not 1"),
    "fraction for an integer": (
        "[limits]\nsessions = 1.5\n",
        "limits.sessions: must be an integer of at least 1, not 1.5",
    ),
    "date for a number": (
        "[limits]\nsessions = 2026-01-01\n",
        "limits.sessions: must be an integer of at least 1, not 2026-01-01",
    ),
    "table for a number": (
        "[limits.sessions]\na = 1\n",
        "limits.sessions: must be an integer of at least 1, not a table",
    ),
    "very large number": (
        f"[gateway]\nport = 0x{'f' * 5000}\n",
        "gateway.port: must be an integer from 0 to 65535, not an integer of 20000 bits",
    ),
    "negative count": (
        "[latency]\nkeep_files = -3\n",
        "latency.keep_files: must be an integer of at least 1, not -3",
    ),
    "tier misspelt": (
        '[gateway]\ndefault_tier = "premum"\n',
        'gateway.default_tier: must be one of the tiers "vip", "premium", "basic", not "premum"; did',
    ),
    "choice misspelt": (
        '[gateway]\nencoding = "jsn"\n',
        'gateway.encoding: must be one of "binary", "json", not the string "jsn"; did you mean json?',
    ),
    "one port for both": (
        "[gateway]\nport = 8766\n",
        "admin.port, gateway.port: must differ, and both are 8766",
    ),
    "one port, and one listener on all addresses": (
        '[gateway]\nport = 8766\nhost = "0.0.0.0"\n[auth]\nanonymous = true\n',
        "admin.port, gateway.port: must differ, and both are 8766",
    ),
    "host with a port": (
        '[gateway]\nhost = "127.0.0.1:80"\n',
        'gateway.host: must be an address or a host name without a port, not "127.0.0.1:80"',
    ),
    "address that is none": (
        '[admin]\nhost = "127.0.0.256"\n',
        'admin.host: must be an address or a host name without a port, not "127.0.0.256"',
    ),
}


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named(refusal, text, told):
    assert refusal(text).startswith(f"c.toml: {told}")


# Keys in the wrong table.

CSV_FEED = """path = "a.csv"
format = "csv"
symbol = "EUR/USD"
columns = { time = 0, bid = 1 }
time = "ms"
day = 2014-05-08
zone = "UTC"
speed = 0
loop = true
"""
KEYS_OF_CSV_FEED = "path, format, symbol, columns, time, day, zone, speed, loop"
IN_A_FEED = "belongs in a [[feeds]] table: write [[feeds]] above"


@pytest.mark.parametrize(
    ("text", "overrides", "told"),
    [
        (CSV_FEED, (), f"c.toml: {KEYS_OF_CSV_FEED}: unknown here; each {IN_A_FEED} them"),
        ("format = 1\n", (), f"c.toml: format: unknown here; {IN_A_FEED} it"),
        ("[columns]\ntime = 0\n", (), f"c.toml: columns: unknown here; {IN_A_FEED} it"),
        (
            f"[gateway]\nport = 1\n{CSV_FEED}",
            (),
            f"c.toml: {', '.join(f'gateway.{key}' for key in KEYS_OF_CSV_FEED.split(', '))}: unknown here",
        ),
        (
            "port = 9000\n",
            (),
            "c.toml: port: unknown here; belongs in the [gateway] or the [admin] table:"
            " write [gateway] or [admin] above it",
        ),
        (
            "[gateway]\ninterval_ms = 5\ndelivery = 'every'\n",
            (),
            "c.toml: gateway.interval_ms, gateway.delivery: unknown here; each belongs in the",
        ),
        (
            "",
            ("workers=2",),
            "--set workers=2: unknown here; belongs in the [engine] table: write --set engine.workers=…",
        ),
        (
            "",
            ("format=csv",),
            "--set format=csv: unknown here; belongs in a [[feeds]] table: write --set feeds.0.format=",
        ),
        (
            '[[feeds]]\ntype = "synthetic"\nworkers = 2\n',
            (),
            "c.toml: feeds.0.workers: unknown here; belongs in the [engine] table: write [engine] above it",
        ),
        ('[[feeds]]\ntype = "synthetic"\npath = "x"\n', (), "c.toml: feeds.0.path: unknown key; allowed: "),
        ("thing = 1\n", (), "c.toml: thing: unknown key; allowed: engine, gateway,"),
    ],
)
def test_keys_in_the_wrong_table_are_told_together_with_the_one_they_belong_in(
    refusal, text, overrides, told
):
    said = refusal(text, *overrides)
    assert said.startswith(told)
    assert "did you mean" not in said


@pytest.mark.parametrize("section", ["engine", "gateway", "admin", "auth", "limits", "latency", "alerts"])
def test_each_key_outside_its_section_is_told_that_section(refusal, section):
    for key in type(getattr(Config(), section)).__struct_fields__:
        assert f"[{section}]" in refusal(f"{key} = 1\n")


def test_keys_from_a_file_and_from_set_are_told_apart(loaded):
    with pytest.raises(ConfigError) as caught:
        loaded("format = 'csv'\nzone = 'UTC'\n", "day=2014-05-08", "gateway.prot=1")
    told = [
        "c.toml: format, zone: unknown here",
        "--set day=2014-05-08: unknown here",
        "--set gateway.prot=1: unkn",
    ]
    assert sorted(
        line[: len(start)] for line, start in zip(sorted(caught.value.mistakes), sorted(told), strict=True)
    ) == sorted(told)


# --set.


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("gateway.port", "--set gateway.port: must have the form dotted.path=value"),
        ("=1", "--set =1: must have the form dotted.path=value"),
        ("feeds.1.rate=1", "--set feeds.1.rate=1: there is no feed 1; there is one feed, 0 (synthetic)"),
        ("feeds.x.rate=1", "--set feeds.x.rate=1: there is no feed x; there is one feed, 0 (synthetic)"),
        ("gateway.port.x=1", "gateway.port is neither a table nor a list"),
        ("gateway.port.x.y=1", "gateway.port is neither a table nor a list"),
        (
            "gateway.port=many",
            '--set gateway.port=many: must be an integer from 0 to 65535, not the string "many"',
        ),
        ("gateway.prot=1", "--set gateway.prot=1: unknown key; did you mean port?"),
        ("nothing.here=1", "--set nothing.here=1: nothing: unknown key; allowed: engine,"),
        ("gateway={ port = 70000 }", "--set gateway={ port = 70000 }: gateway.port: must be an integer from"),
        ("gateway.port=8766", "--set gateway.port=8766: admin.port, gateway.port: must differ, and both are"),
        ("gateway.default_tier=gold", "--set gateway.default_tier=gold: must be one of the tiers"),
        (
            "limits.handshakes_per_s=0.5",
            "--set limits.handshakes_per_s=0.5: must be 0 (no limit), or from 1 to",
        ),
        ("tiers.vip.interval_ms=0.5", "--set tiers.vip.interval_ms=0.5: must be 0, or from 1 to"),
        (
            "tiers.a b.interval_ms=1",
            "--set tiers.a b.interval_ms=1: tiers.a b: a tier's name must be 1 to 32",
        ),
        ("feeds.0.rate=-1", "--set feeds.0.rate=-1: must be a number above 0, at most 5000000, not -1"),
        ("feeds.0.rte=1", "--set feeds.0.rte=1: unknown key; did you mean rate?"),
        ("feeds.0.type=synth", '--set feeds.0.type=synth: unknown feed type "synth"'),
        ("feeds=1", "--set feeds=1: must be a list of tables, each written with [[…]], not 1"),
        ("gateway.port=" + "9" * 5000, "--set gateway.port=999"),
        ("limits.stall_s=" + "[" * 5000, "--set limits.stall_s=[["),
    ],
)
def test_a_mistake_in_set_is_named(refusal, override, told):
    assert told in refusal('[gateway]\nport = 1\n[[feeds]]\ntype = "synthetic"\n', override)


@pytest.mark.parametrize(
    ("text", "override", "told"),
    [
        (
            '[gateway]\nhost = "::"\n[auth]\nanonymous = true\n',
            "auth.anonymous=false",
            'auth.mode = "keys" or "jwt" (--set auth.anonymous=false)',
        ),
    ],
)
def test_a_mistake_of_the_file_names_the_set_that_it_comes_from(refusal, text, override, told):
    assert refusal(text, override).endswith(told)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("marketfeed", '["marketfeed"]'),
        ("[marketfeed]", '["marketfeed"]'),
        ("a.example,b.example", '["a.example", "b.example"]'),
        ("[ a.example, 'b.example' ]", '["a.example", "b.example"]'),
        ("[]x", '["]x"]'),
        ("it's", '["it\'s"]'),
    ],
)
@pytest.mark.parametrize(
    "key", ["gateway.hosts", "gateway.trusted_proxies", "admin.hosts", "feeds.0.symbols"]
)
def test_text_in_place_of_a_list_is_shown_as_the_list_that_a_shell_passes_on(refusal, key, value, written):
    feed = '[[feeds]]\ntype = "synthetic"\n'
    said = refusal(feed, f"{key}={value}")
    assert said.startswith(f"--set {key}={value}: must be ")
    assert said.endswith(
        f"a list of strings, not the string {shown(value)}: write {shlex.join(['--set', f'{key}={written}'])}"
    )
    ((argument,),) = [shlex.split(said.rpartition(": write --set ")[2])]
    assert tomllib.loads(argument.partition("=")[0].rpartition(".")[2] + "=" + argument.partition("=")[2])


def test_text_in_place_of_a_list_in_a_file_is_shown_as_a_list(refusal):
    assert refusal("[gateway]\nhosts = 'a'\n") == (
        'c.toml: gateway.hosts: must be a list of strings, not the string "a": write ["a"]'
    )


@pytest.mark.parametrize(
    ("text", "override", "told"),
    [
        (
            '[[feeds]]\nname = "a"\n[[feeds]]\ntype = "push"\n',
            "feeds.2.x=1",
            "there is no feed 2; there are 2 feeds, 0 (a), 1 (push)",
        ),
        ("[[feeds]]\n", "feeds.1=1", "there is no feed 1; there is one feed, 0"),
        (
            '[[feeds]]\nname = "demo"\n',
            "feeds.demo.x=1",
            "there is no feed demo; there is one feed, 0 (demo)",
        ),
        (
            '[gateway]\nhosts = ["x", "y"]\n',
            "gateway.hosts.2=z",
            "gateway.hosts has no 2; it has 0 (x), 1 (y)",
        ),
        ("", "gateway.hosts.0=z", 'gateway.hosts: must be a list of strings, not a table: write ["z"]'),
        (
            "[gateway]\nhosts = []\n",
            "gateway.hosts.0=z",
            "gateway.hosts is empty and has no 0; set the whole list: --set 'gateway.hosts=",
        ),
    ],
)
def test_an_index_that_is_not_there_is_told_with_those_that_are(loaded, text, override, told):
    with pytest.raises(ConfigError) as caught:
        loaded(text, override)
    assert caught.value.mistakes[0].startswith(f"--set {override}: {told}")


def test_set_on_a_feed_of_a_file_without_feeds_is_an_error(refusal):
    assert "feeds.0.rate=1: the configuration has no feeds" in refusal("", "feeds.0.rate=1")


# Feeds.


def test_feeds_are_found_by_type_and_their_keys_checked(loaded):
    text = '[[feeds]]\nname = "a"\ntype = "synthetic"\nrate = 5\n[[feeds]]\ntype = "replay"\npath = "x.gz"\n'
    specs = feed_specs(loaded(text).config.feeds)
    assert [spec.name for spec in specs] == ["a", "replay"]
    assert isinstance(specs[0].settings, SyntheticConfig)
    assert specs[0].settings.rate == 5.0


FEED_MISTAKES = {
    "type that does not exist": (
        '[[feeds]]\ntype = "synth"\n',
        'feeds.0.type: unknown feed type "synth"; did you mean synthetic? one of ',
    ),
    "no type": ('[[feeds]]\nname = "a"\n', "feeds.0.type: missing; one of "),
    "two of one name": (
        '[[feeds]]\ntype = "synthetic"\n[[feeds]]\ntype = "synthetic"\n',
        'feeds.1.name: another feed is named "synthetic": feeds.0',
    ),
    "name that is no text": (
        '[[feeds]]\ntype = "synthetic"\nname = 1\n',
        "feeds.0.name: must be a string of 1 to 64 characters, not 1",
    ),
    "unknown key": (
        '[[feeds]]\ntype = "synthetic"\nrat = 1\n',
        "feeds.0.rat: unknown key; did you mean rate? allowed: name, type, required, symbols, prefix, rate,",
    ),
    "wrong type": (
        '[[feeds]]\ntype = "synthetic"\nrate = "x"\n',
        'feeds.0.rate: must be a number above 0, at most 5000000, not the string "x"',
    ),
    "out of range": (
        '[[feeds]]\ntype = "synthetic"\nrate = -1\n',
        "feeds.0.rate: must be a number above 0, at most 5000000, not -1",
    ),
    "missing key": ('[[feeds]]\ntype = "replay"\n', "feeds.0.path: missing; must be a string"),
}


@pytest.mark.parametrize(("text", "told"), FEED_MISTAKES.values(), ids=FEED_MISTAKES.keys())
def test_a_mistake_in_a_feed_is_named(refusal, text, told):
    assert told in refusal(text)


def test_configurations_do_not_change():
    name = "engine"  # as a variable, or mypy refuses it already
    with pytest.raises(AttributeError):
        setattr(Config(), name, None)
