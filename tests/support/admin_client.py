"""An HTTP client of the admin listener and of the gateway."""

from __future__ import annotations

import http.client
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.conformance import check_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'


def get(
    port: int,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] = MappingProxyType({}),
    address: str = "127.0.0.1",
    body: bytes | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Make a request; return status, headers by name in lower case, and body, checked."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        answer = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        check_answer(method, path, *answer)
        return answer
    finally:
        connection.close()


def post(port: int, path: str, body: Any) -> tuple[int, Any]:
    """Post ``body`` as JSON; return the status, and the answer's JSON, None if it has none."""
    status, _, answer = get(port, path, "POST", body=json.dumps(body).encode())
    return status, json.loads(answer) if answer else None


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and the values of its labels, sorted by label name."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
