"""A log for commands about alerts."""

from __future__ import annotations

import shutil

import pytest
import trio

from tests.support.alert_commands import fill


@pytest.fixture(scope="session")
def filled_log(tmp_path_factory):
    """The log of tests.support.alert_commands, made once."""
    folder = tmp_path_factory.mktemp("alerts")
    trio.run(fill, folder / "alerts.db")
    return folder


@pytest.fixture
def log(filled_log, tmp_path):
    """The path of a copy of it."""
    return shutil.copytree(filled_log, tmp_path / "var") / "alerts.db"
