"""Runs js/marketfeed.js in Node.js, against engines and alone."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import SUPPORT
from tests.support.lines import WAIT_S, Lines
from tests.support.peers import MODULES, ROOT, need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "js"
MODULE = PACKAGE / "marketfeed.js"
# What tests of the parts import; the module exports only what programs need.
PARTS = "export { decode, makeApi, makeBook, makeStream, makeSubscription, matcher, query };\n"

Message = dict[str, Any]


def foreign(name: str) -> Path:
    """Return the folder of a package of .venv/foreign, or skip the test."""
    folder = MODULES / name
    if not folder.is_dir():
        pytest.skip(f"needs {name}: npm install --prefix .venv/foreign")
    return folder


def with_parts(folder: Path) -> Path:
    """Write the module to ``folder`` so that it exports its parts too; return the path."""
    path = folder / "parts.mjs"
    path.write_text(MODULE.read_text("utf-8") + PARTS, "utf-8")
    return path


def node(script: Path, *arguments: str | Path, timeout_s: float = WAIT_S) -> str:
    """Run a script of Node.js; return what it prints. Fails with its errors."""
    done = subprocess.run(
        [need("node"), script, *arguments], capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


class Program:
    """tests/support/feed.mjs: a feed whose messages come as lines, and which takes commands as lines."""

    def __init__(self, url: str, **options: Any) -> None:
        foreign("ws")
        paths = [str(path) for path in (SUPPORT / "feed.mjs", MODULE, MODULES)]
        argv = [need("node"), *paths, url, json.dumps(options)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines: Lines[Message] = Lines(self.process, json.loads)
        self.messages, self.wait = self._lines.all, self._lines.wait

    def call(self, code: str) -> None:
        """Run a statement of JavaScript with ``feed`` and ``tell(message)``."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()

    def ask(self, code: str) -> Any:
        """Return the value of an expression."""
        name = f"answer {len(self.messages)}"
        self.call(f"tell({{T: {json.dumps(name)}, value: await ({code})}})")
        return self.wait(lambda all_: next((m for m in all_ if m["T"] == name), None)).get("value")

    def wait_for(self, kind: str, after: int = 0, timeout_s: float = WAIT_S, **fields: Any) -> Message:
        """Return the first message of a type with these fields, from number ``after`` on."""

        def found(messages: list[Message]) -> Message | None:
            for message in messages[after:]:
                if message["T"] == kind and fields.items() <= message.items():
                    return message
            return None

        message: Message = self.wait(found, timeout_s)
        return message

    def close(self) -> None:
        """End the program as a program does: by feed.close()."""
        if self.process.poll() is None:
            self.call("feed.close()")
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self._lines.close()


@contextmanager
def program(url: str, **options: Any) -> Iterator[Program]:
    """Run a feed in Node.js; ``options`` are those of ``connect``, and `subscribe`, its names."""
    running = Program(url, **options)
    try:
        yield running
    finally:
        running.close()
    assert running.process.returncode == 0
