"""Alerts as the Python client's caller gets them from a real engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import trio

from marketfeed.client import connect
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = '[alerts]\nenabled = true\n[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 1\nrate = 1\n'
MOST = 20


async def consume(url: str) -> list[str]:
    """Receive notices, each published after the former one, with a buffer for three of them."""
    found = []
    async with connect(url, buffer_bytes=1000) as feed:
        await feed.publish("0" * 100, to="risk-1")
        async for alert in feed.alerts(consumer="risk-1"):
            found.append(alert.msg[0])
            if len(found) == MOST:
                return found
            await feed.publish(str(len(found) % 10) * 100, to="risk-1")
    raise AssertionError("the loop ended by itself")


@pytest.mark.parametrize("run", [trio.run, lambda work, url: asyncio.run(work(url))], ids=["trio", "asyncio"])
def test_the_buffer_of_ticks_does_not_stop_a_loop_over_alerts_alone(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    with engine(CONFIG, tmp_path) as running:
        assert run(consume, running.url) == [str(number % 10) for number in range(MOST)]
