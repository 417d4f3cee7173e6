"""Signatures of webhooks as Standard Webhooks define them. Pure.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.secret import Secret

PREFIX: Final = "whsec_"
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64


def key_of(secret: Secret) -> bytes:
    """Return the key that the ``whsec_…`` text is the base64 of; raises ValueError, without the text."""
    text = secret.reveal()
    encoded = text.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(
            f"the secret must be {PREFIX} and then {LEAST_BYTES} to {MOST_BYTES} random bytes in base64"
        ) from None
    return key


def signed_headers(secrets: Sequence[Secret], message_id: str, at_ns: int, body: bytes) -> dict[str, str]:
    """Return the three headers of an attempt at ``at_ns``, Unix: one signature per secret.

    Each signature is over ``id.timestamp.body``; the timestamp is in whole seconds.
    """
    timestamp = str(at_ns // S)
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    digests = [hmac.digest(key_of(secret), signed, hashlib.sha256) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }
