"""What tests share: of one file, an engine with its CONFIG, and a browser; of each test, a NATS server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import chromium
from tests.support.nats import nats_server
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.support.nats import NatsServer
    from tests.support.process import Engine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(request.module.CONFIG, tmp_path_factory.mktemp("engine")) as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS server."""
    with nats_server(tmp_path / "nats") as running:
        yield running


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS server that the test starts, after changing its settings."""
    with nats_server(tmp_path / "nats", start=False) as found:
        yield found
