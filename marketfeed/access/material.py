"""What is needed to verify keys and tokens; the engine reads it, and passes it to its workers.

It holds secrets, so it is in no log, and its repr shows none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from marketfeed.access.revocations import Revocation


class KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key of a keys file. ``hash`` is the SHA-256 of its secret in hexadecimal digits."""

    id: str
    hash: str
    created_s: float  # a fraction too: it may follow a revocation of the same second
    claims: dict[str, Any]
    comment: str = ""


class Material(msgspec.Struct, frozen=True):
    """Keys, in one of the ways that ``[auth]`` names, and revocations."""

    keys: tuple[KeyEntry, ...] = ()
    key: bytes = b""  # a PEM public key, or the secret of HS256
    previous_key: bytes = b""  # accepted too until previous_until_s (None: always)
    previous_until_s: float | None = None
    jwks: bytes = b""  # the JSON document
    revocations: tuple[Revocation, ...] = ()

    def __repr__(self) -> str:
        return f"Material({len(self.keys)} keys, {len(self.revocations)} revocations)"
