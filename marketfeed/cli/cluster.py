"""``marketfeed cluster``: the nodes of a cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from marketfeed.cli.alerts_place import AdminTokenOption
from marketfeed.cli.options import CaOption, ConfigOption, SetOption, fail, load_config
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from marketfeed.api.cluster import ClusterAnswer, ClusterNode

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed cluster status\n\n"
    "marketfeed cluster status --url http://127.0.0.1:8766 --json | jq -r '.nodes[] | select(.origin).node'"
)
NAMES: Final = (
    "node", "role", "state", "origin", "term", "head", "behind", "sessions", "release", "clock ms",
)  # fmt: skip

app = typer.Typer(help="Show the nodes of a cluster.", no_args_is_help=True)

AdminUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="URL of a node's admin port, http://HOST:PORT. Default: as the configuration says.",
    ),
]


@app.command(epilog=EXAMPLES)
def status(
    json: Annotated[bool, typer.Option("--json", help="Print the answer of the node as JSON.")] = False,
    url: AdminUrl = None,
    ca: CaOption = None,
    admin_token_file: AdminTokenOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Show the live nodes as one of them sees them: origin, heads, sessions, and what is wrong.

    Exits with status 0 if the shard of that node has one origin, and all its nodes hear it; with 1 if not;
    with 2 if there is no answer.
    """
    from marketfeed.cli.alerts_output import print_json, print_said, print_table

    answer = _answer(config, set_, url, ca, admin_token_file)
    if json:
        print_json(answer, sys.stdout)
    else:
        print_said(f"cluster {answer.cluster}, shard {answer.shard}, as {answer.node} sees it", sys.stdout)
        print_table(NAMES, [_cells(node) for node in answer.nodes], sys.stdout)
    for text in (*answer.problems, *answer.warnings):
        print_said(text, sys.stderr)
    if not _is_well(answer):
        raise typer.Exit(1)


def _answer(
    config: Path | None, set_: list[str] | None, url: str | None, ca: Path | None, token_file: Path | None
) -> ClusterAnswer:
    """Return what the node answers; raises the exit with status 2."""
    from marketfeed.api.cluster import ClusterAnswer
    from marketfeed.cli.alerts_http import Call, CallError, UnreachableError
    from marketfeed.cli.alerts_place import engine_of, struct_of

    call = Call("GET", "/v1/cluster", admin=True)
    try:
        answer = engine_of(load_config(config, set_), call, url, ca, token_file).answer(call)
    except (CallError, ConfigError, UnreachableError) as error:
        raise fail(str(error)) from None
    return struct_of(answer, ClusterAnswer)


def _cells(node: ClusterNode) -> list[str | int]:
    origin = "*" if node.origin else ""
    return [
        node.node, node.role, node.state, origin, node.term, node.head, node.behind, node.sessions,
        node.release, f"{node.clock_offset_ms:+.0f}",
    ]  # fmt: skip


def _is_well(answer: ClusterAnswer) -> bool:
    """Return whether the shard has one origin, which all its nodes hear."""
    nodes = [node for node in answer.nodes if node.shard == answer.shard and node.state != "draining"]
    origins = [node for node in nodes if node.origin]
    return not answer.problems and len(origins) == 1 and all(node.state == "live" for node in nodes)
