"""The code blocks of docs/clients.md run as they stand, in Python, in Chromium and in Node."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas
import pytest
import trio

from marketfeed.client import connect
from tests.support.chromium import watched
from tests.support.peers import MODULES, need
from tests.support.publishers import address_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

    from tests.support.process import Engine

ROOT = Path(__file__).parents[2]
EXAMPLES = {path.read_text("utf-8") for path in (ROOT / "examples").iterdir()}  # test_snippets.py runs them
PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
CONFIG = """
[alerts]
enabled = true
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 1000
rate = 2000
[[feeds]]
name = "publishers"
type = "push"
listen = "127.0.0.1:0"
"""
ENOUGH = 3  # outputs of a block that would go on for ever
ENGINE = "http://127.0.0.1:8765"


def blocks(language: str) -> list[Any]:
    """Return the code blocks in a language that are no examples, each with its line as the test's name."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [
        pytest.param(block[1], id=f"line-{PAGE[: block.start()].count(chr(10)) + 2}")
        for block in found
        if block[1] not in EXAMPLES
    ]


def text_for(running: Engine, text: str) -> str:
    """Return ``text`` with the addresses of this engine."""
    text = text.replace(ENGINE, f"http://127.0.0.1:{running.port}")
    return text.replace("127.0.0.1:8770", address_of(running, "publishers"))


class EnoughError(Exception):
    """A block has printed enough."""


class Printed:
    """In place of `print`: ends the block after a while."""

    def __init__(self) -> None:
        self.values: list[tuple[Any, ...]] = []

    def __call__(self, *values: Any) -> None:
        assert all(str(value) for value in values if not isinstance(value, str))
        self.values.append(values)
        if len(self.values) == ENOUGH:
            raise EnoughError


async def fetch_token() -> str:
    return "token"  # an engine without access control takes any


async def run(text: str, url: str, encoding: str) -> Printed:
    """Run ``text`` with the feed that it uses, if it does not make one."""
    printed = Printed()
    names: dict[str, Any] = {"print": printed, "fetch_token": fetch_token}
    code = compile(text, "clients.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def block() -> None:
        with contextlib.suppress(EnoughError):
            if (ended := eval(code, names)) is not None:
                await ended

    if "feed." in text and "as feed" not in text:
        async with connect(url, quotes=["SY00*"], trades=["SY0000"], encoding=encoding) as feed:
            while feed.latest("SY0000") is None:
                await anext(feed)
            names["feed"] = feed
            await block()
    else:
        await block()
    return printed


@pytest.mark.parametrize(
    "start", [trio.run, lambda work, *given: asyncio.run(work(*given))], ids=["trio", "asyncio"]
)
@pytest.mark.parametrize("text", blocks("python"))
def test_python(running: Engine, text: str, start: Callable[..., Printed]) -> None:
    encoding = "binary" if "pandas" in text else "json"
    printed = start(run, text_for(running, text), running.url, encoding)
    assert printed.values
    for value in printed.values[0]:
        assert not isinstance(value, pandas.DataFrame) or len(value)


# A document of the engine without a content security policy, and in it a block as a module of the page.
BEFORE = """window.shown = [];
for (const name of ["log", "debug", "warn"]) console[name] = (...values) => shown.push(values);
"""
ADD = """text => {
  const script = document.createElement("script");
  document.head.append(Object.assign(script, { type: "module", textContent: text }));
}"""
CONNECT = 'import { connect } from "/marketfeed.js";\n'
FEED = 'const feed = connect("/");\nfeed.subscribe({ quotes: ["SY0000"] }, () => {});\n'


@pytest.mark.parametrize("text", [one for one in blocks("js") if 'from "marketfeed"' not in one.values[0]])
def test_javascript_in_a_page(running: Engine, browser: Browser, text: str) -> None:
    with watched(browser) as pages:
        page = pages.open(f"http://127.0.0.1:{running.port}/robots.txt")
        page.route("**/my/session", lambda route: route.fulfill(json={"token": "token"}))
        feed = "" if "feed = connect" in text else FEED
        page.evaluate(ADD, BEFORE + CONNECT * ("import {" not in text) + feed + text_for(running, text))
        page.wait_for_function("window.shown?.length")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder in which the npm package and those that it is used with are installed."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "marketfeed").symlink_to(ROOT / "js")
    for name in ("ws", "typescript", "@types"):
        if not (MODULES / name).is_dir():
            pytest.skip(f"needs: npm install --prefix .venv/foreign {name}")
        (tmp_path / "node_modules" / name).symlink_to(MODULES / name)
    return tmp_path


@pytest.mark.parametrize("text", [one for one in blocks("js") if 'from "marketfeed"' in one.values[0]])
def test_javascript_in_node(running: Engine, package: Path, text: str) -> None:
    (package / "block.mjs").write_text(text_for(running, text))
    with subprocess.Popen(
        [need("node"), "block.mjs"], cwd=package, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            assert any("SY0000" in line for line in program.stdout)
        finally:
            program.kill()


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("ts"))
def test_typescript(package: Path, text: str) -> None:
    (package / "block.mts").write_text(text)
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2023", "--lib", "es2023,dom"]
    compiler = str(package / "node_modules" / "typescript" / "bin" / "tsc")
    done = subprocess.run(
        [need("node"), compiler, *options, "block.mts"],
        cwd=package, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
