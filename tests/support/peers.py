"""Third-party programs as subscribers, each checked for holes and duplicates."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.support.conformance import check_answer, check_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".venv" / "foreign" / "node_modules"
CURL_S = "30"  # timeout of every request

Message = dict[str, Any]


def need(program: str) -> str:
    """Return the path of ``program``, or skip the test."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}")
    return found


class Follower:
    """Checks the ticks of one client on an `every` tier, across reconnects."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], int] = {}
        self.ticks = 0

    def take(self, messages: Sequence[Message]) -> None:
        """Check the messages of one event, frame or body."""
        for message in messages:
            if message["T"] not in ("q", "t"):
                assert message["T"] not in ("gap", "lag", "error"), message
                continue
            key = (message["T"], message["S"])
            if "snap" not in message:
                assert message["n"] == self.last.get(key, 0) + 1, f"{message} after n={self.last.get(key)}"
                self.ticks += 1
            self.last[key] = message["n"]


@contextmanager
def events(url: str, *arguments: str) -> Iterator[Iterator[tuple[str, list[Message]]]]:
    """Read Server-Sent Events by curl as pairs of last id and messages; curl ends with the block."""
    argv = [need("curl"), "-sSN", "--max-time", CURL_S, *arguments, url]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield _events(process.stdout)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _events(lines: Iterator[str]) -> Iterator[tuple[str, list[Message]]]:
    last = ""
    for line in lines:
        name, _, value = line.rstrip("\n").partition(": ")
        if name == "id":
            last = value
        elif name == "data":
            messages = json.loads(value)
            check_event(messages)
            yield last, messages


def curl(url: str, *arguments: str) -> tuple[int, dict[str, str], bytes]:
    """Make one request by curl; return status, headers by lower-case name, body."""
    argv = [need("curl"), "-sS", "--max-time", CURL_S, "-D", "-", *arguments, url]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    status = int(first.split()[1])
    if "text/event-stream" not in headers.get("content-type", ""):
        check_answer("GET", url, status, headers, body)
    return status, headers, body


class Files:
    """A certificate for this machine and its authority."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        self.authority, self.cert, self.key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
        authority.cert_pem.write_to_path(self.authority)
        issued.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
