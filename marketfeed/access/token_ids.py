"""The id by which a key or token is revoked, also from the whole of it; secrets where none belongs. Pure.

    mfk_5f1e0c9a7b21_<secret> ──► 5f1e0c9a7b21        a whole JWT ──► its `jti`

Whoever revokes a key or token that has leaked often has it at hand, and not its id. What is revoked is kept
on disk, listed and logged, so nothing secret may be among it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import jwt

from marketfeed.access.secrets import PREFIX
from marketfeed.access.tokens import MAX_TOKEN
from marketfeed.errors import AccessError

MAX_ID: Final = 256  # characters of a `sub`, tenant or id
ID_RULE: Final = f"1 to {MAX_ID} printable characters"
_KEY: Final = re.compile(rf"{PREFIX}([0-9a-f]{{12}})(?:_[A-Za-z0-9_-]{{43}})?")
# A JWT begins with the Base64 of `{"`; a JWE has the same form with five parts.
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)+=*")
_SECRET: Final = re.compile(rf"{PREFIX}[0-9a-f]{{12}}_|eyJ[A-Za-z0-9_-]{{5,}}\.")


def looks_secret(text: str) -> bool:
    """Return whether ``text`` has what looks like a key or token, or a part of one."""
    return _SECRET.search(text) is not None


def id_of(given: str) -> str:
    """Return the id of a key or token: ``given`` itself, or that of a whole key or JWT.

    No signature is verified: that of an expired token, or of a replaced key, does not matter here.
    Raises AccessError, whose text repeats nothing of ``given``.
    """
    if len(given) > MAX_TOKEN:
        raise AccessError("it is neither an id, a key nor a token")
    text = given.strip()
    text = text[7:].lstrip() if text[:7].lower() == "bearer " else text
    key = _KEY.fullmatch(text)
    if key is not None:
        return key[1]
    if _JWT.fullmatch(text):
        return _jti_of(text)
    if looks_secret(given) or given.startswith(PREFIX):
        raise AccessError("it looks like a part of a key or token: give all of it, or its id")
    if not 1 <= len(given) <= MAX_ID or not given.isprintable():
        raise AccessError(ID_RULE)
    return given


def _jti_of(token: str) -> str:
    try:
        payload: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, RecursionError, ValueError, TypeError, OverflowError):
        raise AccessError("it looks like a part of a token: give all of it, or its jti") from None
    jti = payload.get("jti")
    if jti is None or jti == "":
        raise AccessError("the token has no jti: revoke all that was issued to its sub (revoke --sub NAME)")
    if not isinstance(jti, str) or len(jti) > MAX_ID or not jti.isprintable() or looks_secret(jti):
        raise AccessError(f"the token's jti is not {ID_RULE}: no engine accepts it")
    return jti
