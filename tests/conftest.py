"""What all tests share: where real recordings are, and the rule that CI skips nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Timing is never asserted: a deadline of hypothesis's would, on whatever machine is busy.
settings.register_profile("marketfeed", deadline=None)
settings.load_profile("marketfeed")


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
