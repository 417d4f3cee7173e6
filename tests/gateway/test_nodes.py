"""``GET /v1/nodes``: the engines that a client can use."""

from __future__ import annotations

from marketfeed.api.engine import NODE_STATES, NodeRow
from marketfeed.api.schemas import ref
from marketfeed.gateway.hosts import Hosts
from marketfeed.gateway.overview import EngineNow, NodeNow
from tests.support.access import Control, bearer
from tests.support.conformance import validate
from tests.support.live import http, serving
from tests.support.overviews import SetOverview

OWN = NodeNow("", "", 3, 100, "ready")
OTHERS = (
    NodeNow("https://a.example", "x", 1, 10, "ready", "s0"),
    NodeNow("https://b.example", "y", 2, 20, "stale", "s1"),
)


def overview(*nodes: NodeNow) -> SetOverview:
    found = SetOverview()
    found.now = EngineNow(nodes=nodes)
    return found


async def test_without_a_cluster_it_is_the_engine_under_the_url_of_the_request():
    async with serving(overview=overview(OWN), hosts=Hosts(["x"])) as live:
        status, rows = await http(live, "GET", "/v1/nodes")
    assert status == 200
    assert rows == [{"url": "http://x", "site": "", "sessions": 3, "capacity": 100, "state": "ready"}]
    validate(rows[0], ref(NodeRow))


async def test_a_shard_has_its_own_nodes():
    async with serving(overview=overview(*OTHERS)) as live:
        _, every = await http(live, "GET", "/v1/nodes")
        _, some = await http(live, "GET", "/v1/nodes?shard=s1")
        _, none = await http(live, "GET", "/v1/nodes?shard=s2")
    assert [row["url"] for row in every] == ["https://a.example", "https://b.example"]
    assert (some, none) == ([every[1]], [])
    assert {row["state"] for row in every} <= set(NODE_STATES)


async def test_with_access_control_it_needs_a_token():
    control = Control()
    async with serving(access=control.access, overview=overview(OWN)) as live:
        status, _ = await http(live, "GET", "/v1/nodes")
        assert status == 401
        status, rows = await http(live, "GET", "/v1/nodes", headers=bearer(control.token(["*"])))
        assert (status, len(rows)) == (200, 1)
