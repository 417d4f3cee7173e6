"""What a node needs to connect to NATS, from ``[cluster]`` and the environment."""

from __future__ import annotations

import importlib.util
import re
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from marketfeed.errors import ConfigError, gathered
from marketfeed.secret import Secret, owned_bytes, readable_by_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.config.cluster import ClusterConfig

VARIABLE: Final = "MARKETFEED_NATS_PASSWORD"
MISSING: Final = "cluster: needs the package nats-py: pip install 'marketfeed[cluster]'"
MAX_CREDS_BYTES: Final = 65_536
_NO_TOKEN: Final = re.compile(r"[^A-Za-z0-9_-]+")
# Without them nats-py would look for them for ever.
_OF_CREDS: Final = re.compile(rb"BEGIN NATS USER JWT.*\n.+\n(?s:.*)BEGIN USER NKEY SEED.*\n.+\n")


class LinkSettings(msgspec.Struct, frozen=True):
    """Settings of a link. ``bucket`` is made if there is none; None: the link needs no JetStream."""

    servers: tuple[str, ...]
    name: str  # CLUSTER.NODE; of the connection, and in subjects where answers arrive: _INBOX.mf.NAME.>
    queue_bytes: int
    bucket: str | None = None
    replicas: int = 1
    user: str | None = None
    password: Secret | None = None
    creds: Path | None = None
    tls: ssl.SSLContext | None = None  # not None: a connection without TLS is refused


def node_name(cluster: ClusterConfig) -> str:
    """Return ``cluster.node``, or the host name with ``-`` for characters that a subject's token has not."""
    return cluster.node or _NO_TOKEN.sub("-", socket.gethostname()).strip("-")[:64] or "node"


def link_settings(cluster: ClusterConfig, environ: Mapping[str, str]) -> LinkSettings:
    """Return the settings of the link, with its secrets; the paths in ``cluster`` are absolute.

    Raises ConfigError with all mistakes, also if nats-py is not installed.
    """
    found: list[str] = []
    packages = ("nats",) if cluster.creds is None else ("nats", "nkeys")
    if any(importlib.util.find_spec(package) is None for package in packages):
        found.append(MISSING)
    password = creds = tls = None
    with gathered(found):
        if cluster.user is not None:
            password = _password(environ)
    with gathered(found):
        if cluster.creds is not None:
            creds = Path(cluster.creds)
            creds_text(creds)
    with gathered(found):
        if any(server.startswith("tls://") for server in cluster.servers):
            tls = _tls(cluster)
    if found:
        raise ConfigError(*found)
    return LinkSettings(
        servers=tuple(cluster.servers),
        name=f"{cluster.name}.{node_name(cluster)}",
        queue_bytes=cluster.queue_bytes,
        bucket=f"mf_{cluster.name}",
        replicas=cluster.replicas,
        user=cluster.user,
        password=password,
        creds=creds,
        tls=tls,
    )


def warnings(cluster: ClusterConfig) -> list[str]:
    """Return what may be meant otherwise, ``cluster.key: why`` each."""
    found = []
    if cluster.replicas == 1:
        found.append("cluster.replicas: 1: the loss of one NATS server stops the cluster")
    for key in ("creds", "tls_key"):
        path = getattr(cluster, key)
        if path is not None and readable_by_all(Path(path)):
            found.append(f"cluster.{key}: every user may read {path}: chmod o-r {path}")
    return found


def creds_text(path: Path) -> str:
    """Return the content of a credentials file, which has a JWT and a seed; raises ConfigError."""
    key = "cluster.creds"
    try:
        data = owned_bytes(key, path, MAX_CREDS_BYTES)
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    except ValueError:  # such as a null character
        raise ConfigError(f"{key}: must be the path of a file") from None
    if len(data) > MAX_CREDS_BYTES or not data.isascii() or not _OF_CREDS.search(data):
        raise ConfigError(
            f"{key}: {path} is no credentials file of NATS, with a JWT and a seed: nsc makes one"
        )
    return data.decode("ascii")


def _password(environ: Mapping[str, str]) -> Secret:
    text = environ.get(VARIABLE, "").strip()
    if not text:
        raise ConfigError(f"cluster.user: its password must be in the environment variable {VARIABLE}")
    return Secret(text)


def _tls(cluster: ClusterConfig) -> ssl.SSLContext:
    """Return what a connection trusts and presents; raises ConfigError."""
    key = "cluster.tls_ca"
    try:
        context = ssl.create_default_context(cafile=cluster.tls_ca)
        if cluster.tls_cert is not None and cluster.tls_key is not None:
            key = "cluster.tls_cert, cluster.tls_key"
            # Without a password of its own, OpenSSL would ask the terminal for one.
            context.load_cert_chain(cluster.tls_cert, cluster.tls_key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{key}: cannot be used: {reason}") from None
    return context
