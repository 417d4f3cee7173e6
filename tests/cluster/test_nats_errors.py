"""Errors of nats-py in one line each."""

from __future__ import annotations

import errno
import socket
import ssl

import nats.errors
import nats.js.errors
import pytest

from marketfeed.cluster.nats_errors import NO_JETSTREAM, REFUSED, explained, is_permission, is_refusal

VERIFICATION = ssl.SSLCertVerificationError(1, "certificate verify failed")
VERIFICATION.verify_message = "self-signed certificate"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "the server's name cannot be resolved: Name or"),
        (TimeoutError(), "no answer from the NATS server in time"),
        (nats.errors.TimeoutError(), "no answer from the NATS server in time"),
        (nats.errors.UnexpectedEOF(), "the NATS server closed the connection"),
        (nats.errors.Error("nats: 'Authorization Violation'"), REFUSED),
        (nats.errors.AuthorizationError(), REFUSED),
        (nats.errors.Error("nats: 'maximum connections exceeded'"), "maximum connections exceeded"),
        (nats.js.errors.ServiceUnavailableError(), NO_JETSTREAM),
        (
            nats.js.errors.ServiceUnavailableError(503, "JetStream not enabled for account", 10039),
            "JetStream is not enabled for the account",
        ),
        (nats.js.errors.ServerError(500, "no suitable peers", 10005), "JetStream: no suitable peers"),
        (VERIFICATION, "TLS: the server's certificate is refused: self-signed certificate"),
        (ssl.SSLError(1, "[SSL] x"), "TLS: "),
        (RuntimeError("a\nb"), r"RuntimeError('a\nb')"),
    ],
)
def test_an_error_is_explained_in_one_line(error, text):
    told = explained(error)
    assert told.startswith(text)
    assert "\n" not in told


def test_a_refused_connection_is_no_refused_subject():
    refused = nats.errors.Error("nats: 'Authorization Violation'")
    subject = nats.errors.Error('nats: Permissions Violation for Publish to "x"')
    assert (is_refusal(refused), is_permission(refused)) == (True, False)
    assert (is_refusal(subject), is_permission(subject)) == (False, True)
    assert not is_refusal(nats.errors.UnexpectedEOF())
