"""Keys, tokens and configurations for tests of access."""

from __future__ import annotations

import functools
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from marketfeed.access.material import Material
from marketfeed.access.verifier import Verifier
from marketfeed.config.schema import AuthConfig, Config, TierConfig

NOW_S = 1_795_802_400.0  # 2026-11-27T18:00:00Z
SECRET = b"an HS256 secret of 32 or more bytes"
TIERS = {
    "vip": TierConfig(0, "every"),
    "premium": TierConfig(100, "latest"),
    "basic": TierConfig(500, "latest"),
}
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")


def auth_config(**keys: Any) -> AuthConfig:
    return AuthConfig(**{"mode": "jwt", "algorithm": "HS256", **keys})


def config(**keys: Any) -> Config:
    return Config(auth=auth_config(**keys), tiers=TIERS)


def private_key(algorithm: str, number: int = 0, size: int = 2048) -> Any:
    """A private key; each ``number`` has its own."""
    return _private_key(algorithm, number, size)


@functools.cache
def _private_key(algorithm: str, number: int, size: int) -> Any:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, size)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1() if size == 2048 else ec.SECP384R1())
    return ed25519.Ed25519PrivateKey.generate()


def private_pem(algorithm: str, number: int = 0, size: int = 2048) -> bytes:
    return private_key(algorithm, number, size).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(algorithm: str, number: int = 0, size: int = 2048) -> bytes:
    return (
        private_key(algorithm, number, size)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def jwk(algorithm: str, kid: str | None, number: int = 0, *, private: bool = False, size: int = 2048) -> Any:
    """A key of a JWKS document; no `kid` if it is None."""
    key = private_key(algorithm, number, size)
    found = jwt.get_algorithm_by_name(algorithm).to_jwk(key if private else key.public_key(), as_dict=True)
    found.pop("key_ops", None)
    return found | ({} if kid is None else {"kid": kid})


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def payload(**claims: Any) -> dict[str, Any]:
    """The payload of a token that is valid for an hour; a claim that is ... is left out."""
    found = {"sub": "ann", "iat": int(NOW_S), "exp": int(NOW_S) + 3600, "symbols": ["*"], **claims}
    return {name: value for name, value in found.items() if value is not ...}


def token(algorithm: str = "HS256", number: int = 0, *, headers: Any = None, **claims: Any) -> str:
    return raw_token(json.dumps(payload(**claims)).encode(), algorithm, number, headers=headers)


def raw_token(data: bytes, algorithm: str = "HS256", number: int = 0, *, headers: Any = None) -> str:
    """A token whose payload is ``data``, JSON or not."""
    key = SECRET if algorithm == "HS256" else private_key(algorithm, number)
    return jwt.PyJWS().encode(data, key, algorithm, headers)


def verifier(material: Material | None = None, **keys: Any) -> Verifier:
    return Verifier(config(**keys), material or Material(key=SECRET))
