"""Imports point one way: sources to subscribers, never back, and never in a circle."""

from __future__ import annotations

import ast
import importlib
from graphlib import TopologicalSorter
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("marketfeed/**/*.py"), *ROOT.glob("feeds/**/*.py")])

# Lowest first. A module imports from its own entry and from those before it.
LAYERS = [
    {"marketfeed.errors"},
    {"marketfeed.core"},
    {"marketfeed.api"},
    {
        "marketfeed.shm",
        "marketfeed.config",
        "marketfeed.client",
        "marketfeed.clock",
        "marketfeed.file_lock",
        "marketfeed.folders",
        "marketfeed.http_client",
        "marketfeed.logs",
        "marketfeed.secret",
        "marketfeed.sqlite_files",
        "marketfeed.unix_sockets",
    },
    {
        "marketfeed.ingest",
        "marketfeed.latency",
        "marketfeed.alerts",
        "marketfeed.access",
        "marketfeed.cluster",
    },
    {"marketfeed.fanout"},
    {"marketfeed.gateway"},
    {"marketfeed.server", "marketfeed.recordings"},
    {"marketfeed.workers", "marketfeed.admin"},
    {
        "marketfeed.builder",
        "marketfeed.checks",
        "marketfeed.clustering",
        "marketfeed.engine",
        "marketfeed.reloads",
        "marketfeed.succession",
    },
    {"marketfeed.cli", "marketfeed.__main__"},
    {
        "marketfeed.testing",
        "marketfeed.testing_alert_consumers",
        "marketfeed.testing_alert_examples",
        "marketfeed.testing_alert_log",
    },
]
FEEDS = "marketfeed.feeds"  # the folder feeds/, where marketfeed/feeds links
FOR_FEEDS = (
    "marketfeed.core",
    "marketfeed.errors",
    "marketfeed.unix_sockets",
    "marketfeed.ingest.feed",
    FEEDS,
)
PACKAGE = "marketfeed"  # its __init__ shows users what is theirs


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = (PACKAGE, *parts) if parts[0] == "feeds" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, *, annotations: bool = True) -> set[str]:
    """Return every module that the file imports, at any level.

    Without ``annotations``, imports under ``if TYPE_CHECKING`` are left out: they do not run.
    """
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while nodes:
        node = nodes.pop()
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if typing_only and not annotations:
            continue
        children = ast.iter_child_nodes(node)
        nodes.extend(child for child in children if not isinstance(child, ast.expr))
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            module = node.module or ""
            submodules = {f"{module}.{name.name}" for name in node.names} & MODULES.keys()
            found |= submodules or {module}
    return found


MODULES = {module_of(path): path for path in FILES}
IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}
OURS = {
    module: {name for name in names if name in MODULES or name.split(".")[0] in (PACKAGE, "feeds")}
    for module, names in IMPORTS.items()
}


def layer_of(module: str) -> int:
    """Return the index of the layer a module of marketfeed belongs to."""
    (layer,) = (
        index
        for index, entries in enumerate(LAYERS)
        if any(module == entry or module.startswith(f"{entry}.") for entry in entries)
    )
    return layer


def within(module: str, *entries: str) -> bool:
    return any(module == entry or module.startswith(f"{entry}.") for entry in entries)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {PACKAGE}))
def test_a_module_imports_from_its_own_layer_and_those_before(module):
    if within(module, FEEDS):
        assert not {name for name in OURS[module] if not within(name, *FOR_FEEDS)}
    else:
        ours = OURS[module] - {PACKAGE}
        assert not {name for name in ours if within(name, FEEDS) or layer_of(name) > layer_of(module)}


def test_the_package_itself_imports_core_and_the_tap_alone():
    assert all(within(name, "marketfeed.core", "marketfeed.shm.tap") for name in OURS[PACKAGE])


def test_the_tap_needs_no_event_loop():
    assert not {name for name in IMPORTS["marketfeed.shm.tap"] if name.split(".")[0] in ("trio", "structlog")}


def test_the_fan_out_knows_nothing_of_ingest():
    fanout = {module for module in MODULES if within(module, "marketfeed.fanout")}
    assert fanout
    assert not {name for module in fanout for name in OURS[module] if within(name, "marketfeed.ingest")}


@pytest.mark.parametrize("module", sorted(module for module in MODULES if within(module, FEEDS)))
def test_a_feed_imports_no_other_feed(module):
    own = ".".join(module.split(".")[:3])
    assert {name for name in OURS[module] if within(name, FEEDS)} <= {m for m in MODULES if within(m, own)}


def test_feeds_have_one_name():
    """In the root of the repository ``import feeds`` would run second copies of their modules."""
    with pytest.raises(ImportError, match=r"^import marketfeed\.feeds"):
        importlib.import_module("feeds")
    everything = [
        path
        for folder in ("marketfeed", "feeds", "perf", "tests", "examples", "docs")
        for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    assert not {path for path in everything if any(within(name, "feeds") for name in imports_of(path))}
    ours = [entry for entry in entry_points(group=FEEDS) if entry.dist and entry.dist.name == PACKAGE]
    assert len(ours) == 3
    assert all(within(entry.module, FEEDS) for entry in ours)


def test_there_is_no_circle():
    # The package is left out: every import of a submodule runs it first.
    run = {
        m: (imports_of(path, annotations=False) & MODULES.keys()) - {PACKAGE} for m, path in MODULES.items()
    }
    order = list(TopologicalSorter(run).static_order())
    assert set(order) >= MODULES.keys() - {PACKAGE}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if within(name, "marketfeed.core")))
def test_core_knows_no_event_loop_no_clock_and_no_socket(module):
    forbidden = ("trio", "asyncio", "time", "datetime", "socket", "threading", "structlog")
    assert not {name for name in IMPORTS[module] if name.split(".")[0] in forbidden}


def test_long_lived_tasks_start_in_the_engine_alone():
    """Elsewhere nurseries are opened by what ends with one connection, poll, command or run of a feed.

    worker.py is the task tree of a worker process; supervisor.py has a nursery per worker process, which ends
    with that process. The watcher of alerts has tasks of its own, since it has to finish when they end. The
    dispatch of alerts runs within the engine's alerting, the live views within the server of each process.
    """
    openers = {module for module, path in MODULES.items() if "open_nursery(" in path.read_text("utf-8")}
    allowed = {
        "marketfeed.engine",
        "marketfeed.gateway.waits",
        "marketfeed.client.trio_backend",
        "marketfeed.cli.session_view",
        "marketfeed.cli.live_table",
        "marketfeed.cli.alerts_follow",  # what ends the command: a signal, or a closed pipe
        "marketfeed.cli.latency_probe",
        "marketfeed.feeds.push",
    }
    allowed |= {"marketfeed.workers.worker", "marketfeed.workers.supervisor"}
    allowed |= {"marketfeed.alerts.watcher", "marketfeed.server.alerting"}
    allowed |= {"marketfeed.alerts.dispatch", "marketfeed.gateway.live_alerts"}
    allowed |= {"marketfeed.server.lives"}  # a nursery for each life, within the sessions of the engine
    allowed |= {"marketfeed.alerts.escalation.alertmanager"}  # ends with one attempt
    # As the watcher, they finish when their tasks end; they run within the engine's alerting.
    allowed |= {"marketfeed.alerts.escalator", "marketfeed.alerts.escalation.lane"}
    allowed |= {"marketfeed.recordings.record", "marketfeed.recordings.simulate"}
    allowed |= {"marketfeed.testing_alert_log"}  # ends with one check
    assert openers <= allowed
