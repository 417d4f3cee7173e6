"""Hooks for all tests: markers and timeouts, parallel runs, no processes or network in quick tests, no skips.

Tests run in parallel (``-n auto``, pytest-xdist): a test uses ports that the kernel chose or that
tests/support/ports.py found, its own ``tmp_path``, and no fixed name outside of that. Tests that depend on
how busy the machine is (figures of time and memory, floods, soaks) are marked ``alone``; `make test` runs
them after the others, one per core.

Tests without the marker ``e2e`` start no process and use no network: the audit hook below makes starting a
process, connecting and sending to any address outside this machine raise. Loopback TCP is allowed,
because resets, half-closed connections and the kernel's buffers are what the tests of the gateway are about.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
EXAMPLES = 1000 if PROVE else 30  # per property, unless the test sets another number

# Timing is never asserted: Hypothesis's deadline and its check for slow data fail on a busy machine.
settings.register_profile(
    "marketfeed", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("marketfeed")

os.umask(0o022)  # so that files of secrets, which a group must not be able to write, are valid

E2E = Path(__file__).parent / "e2e"
E2E_TIMEOUT_S = 300
PROVE_TIMEOUT_S = 3600  # of the long variants that `make prove` runs
PROCESSES = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system")
LOCAL_NAMES = ("", "localhost")  # "" is the wildcard address

running: pytest.Item | None = None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of test processes: one per core with ``-n logical``, two with ``-n auto``.

    Two per core suit tests that mostly wait for other processes.
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


def on_this_machine(host: str) -> bool:
    """Return whether ``host`` is localhost or an address of this machine."""
    if host in LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse_processes_and_networks(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: raise if a test without the marker `e2e` starts a process or connects to another machine.

    Source of the events and their arguments: https://docs.python.org/3/library/audit_events.html
    """
    if running is None or running.get_closest_marker("e2e"):
        return
    if event in PROCESSES:
        raise RuntimeError(f"{running.nodeid} starts a process: mark it with pytest.mark.e2e")
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and not on_this_machine(str(address[0])):
            raise RuntimeError(f"{running.nodeid} uses the network: {event} {address}")


sys.addaudithook(refuse_processes_and_networks)


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
    """Folder of recordings of real venues."""
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


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Return short ids for long values: some hold random keys, and all workers must collect the same ids."""
    return f"{argname}-long" if isinstance(val, str | bytes) and len(val) > 100 else None
