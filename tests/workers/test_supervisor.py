"""What the supervisor tells workers at their start, and later. No processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from marketfeed.access.material import Material
from marketfeed.config.schema import AuthConfig, Config, EngineConfig, TenantConfig
from marketfeed.core.rings import Rings
from marketfeed.workers import supervisor as supervisors
from marketfeed.workers.messages import AccessChanged, Start
from marketfeed.workers.placement import Placement

CONFIG = Config(engine=EngineConfig(workers=2), auth=AuthConfig(mode="keys"))
CONFIG_OF_WORKERS = msgspec.structs.replace(
    CONFIG, alerts=msgspec.structs.replace(CONFIG.alerts, enabled=False)
)
FIRST, SECOND = Material(key=b"1"), Material(key=b"2")


class FakeChild:
    """A worker that keeps what it is sent, and does not end."""

    def __init__(self, worker: int, generation: int, rings_fd: int, log_level: str) -> None:
        self.worker = worker
        self.channel = self
        self.sent: list[Any] = []

    def send(self, message: object) -> None:
        self.sent.append(message)


@pytest.fixture
def supervisor(monkeypatch, nursery):
    class Quiet(supervisors.Supervisor):
        async def _supervise(self, child):
            await trio.sleep_forever()

    monkeypatch.setattr(supervisors, "Child", FakeChild)
    made = Quiet(
        CONFIG, Path("/"), Rings.private(1, 4), "info", Placement(2), on_message=lambda *_: None, on_end=print
    )
    made._nursery = nursery
    return made


async def test_a_worker_starts_with_the_keys_in_force(supervisor):
    assert supervisor._spawn(0).sent == [Start(0, CONFIG_OF_WORKERS, "/", 0, None)]
    supervisor.renew_access(CONFIG.auth, FIRST)
    assert supervisor._spawn(1).sent == [Start(1, CONFIG_OF_WORKERS, "/", 0, FIRST)]


async def test_keys_and_tenants_that_change_reach_workers_that_run_and_those_that_start(supervisor):
    supervisor.renew_access(CONFIG.auth, FIRST)
    one, other = supervisor._spawn(0), supervisor._spawn(1)
    auth = msgspec.structs.replace(CONFIG.auth, tenants={"desk": TenantConfig()})
    supervisor.renew_access(auth, SECOND, asked=[other])
    assert one.sent[1:] == [AccessChanged(0, auth, SECOND)]
    assert not other.sent[1:]
    (start,) = supervisor._spawn(0).sent
    assert (start.config.auth, start.material) == (auth, SECOND)
