"""A test without the marker ``e2e`` can start no process and reach no other machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

ELSEWHERE = "192.0.2.1"  # TEST-NET-1, RFC 5737: routed nowhere


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run([sys.executable, "-c", ""]),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.system("true"),
        os.fork,
    ],
    ids=["subprocess", "posix_spawn", "system", "fork"],
)
def test_no_process_starts(start):
    with pytest.raises(RuntimeError, match=r"starts a process: mark it with pytest\.mark\.e2e"):
        start()


def test_no_connection_leaves_this_machine():
    with socket.socket() as sock, pytest.raises(RuntimeError, match="uses the network"):
        sock.connect((ELSEWHERE, 9))


def test_no_datagram_leaves_this_machine():
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(RuntimeError, match="uses the network"):
        sock.sendto(b"x", (ELSEWHERE, 9))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_loopback_and_unix_sockets_connect(family, tmp_path):
    address = ("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket")
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind(address)
        listener.listen()
        client.connect(listener.getsockname())
