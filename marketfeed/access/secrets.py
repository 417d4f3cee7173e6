"""Keys of clients: ``mfk_<id>_<secret>``. The keys file holds the id and a hash of the secret.

The secret has 256 random bits, so one SHA-256 is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Final

from marketfeed.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.access.material import KeyEntry

PREFIX: Final = "mfk_"
_KEY: Final = re.compile(r"mfk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NO_HASH: Final = "0" * 64


def new_key() -> tuple[str, str, str]:
    """Return the id of a new key, its hash, and the key itself."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return key_id, hash_of(secret), f"{PREFIX}{key_id}_{secret}"


def hash_of(secret: str) -> str:
    """Return the hash of a secret as the keys file holds it."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def entry_of(key: str, entries: Mapping[str, KeyEntry]) -> KeyEntry:
    """Return the entry of ``key`` among those by id, in the same time whether the id is known or not.

    Raises AccessError.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise AccessError("not a key: a key begins with mfk_")
    entry = entries.get(found[1])
    matches = hmac.compare_digest(hash_of(found[2]), _NO_HASH if entry is None else entry.hash)
    if entry is None or not matches:
        raise AccessError("no such key")
    return entry
