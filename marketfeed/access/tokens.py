"""JSON Web Tokens (RFC 7519): signature, audience, issuer and times. One algorithm, which the operator chose.

The header of a token chooses nothing but which key of a set, by `kid`. PyJWT checks signatures; times are
checked here, by the engine's clock, and strictly: numbers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm

from marketfeed.access.grant import SKEW_S
from marketfeed.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jwt.types import Options

    from marketfeed.access.material import Material
    from marketfeed.config.schema import AuthConfig

MAX_TOKEN: Final = 16_384  # characters
LEAST_SECRET: Final = 32  # bytes of an HS256 secret, as RFC 7518 §3.2 asks for
LEAST_RSA: Final = 2048  # bits of an RSA key, as RFC 7518 §3.3 asks for
MAX_KEYS: Final = 200  # of a JWKS document
_KEY_TYPES: Final = {"HS256": "oct", "RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}


class UnknownKeyError(AccessError):
    """No key of the set has the `kid` of a token: the set may have to be fetched again."""


class TokenVerifier:
    """Verifies tokens with the keys of one Material."""

    def __init__(self, config: AuthConfig, material: Material) -> None:
        """Raise ConfigError if a key is not one for the configured algorithm."""
        assert config.algorithm is not None
        self._config, self._algorithm = config, config.algorithm
        self._previous_until_s = material.previous_until_s
        self._key = key_of(material.key, self._algorithm, "auth.key_file") if material.key else None
        self._previous = (
            key_of(material.previous_key, self._algorithm, "auth.previous_key_file")
            if material.previous_key
            else None
        )
        self._by_kid = keys_of_set(material.jwks, self._algorithm) if material.jwks else {}

    @property
    def rotates(self) -> bool:
        """Return whether there is a previous key, which is accepted for some time only."""
        return self._previous is not None

    def verify(self, token: str, now_s: float) -> dict[str, Any]:
        """Return the payload of a valid token; raises AccessError."""
        if len(token) > MAX_TOKEN:
            raise AccessError(f"the token has more than {MAX_TOKEN} characters")
        refusal: AccessError | None = None
        for key in self._candidates(token, now_s):
            try:
                payload = self._decoded(token, key)
            except AccessError as error:
                refusal = refusal or error
                continue
            self._check_times(payload, now_s)
            return payload
        raise refusal or AccessError("there is no key to verify tokens with yet")

    def _candidates(self, token: str, now_s: float) -> Iterator[Any]:
        if self._config.jwks is not None:
            yield self._of_set(token)
            return
        if self._key is not None:
            yield self._key
        until_s = self._previous_until_s
        if self._previous is not None and (until_s is None or now_s <= until_s):
            yield self._previous

    def _of_set(self, token: str) -> Any:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, RecursionError, ValueError):
            raise AccessError("not a JSON Web Token") from None
        if kid is None and len(self._by_kid) == 1:
            return next(iter(self._by_kid.values()))
        found = self._by_kid.get(kid) if isinstance(kid, str) else None
        if found is None:
            raise UnknownKeyError("no key has the token's kid")
        return found

    def _decoded(self, token: str, key: Any) -> dict[str, Any]:
        config = self._config
        options: Options = {
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_sub": False,
            "verify_aud": config.audience is not None,
        }
        try:
            payload: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[self._algorithm],
                audience=config.audience,
                issuer=config.issuer,
                options=options,
            )
        except jwt.InvalidAudienceError:
            raise AccessError("the token is for another audience") from None
        except jwt.InvalidIssuerError:
            raise AccessError("the token is of another issuer") from None
        except jwt.MissingRequiredClaimError as error:
            raise AccessError(f"the token lacks {error.claim}") from None
        except jwt.InvalidAlgorithmError:
            raise AccessError(f"the token is not signed with {self._algorithm}") from None
        except jwt.InvalidSignatureError:
            raise AccessError("the token's signature is wrong") from None
        except (jwt.PyJWTError, RecursionError, ValueError, TypeError, OverflowError):
            raise AccessError("not a JSON Web Token") from None
        if config.audience is None and payload.get("aud") is not None:  # RFC 7519, section 4.1.3
            raise AccessError("the token has an audience (aud), and auth.audience is not set")
        return payload

    def _check_times(self, payload: dict[str, Any], now_s: float) -> None:
        expires_s = _time(payload, "exp")
        if expires_s is None:
            raise AccessError("the token lacks exp")
        if now_s > expires_s + SKEW_S:
            raise AccessError("the token has expired")
        if expires_s - now_s > self._config.max_ttl_s + SKEW_S:
            raise AccessError("the token is valid for longer than auth.max_ttl_s")
        if (_time(payload, "nbf") or 0.0) > now_s + SKEW_S:
            raise AccessError("the token is not valid yet")
        if (_time(payload, "iat") or 0.0) > now_s + SKEW_S:
            raise AccessError("the token was issued in the future")


def _time(payload: dict[str, Any], claim: str) -> float | None:
    """Return a time of the payload in s; None if it is absent. Raises AccessError if it is no number."""
    value = payload.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        raise AccessError(f"the token's {claim} is not a time")
    return float(value)


def keys_of_set(document: bytes, algorithm: str) -> dict[str, Any]:
    """Return the keys of a JWKS document (RFC 7517) by `kid`, those for ``algorithm`` alone.

    Raises AccessError if the document is none, or has no such key.
    """
    try:
        listed = msgspec.json.decode(document)["keys"]
        if not isinstance(listed, list) or len(listed) > MAX_KEYS:
            raise ValueError
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError):
        raise AccessError("not a JWKS document") from None
    found: dict[str, Any] = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("kty") != _KEY_TYPES[algorithm]:
            continue
        if one.get("use", "sig") != "sig" or one.get("alg", algorithm) != algorithm:
            continue
        try:
            key = _public(jwt.PyJWK(one, algorithm=algorithm).key)
        except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, OverflowError):
            continue
        if _weakness(key, algorithm) is None:
            found[str(one.get("kid", ""))] = key
    if not found:
        raise AccessError(f"the JWKS document has no key for {algorithm}")
    return found


def key_of(data: bytes, algorithm: str, name: str) -> Any:
    """Return the key in ``data`` as PyJWT wants it; raises ConfigError (``name: what is wrong``)."""
    if algorithm == "HS256":
        secret = data.strip()
        if secret.startswith(b"-----BEGIN"):
            raise ConfigError(f"{name}: a PEM key is no secret of HS256: see auth.algorithm")
        if len(secret) < LEAST_SECRET:
            raise ConfigError(f"{name}: a secret of HS256 must have at least {LEAST_SECRET} bytes")
        return secret
    try:
        key = _public(jwt.get_algorithm_by_name(algorithm).prepare_key(data.strip()))
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        raise ConfigError(f"{name}: must hold a public key for {algorithm} in PEM") from None
    problem = _weakness(key, algorithm)
    if problem is not None:
        raise ConfigError(f"{name}: {problem}")
    return key


def _public(key: Any) -> Any:
    """Return the public half of a private key; a public key, or a secret, itself."""
    half = getattr(key, "public_key", None)
    return key if half is None else half()


def _weakness(key: Any, algorithm: str) -> str | None:
    """Return why a public key must not be used with ``algorithm``; None if it may."""
    if algorithm == "RS256" and key.key_size < LEAST_RSA:
        return f"an RSA key must have at least {LEAST_RSA} bits, not {key.key_size}"
    if algorithm == "ES256" and key.curve.name != "secp256r1":
        return f"a key for ES256 must be on the curve P-256, not {key.curve.name}"
    return None
