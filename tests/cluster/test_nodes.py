"""Statuses of nodes, the table of those alive, and who serves which session."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.cluster.nodes import EXPIRY_NS, MAX_NODES, OVERLAP_NS, Nodes
from marketfeed.cluster.placing import able_urls
from marketfeed.cluster.rendezvous import rank_of, rendezvous
from marketfeed.cluster.status import (
    MAX_FEEDS,
    STATUS_BYTES,
    FeedStatus,
    NodeState,
    Role,
    Status,
    StatusError,
    parse_status,
)
from marketfeed.core.units import S

OWN = Status(
    cluster="c1",
    node="a",
    incarnation="i1",
    seq=0,
    role=Role.BOTH,
    state=NodeState.LIVE,
    shard="s0",
    url="http://a:8765",
    sessions=10,
)


def status(node: str, seq: int = 1, **fields) -> Status:
    return msgspec.structs.replace(OWN, node=node, seq=seq, url=f"http://{node}:8765", **fields)


def table(*statuses: Status, now_ns: int = 0) -> Nodes:
    nodes = Nodes(OWN)
    for one in statuses:
        assert nodes.take(one.encode(), now_ns, 0) == one
    return nodes


def names(nodes: Nodes, now_ns: int = 0) -> list[str]:
    return [node.status.node for node in nodes.live(now_ns)]


def test_a_status_is_read_as_it_was_written():
    whole = status("b", site="x", epoch="1abcdef", term=1, head=2, capacity=3, clock=4)
    whole = msgspec.structs.replace(whole, feeds=[FeedStatus("demo", "live", 7)], release="0.2.0")
    assert parse_status(whole.encode()) == whole


@pytest.mark.parametrize(
    "fields",
    [
        {"node": ""},
        {"node": "b" * 65},
        {"node": "b\x1b[2J"},
        {"seq": -1},
        {"role": "king"},
        {"state": "asleep"},
        {"sessions": 2**63},
        {"epoch": "a-b"},
        {"epoch": "a" * 17},
        {"term": 36**10},
        {"url": "javascript:alert(1)"},
        {"url": "http://b c"},
        {"url": "http://" + "b" * 260},
        {"feeds": [{"name": "f", "state": "live"}] * (MAX_FEEDS + 1)},
        {"feeds": [{"name": "f\n", "state": "live"}]},
    ],
)
def test_a_status_with_other_values_is_refused_and_counted(fields):
    data = msgspec.json.encode({**msgspec.to_builtins(status("b")), **fields})
    nodes = table()
    with pytest.raises(StatusError):
        nodes.take(data, 0, 0)
    assert nodes.statistics().damaged == 1
    assert names(nodes) == []


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"[]", b"null", b" " * STATUS_BYTES + b" "])
def test_what_is_no_status_is_refused(data):
    with pytest.raises(StatusError):
        parse_status(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_status_or_an_error(data):
    with pytest.raises(StatusError):
        parse_status(data)


def test_a_node_is_alive_until_its_expiry():
    nodes = table(status("c"), status("b"))
    assert names(nodes, EXPIRY_NS - 1) == ["b", "c"]
    assert nodes.take(status("b", 2).encode(), EXPIRY_NS - 1, 0)
    assert names(nodes, EXPIRY_NS) == ["b"]


def test_late_and_doubled_statuses_are_dropped_and_counted():
    nodes = table(status("b", 5))
    for seq in (5, 4):
        assert nodes.take(status("b", seq).encode(), 0, 0) is None
    assert nodes.statistics().late == 2


def test_the_table_is_bounded():
    nodes = table(*(status(f"n{number}") for number in range(MAX_NODES)))
    assert nodes.take(status("b").encode(), 0, 0) is None
    assert nodes.statistics().over_limit == 1
    assert len(nodes.live(0)) == MAX_NODES


def test_the_offset_of_a_clock_is_that_of_the_fastest_message():
    nodes = table(status("b", 1, clock=3600 * S))
    for seq, (wall_ns, clock) in enumerate([(9, 3600 * S + 2), (12, 3600 * S + 11), (40, 3600 * S + 20)], 2):
        nodes.take(status("b", seq, clock=clock).encode(), 0, wall_ns)
    (node,) = nodes.live(0)
    assert node.clock_offset_ns == 3600 * S


def test_a_restart_is_no_overlap_and_late_statuses_of_before_are_dropped():
    nodes = table(status("b", 7, incarnation="old"), status("b", 0, incarnation="new"))
    assert nodes.take(status("b", 6, incarnation="old").encode(), 0, 0) is None
    assert nodes.overlaps(0) == []


def test_two_processes_of_one_name_are_told():
    nodes = table()
    for seq in range(4):
        for incarnation in ("i1", "i2"):
            nodes.take(status("b", seq, incarnation=incarnation).encode(), 0, 0)
    assert nodes.overlaps(0) == ["two processes use the node name b"]
    assert nodes.overlaps(OVERLAP_NS) == []


def test_another_process_with_the_name_of_this_node_is_told():
    nodes = table()
    for seq in range(10):
        assert nodes.take(status("a", seq).encode(), 0, 0) is None
    assert nodes.overlaps(0) == []
    for seq in range(10):
        nodes.take(status("a", seq, incarnation="i2").encode(), 0, 0)
    assert nodes.overlaps(0) == ["another process uses the name of this node, a"]


def test_another_cluster_on_the_same_subjects_is_told_and_its_nodes_are_left_out():
    nodes = table()
    assert nodes.take(status("b", cluster="c2").encode(), 0, 0) is None
    assert nodes.overlaps(0) == ["the node b belongs to another cluster on these subjects (c2, not c1)"]
    assert nodes.statistics().foreign == 1
    assert names(nodes) == []


def test_the_rank_is_the_same_on_every_node_and_leaves_gateways_and_other_shards_out():
    others = [status("b"), status("c"), status("g", role=Role.GATEWAY), status("x", shard="s1")]
    order = rendezvous("origin.s0", ["a", "b", "c"])
    assert table(*others).rank("origin.s0", 0) == order.index("a")


def test_the_hash_is_pinned():
    assert rendezvous("origin.s0", ["a", "b", "c", "d", "e"]) == ["d", "b", "c", "e", "a"]


@given(st.text(max_size=8), st.sets(st.text(max_size=8), min_size=1, max_size=8))
def test_a_node_that_leaves_changes_the_order_of_the_others_nowhere(key, members):
    order = rendezvous(key, members)
    assert sorted(order) == sorted(members)
    gone = order[0]
    assert rendezvous(key, members - {gone}) == order[1:]
    assert rank_of(key, gone, members - {gone}) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"state": NodeState.STALE},
        {"state": NodeState.DRAINING},
        {"state": NodeState.JOINING},
        {"role": Role.INGEST},
        {"site": "elsewhere"},
        {"shard": "s1"},
        {"capacity": 10},
    ],
)
def test_no_session_goes_to_a_node_that_cannot_take_it(fields):
    assert able_urls(OWN, table(status("b", **fields)), 0) == []
    assert able_urls(OWN, table(status("b", **fields), status("c")), 0) == ["http://c:8765"]


def test_no_session_goes_to_a_node_without_a_url_of_its_own():
    for url in ("", OWN.url):
        nodes = Nodes(OWN)
        nodes.take(msgspec.structs.replace(status("b"), url=url).encode(), 0, 0)
        assert able_urls(OWN, nodes, 0) == []


def test_no_session_goes_to_a_node_far_above_the_average():
    sessions = {"b": 15, "c": 9, "d": 12}  # 1.25 times the average are 15
    nodes = table(*(status(name, sessions=count) for name, count in sessions.items()))
    assert able_urls(OWN, nodes, 0) == ["http://b:8765", "http://c:8765", "http://d:8765"]
    nodes = table(*(status(name, sessions=count + (name == "b")) for name, count in sessions.items()))
    assert able_urls(OWN, nodes, 0) == ["http://c:8765", "http://d:8765"]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_where_nodes_can_take_sessions_one_of_them_does(sessions):
    nodes = table(*(status(f"n{number}", sessions=count) for number, count in enumerate(sessions)))
    assert f"http://n{sessions.index(min(sessions))}:8765" in able_urls(OWN, nodes, 0)
