"""Makes keys and signs tokens, for development and for services without an identity provider."""

from __future__ import annotations

import secrets
from typing import Any, Final, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from marketfeed.access.tokens import key_of
from marketfeed.errors import ConfigError

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
RSA_BITS: Final = 3072
_PEM: Final = serialization.Encoding.PEM


def new_signing_key(algorithm: Algorithm) -> tuple[bytes, bytes]:
    """Return a new private key and its public half, in PEM; for HS256 a secret and nothing."""
    if algorithm == "HS256":
        return f"{secrets.token_urlsafe(48)}\n".encode(), b""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "RS256":
        key = rsa.generate_private_key(65537, RSA_BITS)
    elif algorithm == "ES256":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def algorithm_of(private: bytes) -> Algorithm:
    """Return the algorithm that a private key in PEM signs with; raises ValueError if it is none."""
    key = _private(private)
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return "EdDSA"
    raise ValueError("must hold a private key of RSA, P-256 or Ed25519")


def signed(payload: dict[str, Any], key: bytes, algorithm: Algorithm, name: str, kid: str | None) -> str:
    """Return a token that is signed with a secret, or with a private key in PEM.

    Raises ConfigError (``name: what is wrong``) if it is not one for ``algorithm``.
    """
    headers = None if kid is None else {"kid": kid}
    if algorithm != "HS256":
        try:
            own = algorithm_of(key)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
        if own != algorithm:
            raise ConfigError(f"{name}: a key for {own}, and the algorithm is {algorithm}")
    key_of(key, algorithm, name)  # refuses weak keys
    return jwt.encode(payload, key.strip() if algorithm == "HS256" else _private(key), algorithm, headers)


def _private(data: bytes) -> Any:
    """Return the private key in ``data``; raises ValueError."""
    try:
        return serialization.load_pem_private_key(data.strip(), password=None)
    except TypeError:
        raise ValueError("the key is encrypted: openssl pkey -in FILE -out PLAIN decrypts it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("must hold a private key in PEM") from None
