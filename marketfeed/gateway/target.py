"""Parser of the target of an HTTP request. Pure. Source: RFC 9112, section 3.2.

urllib does not fit: ``urlsplit`` reads ``//x/v1/symbols`` as the path ``/v1/symbols`` on the host x.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FIELDS: Final = 100  # of a query
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")  # RFC 3986, section 3.3


class TargetError(Exception):
    """Invalid target; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target; ``path`` is unchanged, including percent-encoding."""

    path: str
    query: Mapping[str, list[str]] = field(default_factory=dict)  # by name, the values in order
    authority: str | None = None  # host and port of an absolute target


def parse_target(text: str) -> Target:
    """Return the target; raises TargetError."""
    if text == "*":
        return Target(text)
    absolute = _ABSOLUTE.match(text)
    rest = text[absolute.end() :] if absolute else text
    if absolute and rest[:1] in ("", "?"):
        rest = f"/{rest}"
    path, _, query = rest.partition("?")
    if "#" in text:
        raise TargetError("it has a fragment (#…), which is the client's own")
    if not _PATH.fullmatch(path):
        raise TargetError(
            f"the path has to begin with / and to have no characters but those of a URL: {path[:40]!r}"
        )
    if not query:
        return Target(path, {}, absolute[1] if absolute else None)
    try:
        fields = parse_qs(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise TargetError(f"more than {MAX_FIELDS} fields in the query") from None
    return Target(path, fields, absolute[1] if absolute else None)
