"""What clients get wrong with alerts, over real sockets and a log on disk."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.support.live import LIMITS, http, serving_alerts

NESTED_BYTES = 16_384


def nested(levels):
    """Return the JSON of a notice whose data are nested in ``levels`` levels, objects and arrays in turn."""
    objects, arrays = '{"x":', "["
    opened = "".join((objects, arrays)[level % 2] for level in range(levels))
    closed = "".join("}]"[level % 2] for level in reversed(range(levels)))
    return f'{{"key":"{levels}","msg":"m","data":{opened}1{closed}}}'.encode()


async def test_data_are_nested_in_at_most_32_levels(tmp_path):
    async with serving_alerts(tmp_path) as (live, dispatch):
        assert (await http(live, "POST", "/v1/alerts", nested(32)))[0] == 201
        for levels in (33, 100, 500):
            status, answer = await http(live, "POST", "/v1/alerts", nested(levels))
            assert (status, answer["error"]["msg"]) == (400, "data: nested in at most 32 levels")
        assert await dispatch.head() == 1
        (_, body) = await http(live, "GET", "/v1/alerts?consumer=risk")
        (alert,) = body["alerts"]
        assert {"key": "32", "data": json.loads(nested(32))["data"]}.items() <= alert.items()


@pytest.mark.parametrize("opened", [b"[", b'{"x":'])
@pytest.mark.parametrize("beginning", [b'{"key":"k","msg":"m","data":{"x":', b""])
async def test_brackets_that_no_parser_can_follow_are_refused(tmp_path, beginning, opened):
    limits = dataclasses.replace(LIMITS, request_bytes=200_000)
    async with serving_alerts(tmp_path, limits=limits) as (live, dispatch):
        for count in (NESTED_BYTES // len(opened), 100_000 // len(opened)):
            status, answer = await http(live, "POST", "/v1/alerts", beginning + opened * count)
            assert status == 400
            assert answer["error"]["msg"].startswith("the body")
        assert await dispatch.head() == 0
        assert (await http(live, "POST", "/v1/alerts", nested(1)))[0] == 201
