"""The commands of docs/access.md, in the order of the page, as a new user types them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.peers import need
from tests.support.ports import free_port
from tests.support.process import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "access.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]  # fmt: skip
CONFIG, KEYS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
JWT = re.search(r"^\[auth\]\n(?:\w.*\n)+", CONFIG, re.MULTILINE)
assert JWT is not None
VARIABLE = "MARKETFEED_TOKEN"


class User:
    """Who follows the page in ``folder``, with ports of the machine that are free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
        self.left = list(COMMANDS)

    def configure(self, text: str) -> None:
        ports = f"[gateway]\nport = {self.port}\n", f"\n[admin]\nport = {self.admin_port}\n"
        (self.folder / "config.toml").write_text(text.replace("[gateway]\n", ports[0]) + ports[1])

    def skip_to(self, beginning: str) -> None:
        """Leave out the commands of the page before one that begins so."""
        while not self.left[0].startswith(beginning):
            self.left.pop(0)

    def next(self, beginning: str) -> str:
        """Return the next command of the page, which begins so."""
        command = self.left.pop(0)
        assert command.startswith(beginning), command
        return command

    def run(self, beginning: str) -> str:
        """Run the next command of the page; return its output."""
        command = self.next(beginning)
        exported = re.fullmatch(rf"export {VARIABLE}=\$\((.*)\)", command)
        done = subprocess.run(
            self._argv(command if exported is None else exported[1]),
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        assert "warning" not in done.stderr
        if exported is not None:
            self.environ[VARIABLE] = done.stdout.strip()
        return done.stdout

    @contextmanager
    def watching(self, beginning: str) -> Iterator[subprocess.Popen[str]]:
        """Run the next command of the page, which shows ticks, until the block ends."""
        with subprocess.Popen(
            self._argv(self.next(beginning)), cwd=self.folder, env=self.environ, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                assert " SY00" in process.stdout.readline()
                yield process
            finally:
                process.terminate()

    @contextmanager
    def serving(self, arguments: list[str]) -> Iterator[Engine]:
        engine = Engine(*arguments, cwd=self.folder)
        try:
            yield engine
        finally:
            engine.close()

    def _argv(self, command: str) -> list[str]:
        command = command.replace(f'"${VARIABLE}"', self.environ.get(VARIABLE, ""))
        program, *arguments = shlex.split(command.replace(":8765/", f":{self.port}/"), comments=True)
        return [sys.executable, "-m", "marketfeed", *arguments] if program == "marketfeed" else [
            need(program), *arguments
        ]  # fmt: skip


def test_every_command_of_the_page_works_as_written(tmp_path):
    user = User(tmp_path)
    user.run("marketfeed token --new-key")
    user.configure(CONFIG)
    serve = shlex.split(user.next("marketfeed serve"))[2:]
    with user.serving(serve):
        user.run(f"export {VARIABLE}=")
        with user.watching("marketfeed watch"):
            pass
        user.run("marketfeed usage")
    user.run("openssl")
    user.configure(CONFIG.replace("# tls_", "tls_"))
    with user.serving(serve) as engine:
        assert engine.ready.startswith("marketfeed ready https://")
        for _ in range(2):
            with user.watching("marketfeed watch"):
                pass
        user.skip_to("marketfeed revoke")
        for _ in range(len(user.left)):
            user.run("marketfeed revoke")
    assert user.environ[VARIABLE] not in "".join(engine.stderr)


def test_every_command_about_keys_works_as_written(tmp_path):
    user = User(tmp_path)
    assert JWT is not None
    user.configure(CONFIG.replace(JWT[0], KEYS))
    user.skip_to("marketfeed keys")
    user.environ[VARIABLE] = user.run("marketfeed keys add").strip()
    with user.serving([]) as engine:
        user.left.insert(0, "marketfeed watch 'SY00*'")
        with user.watching("marketfeed watch") as process:
            assert "desk 3" in user.run("marketfeed keys list")
            user.run("marketfeed keys revoke")
            assert user.next("kill -HUP $(pidof -s -x marketfeed)")
            engine.process.send_signal(signal.SIGHUP)
            assert "closed 4502" in process.communicate(timeout=60)[1]
