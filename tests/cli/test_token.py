"""`marketfeed token`: each token that it prints is one that the engine accepts."""

from __future__ import annotations

import stat
import time
import tomllib

import jwt
import pytest

from marketfeed.access.loading import VARIABLE, load_material
from marketfeed.access.minting import algorithm_of
from marketfeed.access.verifier import Verifier
from marketfeed.config.schema import load
from tests.support.in_process import runner
from tests.support.tokens import SECRET, jwk, jwks, private_pem, public_pem

ALGORITHMS = ["HS256", pytest.param("RS256", marks=pytest.mark.slow), "ES256", "EdDSA"]


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return runner(capsys)


def write(folder, name, data, mode=0o600):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    (folder / name).chmod(mode)


def accepted(text):
    """Return the grant that the engine gives for a token, with ./config.toml."""
    config = load(None).config
    return Verifier(config, load_material(config.auth, {})).verify(text.strip(), time.time())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_key_signs_tokens_that_the_printed_configuration_accepts(run, tmp_path, algorithm):
    made = run("token", "--new-key", "jwt.key", "--algorithm", algorithm)
    assert (made.status, made.out) == (0, "")
    comment, *lines = made.err.splitlines()
    assert comment.endswith("In config.toml:")
    write(tmp_path, "config.toml", "\n".join(lines))
    assert tomllib.loads("\n".join(lines))["auth"]["algorithm"] == algorithm
    done = run(
        "token", "--private-key", "jwt.key", "--sub", "ann", "--tier", "premium", "--symbols", "BTC*,A"
    )
    assert done.status == 0
    assert "warning" not in done.err
    grant = accepted(done.out)
    assert grant.claims.sub == "ann"
    assert grant.entitlement.tiers == ("premium", "basic")
    assert grant.entitlement.narrow(0, ["*"]) == ["BTC*", "A"]
    assert grant.token_id
    assert f"token {grant.token_id} of ann, valid until " in done.err
    assert grant.expires_s - grant.issued_s == 3600


def test_the_private_half_is_for_its_owner_alone(run, tmp_path):
    run("token", "--new-key", "jwt.key")
    assert stat.S_IMODE((tmp_path / "jwt.key").stat().st_mode) == 0o600
    assert algorithm_of((tmp_path / "jwt.key").read_bytes()) == "EdDSA"
    assert b"PRIVATE" not in (tmp_path / "jwt.key.pub").read_bytes()


@pytest.mark.parametrize("name", ["jwt.key", "jwt.key.pub"])
def test_a_file_that_exists_is_not_overwritten(run, tmp_path, name):
    write(tmp_path, name, "kept")
    done = run("token", "--new-key", "jwt.key")
    assert done.status == 2
    assert "it is not overwritten" in done.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "kept"


def test_a_folder_that_does_not_exist_is_created_for_its_owner_alone(run, tmp_path):
    assert run("token", "--new-key", "var/keys/jwt.key").status == 0
    assert stat.S_IMODE((tmp_path / "var" / "keys").stat().st_mode) == 0o700
    write(tmp_path, "file", "kept")
    done = run("token", "--new-key", "file/jwt.key")
    assert (done.status, done.err) == (
        2,
        "marketfeed: --new-key file/jwt.key: file is a file, and no folder\n",
    )


@pytest.mark.parametrize("place", ["file", "environment"])
def test_hs256_signs_with_the_secret_of_the_engine(run, tmp_path, monkeypatch, place):
    config = '[auth]\nmode = "jwt"\nalgorithm = "HS256"\n'
    if place == "file":
        config += 'key_file = "secret"\n'
        write(tmp_path, "secret", SECRET)
    else:
        monkeypatch.setenv(VARIABLE, SECRET.decode())
    write(tmp_path, "config.toml", config)
    done = run("token", "--sub", "ann", "--symbols", "*")
    assert done.status == 0
    assert "warning" not in done.err
    assert jwt.decode(done.out.strip(), SECRET, ["HS256"])["sub"] == "ann"
    assert SECRET.decode() not in done.out + done.err


def test_claims_audience_and_issuer_are_those_of_the_configuration(run, tmp_path):
    write(tmp_path, "key.pem", private_pem("ES256"))
    write(tmp_path, "key.pub", public_pem("ES256"), 0o644)
    write(
        tmp_path,
        "config.toml",
        '[auth]\nmode = "jwt"\nalgorithm = "ES256"\nkey_file = "key.pub"\naudience = "us"\nissuer = "idp"\n'
        '[auth.claims]\nsub = "email"\ntier = "https://example.com/tier"\n',
    )
    done = run(
        "token", "--private-key", "key.pem", "--sub", "ann", "--tier", "vip", "--symbols", "*", "--ttl", "7d",
        "--max-sessions", 3, "--kid", "k1",
    )  # fmt: skip
    assert "warning" not in done.err
    text = done.out.strip()
    payload = jwt.decode(text, public_pem("ES256"), ["ES256"], audience="us", issuer="idp")
    assert jwt.get_unverified_header(text)["kid"] == "k1"
    assert set(payload) == {
        "email", "https://example.com/tier", "symbols", "max_sessions", "iat", "exp", "jti", "aud", "iss",
    }  # fmt: skip
    assert payload["exp"] - payload["iat"] == 7 * 86_400
    assert accepted(text).claims.max_sessions == 3


def test_a_set_of_keys_chooses_by_kid(run, tmp_path):
    write(tmp_path, "key.pem", private_pem("ES256", 1))
    write(tmp_path, "jwks.json", jwks(jwk("ES256", "a"), jwk("ES256", "b", 1)), 0o644)
    write(
        tmp_path,
        "config.toml",
        '[auth]\nmode = "jwt"\nalgorithm = "ES256"\njwks = "jwks.json"\naudience = "us"\nissuer = "idp"\n',
    )
    arguments = ("token", "--private-key", "key.pem", "--sub", "ann", "--symbols", "*")
    assert accepted(run(*arguments, "--kid", "b").out)
    assert "the engine will refuse it: the token's signature is wrong" in run(*arguments, "--kid", "a").err
    assert "no key has the token's kid" in run(*arguments).err
    remote = ("--set", "auth.jwks=https://idp.example/keys")
    assert "without --kid" in run(*arguments, *remote).err
    assert "warning" not in run(*arguments, *remote, "--kid", "b").err


class TestWarnings:
    @pytest.fixture(autouse=True)
    def configured(self, tmp_path):
        write(tmp_path, "secret", SECRET)
        write(tmp_path, "config.toml", '[auth]\nmode = "jwt"\nalgorithm = "HS256"\nkey_file = "secret"\n')

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (["--symbols", "*", "--tier", "gold"], "invalid: tier: no such tier: 'gold'"),
            (["--symbols", "*", "--ttl", "52w"], "it: the token is valid for longer than auth.max_ttl_s"),
            ([], "it shows no symbol"),
            (["--symbols", "*", "--set", "auth.mode=none"], 'auth.mode is "none": set it to "jwt"'),
        ],
    )  # fmt: skip
    def test_a_token_that_the_engine_would_refuse_is_warned_of(self, run, arguments, why):
        done = run("token", "--sub", "ann", *arguments)
        assert done.status == 0
        assert done.out.count(".") == 2
        assert why in next(line for line in done.err.splitlines() if "warning: " in line)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "--sub: required"),
        (["--sub", "ann"], "auth.algorithm: missing; marketfeed token --new-key FILE"),
        (["--sub", "ann", "--algorithm", "RS256"], "--private-key: required with RS256"),
        (["--sub", "ann", "--algorithm", "HS256"], "auth.key_file: missing"),
        (["--sub", "ann", "--algorithm", "none"], "--algorithm none: must be one of HS256"),
        (["--sub", "ann", "--private-key", "none.pem"], "--private-key: none.pem: No such file"),
        (["--sub", "ann", "--private-key", "text"], "--private-key: text: must hold a private key in PEM"),
        (
            ["--sub", "ann", "--private-key", "public"],
            "--private-key: public: must hold a private key in PEM",
        ),
        (["--sub", "ann", "--private-key", "weak"], "an RSA key must have at least 2048 bits"),
        (["--sub", "ann", "--private-key", "curve"], "P-256"),
        (["--sub", "ann", "--private-key", "loose"], "may be written by its group"),
        (
            ["--sub", "ann", "--private-key", "weak", "--algorithm", "EdDSA"],
            "--private-key: weak: a key for RS256, and the algorithm is EdDSA",
        ),
        (["--sub", "ann", "--ttl", "1x"], "--ttl: '1x' is not a duration"),
        (["--sub", "ann", "--ttl", "0s"], "--ttl: '0s': must be above 0"),
        (["--sub", "ann", "--symbols", "A B"], "symbols: not a symbol"),
        (["--sub", "a\n"], "sub: characters"),
        (["--new-key", "k", "--sub", "ann"], "--new-key: makes a key and no token"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, arguments, why):
    write(tmp_path, "text", "text")
    write(tmp_path, "public", public_pem("RS256"))
    write(tmp_path, "weak", private_pem("RS256", size=1024))
    write(tmp_path, "curve", private_pem("ES256", size=384))
    write(tmp_path, "loose", private_pem("RS256"), 0o666)
    done = run("token", *arguments)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("marketfeed: ")
    assert why in line


@pytest.mark.parametrize("mode", ["none", "jwt"])
def test_a_token_that_lasts_too_long_is_warned_of_however_it_is_verified(run, tmp_path, mode):
    write(tmp_path, "secret", SECRET)
    more = "" if mode == "none" else 'jwks = "https://idp.example/keys"\naudience = "us"\nissuer = "idp"\n'
    write(tmp_path, "config.toml", f'[auth]\nmode = "{mode}"\nalgorithm = "ES256"\n{more}')
    write(tmp_path, "key.pem", private_pem("ES256"))
    done = run("token", "--sub", "ann", "--symbols", "*", "--private-key", "key.pem", "--ttl", "90d")
    told = "marketfeed: warning: the engine will refuse it: the token is valid for longer than auth.max_ttl_s"
    assert done.status == 0
    assert told in done.err.splitlines()


@pytest.mark.parametrize(("count", "warned"), [(500, False), (1000, True)])
def test_a_token_that_does_not_fit_into_a_head_is_warned_of(run, tmp_path, count, warned):
    write(tmp_path, "secret", SECRET)
    write(tmp_path, "config.toml", '[auth]\nmode = "jwt"\nalgorithm = "HS256"\nkey_file = "secret"\n')
    done = run("token", "--sub", "ann", "--symbols", ",".join(f"SY{number:04}" for number in range(count)))
    assert done.status == 0
    assert ("a head over HTTP may have 8 KiB" in done.err) is warned


def test_help_shows_examples(run):
    done = run("token", "--help")
    assert "marketfeed token --new-key" in done.out
    assert "--private-key" in done.out
