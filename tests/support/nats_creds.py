"""Credentials of NATS: an operator, an account and users, signed by nkeys as `nsc` does it.

Source: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt
"""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

import nkeys

_LIMITS = {"subs": -1, "data": -1, "payload": -1}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Key:
    def __init__(self, prefix: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), prefix))
        self.pair = nkeys.from_seed(bytearray(self.seed))
        self.name = self.pair.public_key.decode()

    def signed(self, subject: str, **claims: Any) -> str:
        """Return a JWT of this key about ``subject``."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {"jti": "x", "iat": int(time.time()), "iss": self.name, "name": "test", "sub": subject}
        parts = [head, {**body, "nats": {"version": 2, **claims}}]
        text = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_encoded(self.pair.sign(text.encode()))}"


class Operator:
    """An operator with one account."""

    def __init__(self) -> None:
        operator = _Key(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = _Key(nkeys.PREFIX_BYTE_ACCOUNT)
        limits = {**_LIMITS, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
        account = operator.signed(self._account.name, type="account", limits=limits)
        # What the settings of a server say.
        self.settings = (
            f"operator: {operator.signed(operator.name, type='operator')}\n"
            f"resolver: MEMORY\nresolver_preload: {{ {self._account.name}: {account} }}\n"
        )

    def creds(self) -> str:
        """Return the credentials file of a new user."""
        user = _Key(nkeys.PREFIX_BYTE_USER)
        jwt = self._account.signed(user.name, type="user", **_LIMITS)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
