"""Tokens: what is verified, and every way to forge one that we know of."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.access.grant import SKEW_S
from marketfeed.access.material import Material
from marketfeed.access.tokens import MAX_KEYS, MAX_TOKEN, TokenVerifier, UnknownKeyError, key_of, keys_of_set
from marketfeed.errors import AccessError, ConfigError
from tests.support.tokens import (
    ALGORITHMS,
    NOW_S,
    SECRET,
    auth_config,
    jwk,
    jwks,
    payload,
    private_pem,
    public_pem,
    raw_token,
    token,
)

DEEP = 5000


def part(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def hs256(header: Any, body: Any, secret: bytes) -> str:
    """A token with any header and payload, and a right signature with ``secret``."""
    signed = f"{part(header)}.{part(body)}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def key_for(algorithm: str, number: int = 0) -> bytes:
    return SECRET if algorithm == "HS256" else public_pem(algorithm, number)


def verifying(algorithm: str = "HS256", material: Material | None = None, **keys: Any) -> TokenVerifier:
    return TokenVerifier(
        auth_config(algorithm=algorithm, **keys), material or Material(key=key_for(algorithm))
    )


def of_set(*keys: Any, algorithm: str = "RS256") -> TokenVerifier:
    return verifying(
        algorithm, Material(jwks=jwks(*keys)), jwks="https://idp.example/keys", audience="us", issuer="idp"
    )


def refused(verifier: TokenVerifier, text: str, why: str) -> None:
    with pytest.raises(AccessError, match=why) as caught:
        verifier.verify(text, NOW_S)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_is_verified_with_the_key_of_its_algorithm(algorithm):
    assert verifying(algorithm).verify(token(algorithm, tier="vip"), NOW_S) == payload(tier="vip")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_another_key_does_not_sign_for_us(algorithm):
    refused(verifying(algorithm), token(algorithm, 1), "signature is wrong")


def test_another_secret_does_not_sign_for_us():
    refused(verifying(), hs256({"alg": "HS256"}, payload(), b"another"), "signature is wrong")
    refused(verifying(), hs256({"alg": "HS256"}, payload(), b""), "signature is wrong")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("none", ["none", "None", "NONE", "", None, 0, ["HS256"], {}])
def test_no_signature_is_none(algorithm, none):
    for text in (
        f"{part({'alg': none})}.{part(payload())}.",
        hs256({"alg": none}, payload(), key_for(algorithm)),
    ):
        with pytest.raises(AccessError):
            verifying(algorithm).verify(text, NOW_S)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret(algorithm):
    for secret in (public_pem(algorithm), public_pem(algorithm).strip()):
        forged = hs256({"alg": "HS256", "typ": "JWT"}, payload(), secret)
        refused(verifying(algorithm), forged, f"not signed with {algorithm}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_is_good_for_its_own_configuration_alone(algorithm):
    for other in ALGORITHMS:
        if other != algorithm:
            refused(verifying(other), token(algorithm), f"not signed with {other}")


def test_a_key_in_the_header_is_not_used():
    for name, value in (
        ("jwk", jwk("RS256", None, 1)),
        ("jku", "https://evil.example"),
        ("x5u", "https://e"),
    ):
        refused(verifying("RS256"), token("RS256", 1, headers={name: value}), "signature is wrong")


def test_an_extension_that_must_be_understood_is_not():
    refused(verifying(), hs256({"alg": "HS256", "crit": ["x"], "x": 1}, payload(), SECRET), "not a JSON Web")
    refused(
        verifying(), hs256({"alg": "HS256", "crit": ["b64"], "b64": False}, payload(), SECRET), "not a JSON"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "mfk_x",
        "\ud800.a.b",
        "é.é.é",
        " " * 100,
        "\x00",
        "=.=.=",
    ],
)
def test_what_is_no_token_is_refused(text):
    refused(verifying(), text, "not a JSON Web Token")
    refused(of_set(jwk("RS256", "a")), text, "not a JSON Web Token")


@given(st.text(max_size=80), st.integers(0, 300), st.binary(max_size=40))
def test_a_token_that_is_damaged_is_refused_without_another_error(noise, at, binary):
    whole = token()
    parts = ".".join([part(binary)] * 3)
    for text in (noise, whole[:at], whole[:at] + noise + whole[at:], parts):
        if text != whole:
            with pytest.raises(AccessError):
                verifying().verify(text, NOW_S)


def test_a_token_of_a_mebibyte_is_refused_unread():
    refused(verifying(), "a" * (1 << 20), f"more than {MAX_TOKEN} characters")
    refused(of_set(jwk("RS256", "a")), "a" * (1 << 20), f"more than {MAX_TOKEN} characters")


@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_nested_to_any_depth_is_refused(start, end):
    size = min(DEEP, 11_000 // (len(start) + len(end)))
    bomb = start * size + b"1" + end * size
    refused(verifying(), hs256({"alg": "HS256"}, bomb, SECRET), "not a JSON Web Token")
    refused(verifying(), f"{part(bomb)}.{part(payload())}.AA", "not a JSON Web Token")
    refused(of_set(jwk("RS256", "a")), f"{part(bomb)}.{part(payload())}.AA", "not a JSON Web Token")
    nested = b'{"sub":"ann","exp":1,"x":' + bomb + b"}"
    refused(verifying(), hs256({"alg": "HS256"}, nested, SECRET), "not a JSON Web Token")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"1", b'"ann"', b"{", b"\xff", b"{}x"])
def test_a_payload_must_be_an_object(body):
    refused(verifying(), raw_token(body), "not a JSON Web Token")


def test_of_a_claim_that_is_there_twice_the_last_one_counts():
    twice = b'{"sub":"root","sub":"ann","exp":%d,"exp":1}' % (NOW_S + 60)
    refused(verifying(), raw_token(twice), "has expired")  # as RFC 7519 §4 has it


class TestTimes:
    def test_a_token_must_expire(self):
        refused(verifying(), token(exp=...), "lacks exp")
        refused(verifying(), token(exp=None), "lacks exp")

    @pytest.mark.parametrize(
        "exp",
        ["1e400", "-1e400", "1e300", "NaN", "Infinity", "true", "false", '"2030"', "[1]", "{}", "9" * 400],
    )
    @pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
    def test_a_time_must_be_a_number_of_a_size_that_can_be(self, claim, exp):
        body = f'{{"sub":"ann","exp":{int(NOW_S) + 60},"{claim}":{exp}}}'
        refused(verifying(), raw_token(body.encode()), f"{claim} is not a time")

    def test_more_digits_than_python_reads_are_no_token(self):
        refused(verifying(), raw_token(b'{"sub":"ann","exp":' + b"9" * 5000 + b"}"), "not a JSON Web Token")

    def test_an_expired_token_is_accepted_for_the_skew_of_clocks(self):
        verifying().verify(token(exp=NOW_S - SKEW_S), NOW_S)
        refused(verifying(), token(exp=NOW_S - SKEW_S - 1), "has expired")
        refused(verifying(), token(exp=0), "has expired")

    def test_a_token_that_is_not_valid_yet_is_refused(self):
        verifying().verify(token(nbf=NOW_S + SKEW_S, iat=NOW_S + SKEW_S), NOW_S)
        refused(verifying(), token(nbf=NOW_S + SKEW_S + 1), "not valid yet")
        refused(verifying(), token(iat=NOW_S + SKEW_S + 1), "issued in the future")

    def test_a_token_may_be_valid_for_so_long_only(self):
        verifying(max_ttl_s=3600.0).verify(token(exp=NOW_S + 3600 + SKEW_S), NOW_S)
        refused(verifying(max_ttl_s=3600.0), token(exp=NOW_S + 3601 + SKEW_S), "longer than auth.max_ttl_s")

    def test_fractions_of_seconds_are_times(self):
        assert verifying().verify(token(exp=NOW_S + 0.5), NOW_S)["exp"] == NOW_S + 0.5


class TestAudienceAndIssuer:
    @pytest.mark.parametrize("aud", ["us", ["them", "us"]])
    def test_one_of_the_audiences_must_be_ours(self, aud):
        assert verifying(audience="us", issuer="idp").verify(token(aud=aud, iss="idp"), NOW_S)

    @pytest.mark.parametrize("aud", ["them", "", [], ["them"], [1], 1, {"us": 1}, "u", ["us", 1]])
    def test_another_audience_is_refused(self, aud):
        refused(verifying(audience="us"), token(aud=aud), "another audience|lacks aud")

    @pytest.mark.parametrize("iss", ["them", "id", "", ["idp"], 1, {}])
    def test_another_issuer_is_refused(self, iss):
        refused(verifying(issuer="idp"), token(iss=iss), "another issuer|not a JSON Web Token")

    def test_what_is_configured_must_be_there(self):
        refused(verifying(audience="us"), token(), "lacks aud")
        refused(verifying(issuer="idp"), token(), "lacks iss")

    def test_an_issuer_that_is_not_configured_is_not_checked(self):
        assert verifying().verify(token(iss="anybody", aud=None), NOW_S)

    @pytest.mark.parametrize("aud", ["them", "", [], ["them"], 1])
    def test_a_token_with_an_audience_is_refused_if_none_is_configured(self, aud):
        refused(verifying(), token(aud=aud), "auth.audience is not set")


class TestRotation:
    def test_the_previous_key_is_accepted_until_its_time(self):
        both = Material(
            key=public_pem("ES256"), previous_key=public_pem("ES256", 1), previous_until_s=NOW_S + 10
        )
        verifier = verifying("ES256", both)
        assert verifier.verify(token("ES256"), NOW_S)
        assert verifier.verify(token("ES256", 1), NOW_S + 10)
        with pytest.raises(AccessError, match="signature is wrong"):
            verifier.verify(token("ES256", 1), NOW_S + 11)
        with pytest.raises(AccessError, match="signature is wrong"):
            verifier.verify(token("ES256", 2), NOW_S)

    def test_the_previous_key_does_not_excuse_another_mistake(self):
        both = Material(key=public_pem("ES256"), previous_key=public_pem("ES256", 1))
        refused(verifying("ES256", both), token("ES256", 1, exp=1), "has expired")

    def test_without_a_key_no_token_is_accepted(self):
        refused(verifying("HS256", Material()), token(), "no key to verify")
        with pytest.raises(UnknownKeyError):
            verifying("ES256", Material(), jwks="https://idp.example").verify(token("ES256"), NOW_S)


OURS: Any = {"aud": "us", "iss": "idp"}


class TestSets:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_the_kid_chooses_the_key(self, algorithm):
        verifier = of_set(jwk(algorithm, "a"), jwk(algorithm, "b", 1), algorithm=algorithm)
        assert verifier.verify(token(algorithm, headers={"kid": "a"}, **OURS), NOW_S)
        assert verifier.verify(token(algorithm, 1, headers={"kid": "b"}, **OURS), NOW_S)
        refused(verifier, token(algorithm, 1, headers={"kid": "a"}, **OURS), "signature is wrong")

    @pytest.mark.parametrize("kid", ["c", "", "../../a", "a\x00"])
    def test_an_unknown_kid_is_told_apart(self, kid):
        with pytest.raises(UnknownKeyError, match="no key has the token's kid"):
            of_set(jwk("RS256", "a")).verify(token("RS256", headers={"kid": kid}, **OURS), NOW_S)

    @pytest.mark.parametrize("kid", [1, True, ["a"], {"a": 1}])
    def test_a_kid_must_be_text(self, kid):
        text = hs256({"alg": "RS256", "kid": kid}, payload(**OURS), b"x")
        refused(of_set(jwk("RS256", "a")), text, "not a JSON Web Token|no key")

    def test_without_a_kid_the_only_key_is_used(self):
        assert of_set(jwk("RS256", "a")).verify(token("RS256", **OURS), NOW_S)
        assert of_set(jwk("RS256", None)).verify(token("RS256", **OURS), NOW_S)
        with pytest.raises(UnknownKeyError):
            of_set(jwk("RS256", "a"), jwk("RS256", "b", 1)).verify(token("RS256", **OURS), NOW_S)

    def test_keys_for_other_purposes_are_left_out(self):
        document = jwks(
            jwk("RS256", "encryption") | {"use": "enc"},
            jwk("RS256", "rs512") | {"alg": "RS512"},
            jwk("RS256", "short", size=1024),
            jwk("RS256", "broken") | {"n": 5},
            jwk("RS256", "empty") | {"n": "", "e": ""},
            jwk("EdDSA", "other type"),
            {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
            {"kty": "RSA"},
            "text",
            None,
            jwk("RS256", "good"),
        )
        assert list(keys_of_set(document, "RS256")) == ["good"]

    def test_of_a_private_key_the_public_half_is_used(self):
        assert of_set(jwk("RS256", "a", private=True)).verify(token("RS256", **OURS), NOW_S)

    def test_a_curve_of_another_algorithm_is_left_out(self):
        with pytest.raises(AccessError, match="no key for ES256"):
            keys_of_set(jwks(jwk("ES256", "a") | {"crv": "P-384"}), "ES256")

    @pytest.mark.parametrize(
        "document",
        [
            b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b'{"keys": 1}', b"\xff",
            b"[" * 100_000,
            b'{"keys": [' + b",".join([b"{}"] * (MAX_KEYS + 1)) + b"]}",
        ],
    )  # fmt: skip
    def test_what_is_no_set_is_refused(self, document):
        with pytest.raises(AccessError, match="not a JWKS document"):
            keys_of_set(document, "RS256")


class TestKeys:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_of_a_private_key_the_public_half_is_kept(self, algorithm):
        material = Material(key=private_pem(algorithm))
        assert verifying(algorithm, material).verify(token(algorithm), NOW_S)
        assert not hasattr(key_of(private_pem(algorithm), algorithm, "auth.key_file"), "private_bytes")

    @pytest.mark.parametrize(
        ("algorithm", "data", "why"),
        [
            ("HS256", b"short", "at least 32 bytes"),
            ("HS256", b" " * 40, "at least 32 bytes"),
            ("HS256", public_pem("EdDSA"), "a PEM key is no secret"),
            ("RS256", SECRET, "a public key for RS256 in PEM"),
            ("RS256", b" ", "a public key for RS256 in PEM"),
            ("RS256", b"\xff" * 40, "a public key for RS256 in PEM"),
            ("EdDSA", b"\xff" * 40, "a public key for EdDSA in PEM"),
            ("RS256", public_pem("ES256"), "a public key for RS256 in PEM"),
            ("ES256", public_pem("RS256"), "a public key for ES256 in PEM"),
            ("EdDSA", public_pem("RS256"), "a public key for EdDSA in PEM"),
            ("RS256", public_pem("RS256").replace(b"M", b"N"), "a public key for RS256 in PEM"),
            ("RS256", public_pem("RS256", size=1024), "at least 2048 bits, not 1024"),
            ("ES256", public_pem("ES256", size=384), "P-256|a public key for ES256"),
        ],
    )
    def test_a_key_that_is_not_one_for_the_algorithm_is_a_mistake(self, algorithm, data, why):
        with pytest.raises(ConfigError, match=f"^auth.key_file: .*({why})"):
            verifying(algorithm, Material(key=data))
        with pytest.raises(ConfigError, match=r"^auth.previous_key_file: "):
            verifying(algorithm, Material(key=key_for(algorithm), previous_key=data))
