"""Reading what `[auth]` names: every mistake is found, and named by its key."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from marketfeed import checks, http_client
from marketfeed.access.keys_file import add_key
from marketfeed.access.loading import MAX_KEY_BYTES, VARIABLE, exposed, load_material
from marketfeed.access.material import KeyEntry, Material
from marketfeed.config.schema import load
from marketfeed.errors import ConfigError
from tests.support.tokens import SECRET, auth_config, jwk, jwks, private_pem, public_pem

UNTIL = datetime.datetime(2030, 1, 31, tzinfo=datetime.UTC)
ADDRESS = "https://idp.example/keys"


def file(folder, name: str, data: bytes, mode: int = 0o600) -> str:
    path = folder / name
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def mistakes(environ: Any = None, **keys: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_material(auth_config(**keys), environ or {})
    assert SECRET.decode() not in str(caught.value)
    return list(caught.value.mistakes)


def test_without_access_control_nothing_is_read(tmp_path):
    assert load_material(auth_config(mode="none", key_file="/none", keys_file="/none"), {}) == Material()


def test_keys_are_those_of_the_file(tmp_path):
    entry = KeyEntry("0123456789ab", "0" * 64, 1, {"sub": "ann"})
    add_key(tmp_path / "keys.json", entry)
    config = auth_config(mode="keys", algorithm=None, keys_file=str(tmp_path / "keys.json"))
    assert load_material(config, {VARIABLE: "unused"}) == Material(keys=(entry,))


def test_a_key_is_from_a_file_or_the_environment(tmp_path):
    path = file(tmp_path, "key", SECRET + b"\n")
    assert load_material(auth_config(key_file=path), {}).key.strip() == SECRET
    assert load_material(auth_config(key_file=path), {VARIABLE: ""}).key.strip() == SECRET
    assert load_material(auth_config(), {VARIABLE: SECRET.decode()}).key == SECRET
    pem = public_pem("EdDSA")
    assert load_material(auth_config(algorithm="EdDSA"), {VARIABLE: pem.decode()}).key == pem


def test_it_must_be_from_one_of_them(tmp_path):
    path = file(tmp_path, "key", SECRET)
    (line,) = mistakes({VARIABLE: SECRET.decode()}, key_file=path)
    assert line == f"auth.key_file: not allowed together with the environment variable {VARIABLE}"
    (line,) = mistakes()
    assert line.startswith("auth.key_file: missing; ")
    assert VARIABLE in line
    (line,) = mistakes({VARIABLE: "x"}, algorithm="RS256", jwks=file(tmp_path, "s", jwks(jwk("RS256", "a"))))
    assert line == f"auth.jwks: not allowed together with the environment variable {VARIABLE}"


def test_the_previous_key_has_a_time(tmp_path):
    found = load_material(
        auth_config(
            algorithm="ES256",
            key_file=file(tmp_path, "key", public_pem("ES256")),
            previous_key_file=file(tmp_path, "old", public_pem("ES256", 1)),
            valid_until=UNTIL,
        ),
        {},
    )
    assert found.previous_key == public_pem("ES256", 1)
    assert found.previous_until_s == UNTIL.timestamp()


def test_a_set_of_keys_is_read_from_its_file_and_not_fetched(tmp_path):
    document = jwks(jwk("RS256", "a"))
    path = file(tmp_path, "jwks.json", document, 0o644)
    assert load_material(auth_config(algorithm="RS256", jwks=path), {}).jwks == document
    assert load_material(auth_config(algorithm="RS256", jwks=ADDRESS), {}) == Material()


def test_every_mistake_is_reported(tmp_path):
    wrong = file(tmp_path, "key", public_pem("ES256"))
    assert mistakes(algorithm="RS256", key_file=wrong, previous_key_file=str(tmp_path / "none")) == [
        "auth.key_file: must hold a public key for RS256 in PEM",
        f"auth.previous_key_file: {tmp_path / 'none'}: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"short", "at least 32 bytes"),
        (private_pem("EdDSA"), "a PEM key is no secret"),
        (b"a" * (MAX_KEY_BYTES + 1), "more than 65,536 bytes"),
    ],
)
def test_a_wrong_key_file_is_a_mistake(tmp_path, data, why):
    for key in ("key_file", "previous_key_file"):
        environ = {} if key == "key_file" else {VARIABLE: SECRET.decode()}
        (line,) = mistakes(environ, **{key: file(tmp_path, "key", data)})
        assert line.startswith(f"auth.{key}: ")
        assert why in line


def test_what_is_no_path_is_a_mistake():
    assert mistakes(key_file="a\x00b") == ["auth.key_file: must be the path of a file"]


def test_a_wrong_key_in_the_environment_is_a_mistake():
    (line,) = mistakes({VARIABLE: "x"})
    assert line == (
        f"auth.key_file: the environment variable {VARIABLE}: a secret of HS256 must have at least 32 bytes"
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<html>", "not a JWKS document"),
        (jwks(), "has no key for RS256"),
        (jwks(jwk("ES256", "a")), "has no key for RS256"),
        (b" " * ((1 << 20) + 1), "more than 1,048,576 bytes"),
    ],
)
def test_a_wrong_set_of_keys_is_a_mistake(tmp_path, data, why):
    (line,) = mistakes(algorithm="RS256", jwks=file(tmp_path, "jwks.json", data))
    assert line.startswith("auth.jwks: ")
    assert why in line


def test_authorities_that_cannot_be_read_are_a_mistake(tmp_path, monkeypatch):
    http_client._trusted.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    (line,) = mistakes(algorithm="RS256", jwks=ADDRESS)
    assert line.startswith("auth.jwks: ")
    assert "SSL_CERT_FILE" in line
    http_client._trusted.cache_clear()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_files_that_others_may_write_are_refused(tmp_path, mode):
    path = file(tmp_path, "key", SECRET, mode)
    (line,) = mistakes(key_file=path)
    assert line == f"auth.key_file: {path} may be written by its group or by all users: chmod go-w {path}"
    path = file(tmp_path, "jwks", jwks(jwk("RS256", "a")), mode)
    assert "chmod go-w" in mistakes(algorithm="RS256", jwks=path)[0]


def test_what_the_rules_of_the_configuration_report_is_not_reported_again():
    assert load_material(auth_config(algorithm=None), {}) == Material()
    assert load_material(auth_config(mode="keys", keys_file=None), {}) == Material()


class TestExposed:
    def test_secrets_that_every_user_can_read_are_warned_of(self, tmp_path):
        path = file(tmp_path, "key", SECRET, 0o644)
        other = file(tmp_path, "old", SECRET, 0o604)
        assert exposed(auth_config(key_file=path, previous_key_file=other)) == [
            f"auth.key_file: every user may read {path}: chmod o-r {path}",
            f"auth.previous_key_file: every user may read {other}: chmod o-r {other}",
        ]
        assert exposed(auth_config(mode="keys", keys_file=path)) == [
            f"auth.keys_file: every user may read {path}: chmod o-r {path}"
        ]

    def test_public_keys_and_protected_files_are_not(self, tmp_path):
        public = file(tmp_path, "public", public_pem("RS256"), 0o644)
        protected = file(tmp_path, "key", SECRET, 0o640)
        assert exposed(auth_config(algorithm="RS256", key_file=public)) == []
        assert exposed(auth_config(key_file=protected)) == []
        assert exposed(auth_config(key_file=str(tmp_path / "none"))) == []
        assert exposed(auth_config(mode="none", key_file=public)) == []

    def test_a_private_key_is_a_secret(self, tmp_path):
        path = file(tmp_path, "private", private_pem("RS256"), 0o644)
        (line,) = exposed(auth_config(algorithm="RS256", key_file=path))
        assert line.startswith("auth.key_file: ")
        assert "private key" in line

    def test_the_check_of_a_configuration_warns_of_them(self, tmp_path):
        path = file(tmp_path, "key", SECRET, 0o644)
        (tmp_path / "c.toml").write_text('[auth]\nmode = "jwt"\nalgorithm = "HS256"\nkey_file = "key"\n')
        told = f"{tmp_path / 'c.toml'}: auth.key_file: every user may read {path}: chmod o-r {path}"
        assert told in checks.idle(load(tmp_path / "c.toml"))


def test_the_check_of_a_configuration_finds_a_wrong_key(tmp_path):
    file(tmp_path, "key", public_pem("ES256"))
    (tmp_path / "c.toml").write_text('[auth]\nmode = "jwt"\nalgorithm = "EdDSA"\nkey_file = "key"\n')
    wrong = "auth.key_file: must hold a public key for EdDSA in PEM"
    assert checks.mistakes(load(tmp_path / "c.toml")) == [wrong]
