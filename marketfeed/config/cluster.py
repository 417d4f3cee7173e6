"""``[cluster]``: its keys, and the rules that their types do not express. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from marketfeed.config.validation import shown
from marketfeed.core.authority import parse_authority

if TYPE_CHECKING:
    from collections.abc import Iterator

_Text = Annotated[str, Meta(max_length=32)]
_File = Annotated[str, Meta(min_length=1)]
_Bytes = Annotated[int, Meta(ge=1 << 20, le=1 << 40)]

# Subjects and buckets of NATS contain these names, so that a name must be one token of a subject.
NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
STATUSES: Final = "n"  # in subjects, what is not of a shard
_SERVER_SCHEMES: Final = ("nats", "tls")
_CLIENT_SCHEMES: Final = ("http", "https")


class ClusterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[cluster]``"""

    name: Annotated[str, Meta(min_length=1, max_length=32)] = "main"
    node: Annotated[str, Meta(max_length=64)] = ""
    role: Literal["both", "gateway", "ingest"] = "both"
    shard: Annotated[str, Meta(min_length=1, max_length=32)] = "s0"
    site: _Text = ""
    servers: list[str] = msgspec.field(default_factory=lambda: ["nats://127.0.0.1:4222"])
    creds: _File | None = None
    user: _File | None = None
    tls_ca: _File | None = None
    tls_cert: _File | None = None
    tls_key: _File | None = None
    url: str = ""
    capacity: Annotated[int, Meta(ge=0)] = 0
    lease_s: Annotated[float, Meta(ge=3, le=3600)] = 8.0
    beat_ms: Annotated[int, Meta(ge=10, le=10_000)] = 100
    stale_s: Annotated[float, Meta(ge=0.1, le=3600)] = 1.0
    repair_s: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    linger_ms: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    log_bytes: _Bytes = 268_435_456
    queue_bytes: _Bytes = 67_108_864
    held_bytes: _Bytes = 268_435_456
    replicas: Literal[1, 3, 5] = 3


PATHS: Final = ("creds", "tls_ca", "tls_cert", "tls_key")  # keys that hold paths


def cluster_problems(cluster: ClusterConfig) -> Iterator[tuple[str, str]]:
    """Yield every rule that ``cluster`` breaks: the paths of the keys, and what is allowed there."""
    for key in ("name", "node", "shard", "site"):
        value = getattr(cluster, key)
        if value and not NAME.fullmatch(value):
            yield f"cluster.{key}", f"must consist of letters, digits, _ and -, not {shown(value)}"
    if cluster.shard == STATUSES:
        yield "cluster.shard", f"must not be {STATUSES}, which subjects of NATS have in its place"
    yield from _servers(cluster.servers)
    yield from _security(cluster)
    if cluster.url and (problem := _url_problem(cluster.url, _CLIENT_SCHEMES)) is not None:
        yield "cluster.url", problem
    if 2 * cluster.beat_ms > cluster.stale_s * 1000:
        yield (
            "cluster.stale_s, cluster.beat_ms",
            f"stale_s must be at least two beats, {2 * cluster.beat_ms / 1000:g} s, not {cluster.stale_s:g}",
        )


def _servers(servers: list[str]) -> Iterator[tuple[str, str]]:
    if not servers:
        yield "cluster.servers", 'must name at least one server, such as "nats://127.0.0.1:4222"'
    for index, server in enumerate(servers):
        if (problem := _url_problem(server, _SERVER_SCHEMES)) is not None:
            yield f"cluster.servers.{index}", problem
    if len({server.partition("://")[0] for server in servers}) > 1:
        yield "cluster.servers", "must all begin with nats://, or all with tls://"


def _security(cluster: ClusterConfig) -> Iterator[tuple[str, str]]:
    if cluster.creds is not None and cluster.user is not None:
        yield "cluster.user", "not allowed together with cluster.creds"
    if bool(cluster.tls_cert) != bool(cluster.tls_key):
        missing, given = ("tls_key", "tls_cert") if cluster.tls_cert else ("tls_cert", "tls_key")
        yield f"cluster.{missing}", f"missing; required with cluster.{given}: both are PEM files"
    if not any(server.startswith("tls://") for server in cluster.servers):
        for key in ("tls_ca", "tls_cert", "tls_key"):
            if getattr(cluster, key) is not None:
                yield f"cluster.{key}", "requires cluster.servers that begin with tls://"


def _url_problem(text: str, schemes: tuple[str, ...]) -> str | None:
    """Return what is wrong with a URL of a scheme and an authority; the value may be a secret."""
    if "@" in text:
        return "must not contain a user or a password: cluster.creds or cluster.user gives them"
    try:
        parts = urlsplit(text)
        known = parts.scheme in schemes and parse_authority(parts.netloc) is not None
    except ValueError:
        known = False
    if not known or parts.path.strip("/") or parts.query or parts.fragment:
        return f"must be {' or '.join(f'{scheme}://HOST:PORT' for scheme in schemes)}, not {shown(text)}"
    return None
