"""HTTP calls of the commands to an engine: its address, and errors in one line each."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from marketfeed import __version__
from marketfeed.client.address import SCHEMES, STREAM, endpoint, endpoint_of, stream_of
from marketfeed.client.unreachable import plainly, tls_reason
from marketfeed.core.addresses import host_port, parse_ip
from marketfeed.errors import ConfigError, MarketfeedError

if TYPE_CHECKING:
    from pathlib import Path

    from marketfeed.config.schema import AdminConfig, Config
    from marketfeed.secret import Secret

ANSWER_S: Final = 10.0
HEADERS: Final = {"User-Agent": f"marketfeed-cli/{__version__}"}
_ELSEWHERE: Final = "--url http://HOST:PORT"
_NO_PATH: Final = "no such path"  # as the answer of an engine's other port begins
_CUT: Final = 200  # characters of a body that is not from an engine

T = TypeVar("T", bound=msgspec.Struct)


class UnreachableError(MarketfeedError):
    """The engine gave no answer; ``refused``: nothing listens there."""

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class CallError(MarketfeedError):
    """The engine answered with an error; ``status`` is that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Call:
    """One request. ``admin``: to the admin port."""

    method: str
    path: str
    body: Any = None
    query: dict[str, str] | None = None
    admin: bool = False
    wait_s: float = 0.0  # for which the engine may hold the answer back


TOKEN_VARIABLE: Final = "MARKETFEED_TOKEN"


@dataclass(frozen=True)
class Answer:
    """The status of an answer below 400, and its JSON; None without a body."""

    status: int
    value: Any


class EngineHttp:
    """An engine by its configuration, or at ``url``; ``token`` is that of its admin port."""

    def __init__(self, config: Config, url: str | None, ca: Path | None, token: Secret | None) -> None:
        self._config, self._url, self._ca, self._token = config, url, ca, token

    def answer(self, call: Call) -> Answer:
        """Return the answer; raises CallError, UnreachableError and ConfigError."""
        base, tls = self._address(call.admin)
        headers = dict(HEADERS)
        presented = os.environ.get(TOKEN_VARIABLE, "")  # a key or token of the gateway's access control
        if call.admin and self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        elif presented and not call.admin:
            headers["Authorization"] = f"Bearer {presented}"
        try:
            # No proxy: as the other commands connect.
            with httpx.Client(
                verify=tls or False, timeout=ANSWER_S + call.wait_s, trust_env=False, headers=headers
            ) as client:
                response = client.request(call.method, base + call.path, params=call.query, json=call.body)
        except httpx.HTTPError as error:
            raise _unreachable(base, error, secure=tls is not None, given=self._url is not None) from None
        if response.status_code >= 300:
            said = _said(base, response)
            if response.status_code == 401:
                said += ": --admin-token-file FILE" if call.admin else f": set {TOKEN_VARIABLE} to it"
            if response.status_code == 404 and said.startswith(_NO_PATH):
                said = f"{base} is not the {'admin port' if call.admin else 'gateway'} of an engine: {said}"
            raise CallError(response.status_code, said)
        try:
            return Answer(response.status_code, response.json() if response.content else None)
        except ValueError:
            raise UnreachableError(f"{base}{call.path}: the answer is not JSON, so not an engine's") from None

    def _address(self, admin: bool) -> tuple[str, ssl.SSLContext | None]:
        """Return the base of URLs, and the certificates to trust."""
        if self._url is not None:
            engine = endpoint(_checked(self._url, self._ca), self._ca)
        elif admin:
            return _admin_url(self._config.admin), None
        else:
            engine = endpoint_of(self._config.gateway, self._ca, _ELSEWHERE)
        path = engine.parts.path.removesuffix(STREAM).rstrip("/")
        return f"{'http' if engine.tls is None else 'https'}://{engine.parts.netloc}{path}", engine.tls


def read_as(kind: type[T], value: Any) -> T:
    """Return a JSON object as a struct, without the fields that a later release has added.

    Raises UnreachableError if it is none that an engine sends.
    """
    try:
        known = {name: value[name] for name in kind.__struct_fields__ if name in value}
        return msgspec.convert(known, kind)
    except (TypeError, msgspec.ValidationError):
        raise UnreachableError("the answer is not an engine's") from None


def _checked(url: str, ca: Path | None) -> str:
    """Return the URL of the stream of the engine at ``url``; raises ConfigError."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in (*SCHEMES, *SCHEMES.values()) and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"--url {url}: must be http://HOST:PORT, or https://…")
    if ca is not None and parts.scheme in ("http", "ws"):
        raise ConfigError(f"--ca {ca}: requires an https:// URL, not {url}")
    return stream_of(url)


def _admin_url(admin: AdminConfig) -> str:
    if admin.port == 0:
        raise ConfigError(f"admin.port: 0 means any free port; give its address: {_ELSEWHERE}")
    host = admin.host
    address = parse_ip(host)
    if address is not None and address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://{host_port(host, admin.port)}"


def _unreachable(base: str, error: httpx.HTTPError, *, secure: bool, given: bool) -> UnreachableError:
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:  # httpcore names no cause
        cause = deeper
    if isinstance(error, httpx.TimeoutException):
        why = f"no answer within {ANSWER_S:g} s"
    elif isinstance(cause, ssl.SSLError):
        why = f"TLS: {tls_reason(cause, ANSWER_S)}"
    elif isinstance(error, httpx.RemoteProtocolError):
        why = "the answer is not HTTP" + ("" if secure else "; does this port serve https?")
    else:
        why = plainly(cause)
    hint = "" if given else f"; for an engine at another address, use {_ELSEWHERE}"
    return UnreachableError(
        f"cannot reach the engine at {base}: {why}{hint}", isinstance(cause, ConnectionRefusedError)
    )


def _said(base: str, response: httpx.Response) -> str:
    """Return the reason that the engine gives, else what its address answers."""
    try:
        return str(response.json()["error"]["msg"])
    except (ValueError, KeyError, TypeError):
        text = " ".join(response.text.split())[:_CUT]
        return f"{base} answers with HTTP status {response.status_code}, as no engine does: {text}"
