"""The errors of nats-py in one line each, as an operator needs them."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final

import nats.errors
import nats.js.errors

NO_JETSTREAM: Final = "the NATS servers have no JetStream: add jetstream { … } to their configuration"
REFUSED: Final = "the NATS server refused the credentials: see cluster.user and cluster.creds"
NOT_ENABLED: Final = 10039  # error code of JetStream: not enabled for the account
_TEXTS: Final[dict[type[Exception], str]] = {
    nats.errors.UnexpectedEOF: "the NATS server closed the connection",
    nats.errors.StaleConnectionError: "the NATS server did not answer pings",
    nats.errors.AuthorizationError: REFUSED,
    nats.errors.SecureConnWantedError: "the NATS server has no TLS, and cluster.servers has tls://",
    nats.errors.ConnectionClosedError: "the connection to the NATS server is closed",
}


def explained(error: BaseException) -> str:
    """Return ``error`` in one line without secrets."""
    match error:
        case TimeoutError():  # that of nats-py too
            text = "no answer from the NATS server in time"
        case nats.js.errors.ServiceUnavailableError(err_code=None):
            text = NO_JETSTREAM
        case nats.js.errors.ServiceUnavailableError(err_code=code) if code == NOT_ENABLED:
            text = (
                "JetStream is not enabled for the account of this user: see accounts { … jetstream: enabled }"
            )
        case nats.js.errors.APIError(description=str(description)):
            text = f"JetStream: {description}"
        case _ if is_refusal(error) and _of_credentials(error):
            text = REFUSED
        case _ if (known := _TEXTS.get(type(error))) is not None:  # type: ignore[arg-type]
            text = known
        case nats.errors.Error():
            text = str(error).removeprefix("nats: ").strip("'")
        case _:
            text = _of_system(error)
    return " ".join(text.split())


def is_refusal(error: BaseException) -> bool:
    """Return whether the server answered the connection with an error, such as for wrong credentials."""
    if type(error) is nats.errors.AuthorizationError:
        return True
    # What the server sent as -ERR has no class of its own.
    return type(error) is nats.errors.Error and str(error).startswith("nats: '")


def is_permission(error: BaseException) -> bool:
    """Return whether the server refused a single subject; the connection goes on."""
    return isinstance(error, nats.errors.Error) and "permissions violation" in str(error).lower()


def _of_credentials(error: BaseException) -> bool:
    return (
        isinstance(error, nats.errors.AuthorizationError) or "authorization violation" in str(error).lower()
    )


def _of_system(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError(verify_message=message):
            return f"TLS: the server's certificate is refused: {message}"
        case ssl.SSLError():
            return f"TLS: {getattr(error, 'reason', None) or error}"
        case socket.gaierror(strerror=text):
            return f"the server's name cannot be resolved: {text}"
        case OSError(errno=int(number)):
            return os.strerror(number)
        case _:
            return repr(error)
