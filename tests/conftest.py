"""Hooks for all tests: markers and timeouts, parallel runs, no processes in quick tests, no skips.

Tests run in parallel (``-n auto``, pytest-xdist): a test uses ports that the kernel chose or that
tests/support/ports.py found, its own ``tmp_path``, and no fixed name outside of that. Tests that depend on
how busy the machine is (figures of time and memory, floods, soaks) are marked ``alone``; `make test` runs
them after the others, one at a time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
EXAMPLES = 1000 if PROVE else 30  # of each property, unless the test says otherwise

# Timing is never asserted: Hypothesis's deadline and its check for slow data fail on a busy machine.
settings.register_profile(
    "marketfeed", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("marketfeed")

E2E = Path(__file__).parent / "e2e"
E2E_TIMEOUT_S = 300
PROVE_TIMEOUT_S = 3600  # of the long forms that `make prove` runs
PROCESSES = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec")

running: pytest.Item | None = None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many tests run at a time: one a core with ``-n logical``, two a core with ``-n auto``.

    Two suit tests that wait for other processes most of their time.
    """
    cores = len(os.sched_getaffinity(0))
    return cores if config.getoption("numprocesses") == "logical" else 2 * cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests in tests/e2e as `e2e`, and give tests that are `e2e` or `slow` more time."""
    for item in items:
        if item.path.is_relative_to(E2E):
            item.add_marker(pytest.mark.e2e)
        if PROVE:
            item.add_marker(pytest.mark.timeout(PROVE_TIMEOUT_S))
        elif item.get_closest_marker("e2e") or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(E2E_TIMEOUT_S))


def refuse_processes(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: a test that starts a process has to have the marker `e2e`."""
    if event in PROCESSES and running is not None and not running.get_closest_marker("e2e"):
        raise RuntimeError(f"{running.nodeid} starts a process: mark it with pytest.mark.e2e")


sys.addaudithook(refuse_processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global running
    running = item
    try:
        return (yield)
    finally:
        running = None


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of recordings of real venues."""
    folder = os.environ.get("MARKETFEED_REALDATA")
    if not folder:
        pytest.skip("set MARKETFEED_REALDATA to the folder of recordings")
    return Path(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("MARKETFEED_NO_SKIPS"):
        terminalreporter.write_line(f"{len(skipped)} skipped, and MARKETFEED_NO_SKIPS forbids that", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("MARKETFEED_NO_SKIPS") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
