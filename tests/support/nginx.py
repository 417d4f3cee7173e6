"""A real nginx."""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.peers import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def running_nginx(text: str, port: int, folder: Path) -> Iterator[None]:
    """Run nginx with ``text`` in its http block, which makes it listen on ``port`` of loopback."""
    program = need("nginx")
    (folder / "marketfeed.conf").write_text(text)
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\ndaemon off;\nworker_processes 1;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}include {folder}/marketfeed.conf;\n}}\n"
    )
    # Started as root, its workers would be another user, who may not enter this folder.
    as_root = "user root;" if folder.owner() == "root" else ""
    process = subprocess.Popen([program, "-p", folder, "-c", folder / "nginx.conf", "-g", as_root])
    try:
        while True:
            assert process.poll() is None, (folder / "error.log").read_text()
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield
    finally:
        process.terminate()
        process.wait(30)
