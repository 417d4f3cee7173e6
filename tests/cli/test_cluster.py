"""``marketfeed cluster status`` without an engine; tests/e2e/test_cluster.py runs it against nodes."""

import pytest
from typer.testing import CliRunner

from marketfeed.api.cluster import ClusterAnswer, ClusterNode
from marketfeed.cli import app
from marketfeed.cli.cluster import _is_well


def node(name, *, origin=False, state="live", shard="s0"):
    return ClusterNode(name, "both", state, shard, origin, "", "", 1, "e", 5, 0, 0, 10, "1", 0.0)


@pytest.mark.parametrize(
    ("nodes", "problems", "well"),
    [
        ([node("a", origin=True), node("b")], [], True),
        ([node("a", origin=True), node("b", state="draining")], [], True),
        ([node("a", origin=True), node("b", shard="s1", state="stale")], [], True),
        ([node("a"), node("b")], [], False),
        ([node("a", origin=True), node("b", origin=True)], [], False),
        ([node("a", origin=True), node("b", state="joining")], [], False),
        ([node("a", origin=True)], ["cluster: refused: sizes"], False),
    ],
)
def test_what_is_well(nodes, problems, well):
    assert _is_well(ClusterAnswer("main", "s0", "a", "connected", "a", problems, [], nodes)) == well


def test_without_an_engine_the_exit_status_is_2(tmp_path):
    done = CliRunner().invoke(app, ["cluster", "status", "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 2
    assert "cannot reach the engine" in done.stderr
