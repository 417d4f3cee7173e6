"""A client of the admin listener."""

from __future__ import annotations

import http.client

from prometheus_client.parser import text_string_to_metric_families

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'


def get(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and the values of its labels, these in order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
