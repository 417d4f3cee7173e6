"""NATS servers on the shipped configurations."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from marketfeed.cluster.link_settings import LinkSettings
from marketfeed.secret import Secret
from tests.support.nats import PROGRAM, READY_S, healthy
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPLOY = Path(__file__).parents[2] / "deploy" / "nats"
PASSWORDS = {
    "NATS_INGEST_PASSWORD": "ingest-secret",
    "NATS_GATEWAY_PASSWORD": "gateway-secret",
    "NATS_ADMIN_PASSWORD": "admin-secret",
    "NATS_LEAF_PASSWORD": "leaf-secret",
}


class Site:
    """Three servers of one shipped file, on this machine; names of machines become ports."""

    def __init__(
        self,
        file: str,
        names: list[str],
        folder: Path,
        leaf_url: str = "",
        passwords: Mapping[str, str] = PASSWORDS,
    ) -> None:
        self.ports = {name: (free_port(), free_port(), free_port(), free_port()) for name in names}
        self._folder = folder
        text = (DEPLOY / file).read_text()
        for name, (_, _, route, _) in self.ports.items():
            text = text.replace(f"{name}:6222", f"127.0.0.1:{route}")
        self.processes = []
        for name, (client, http, route, leaf) in self.ports.items():
            here = folder / name
            here.mkdir()
            own = text.replace("./", f"{os.path.relpath(DEPLOY, here)}/").replace("/var/lib/nats", str(here))
            for old, new in ((4222, client), (8222, http), (6222, route), (7422, leaf)):
                own = re.sub(rf"(listen|http): [0-9.]+:{old}\b", rf"\g<1>: 127.0.0.1:{new}", own)
            (here / "nats.conf").write_text(own)
            environ = {**os.environ, "NATS_NAME": name, "NATS_LEAF_URL": leaf_url, **passwords}
            with (here / "nats.log").open("wb") as log:
                argv = [str(PROGRAM), "-c", str(here / "nats.conf")]
                self.processes.append(subprocess.Popen(argv, env=environ, stdout=log, stderr=log))

    def wait_until_ready(self) -> None:
        """Return once all accept clients, and their JetStream answers."""
        for (name, ports), process in zip(self.ports.items(), self.processes, strict=True):
            healthy(ports[1], process, self._folder / name / "nats.log")

    def close(self) -> None:
        """End all at once."""
        for process in self.processes:
            process.kill()
            process.wait(READY_S)

    @property
    def urls(self) -> tuple[str, ...]:
        """What clients connect to, in the order of the names."""
        return tuple(f"nats://127.0.0.1:{client}" for client, *_ in self.ports.values())

    def settings(self, user: str, bucket: str | None = "mf_test") -> LinkSettings:
        return LinkSettings(
            servers=self.urls,
            name=f"test.{user}",
            queue_bytes=1 << 20,
            bucket=bucket,
            replicas=3,
            user=user,
            password=Secret(f"{user}-secret"),
        )
