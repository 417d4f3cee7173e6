"""HTTP calls of the commands to an engine: its address, and errors in one line each."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from marketfeed import __version__
from marketfeed.client.connection import endpoint, endpoint_of
from marketfeed.client.unreachable import plainly, tls_reason
from marketfeed.core.addresses import host_port, parse_ip
from marketfeed.errors import ConfigError, MarketfeedError

if TYPE_CHECKING:
    from pathlib import Path

    from marketfeed.config.schema import AdminConfig, Config

ANSWER_S: Final = 10.0
_STREAM: Final = "/v1/stream"
_ELSEWHERE: Final = "--url http://HOST:PORT"
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_CUT: Final = 200  # characters of a body that is not from an engine


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


@dataclass(frozen=True)
class Answer:
    """The status of an answer below 400, and its JSON; None without a body."""

    status: int
    value: Any


class EngineHttp:
    """An engine by its configuration, or at ``url``."""

    def __init__(self, config: Config, url: str | None, ca: Path | None, token: str | None) -> None:
        self._config, self._url, self._ca = config, url, ca
        self._headers = {"User-Agent": f"marketfeed-cli/{__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def answer(self, call: Call) -> Answer:
        """Return the answer; raises CallError, UnreachableError and ConfigError."""
        base, tls = self._address(call.admin)
        try:
            # No proxy: as the other commands connect.
            with httpx.Client(
                verify=tls or False, timeout=ANSWER_S + call.wait_s, trust_env=False, headers=self._headers
            ) as client:
                response = client.request(call.method, base + call.path, params=call.query, json=call.body)
        except httpx.HTTPError as error:
            raise _unreachable(base, error, secure=tls is not None, given=self._url is not None) from None
        if response.status_code >= 300:
            raise CallError(response.status_code, _said(base, response))
        try:
            return Answer(response.status_code, response.json() if response.content else None)
        except ValueError:
            raise UnreachableError(f"{base}{call.path}: the answer is not JSON, so not an engine's") from None

    def _address(self, admin: bool) -> tuple[str, ssl.SSLContext | None]:
        """Return the base of URLs, and the certificates to trust."""
        if self._url is not None:
            scheme, _, rest = self._url.partition("://")
            if scheme not in _SCHEMES or not rest:
                raise ConfigError(f"--url {self._url}: must be http://HOST:PORT, or https://…")
            engine = endpoint(f"{_SCHEMES[scheme]}://{rest}", self._ca)
        elif admin:
            return _admin_url(self._config.admin), None
        else:
            engine = endpoint_of(self._config.gateway, self._ca, _ELSEWHERE)
        path = engine.parts.path.removesuffix(_STREAM).rstrip("/")
        return f"{'http' if engine.tls is None else 'https'}://{engine.parts.netloc}{path}", engine.tls


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
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(error, httpx.TimeoutException):
        why = f"no answer within {ANSWER_S:g} s"
    elif isinstance(cause, ssl.SSLError):
        why = f"TLS: {tls_reason(cause, ANSWER_S)}"
    elif isinstance(error, httpx.RemoteProtocolError):
        why = "the answer is not HTTP" + ("" if secure else "; does this port serve https?")
    else:
        why = plainly(cause, secure=secure)
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
