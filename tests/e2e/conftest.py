"""What the tests of one file share: an engine with that file's CONFIG, and a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import chromium
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.support.process import Engine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(request.module.CONFIG, tmp_path_factory.mktemp("engine")) as found:
        yield found
