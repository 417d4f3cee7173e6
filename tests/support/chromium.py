"""Debian's Chromium, driven by playwright: pages whose console, errors and policy violations are checked."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import sync_playwright

from tests.support.peers import MODULES, need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--js-flags=--expose-gc",
)
SERIOUS: Final = ("serious", "critical")  # impacts in axe-core's words
WAIT_MS: Final = 60_000  # for what has to happen; processes may share their core with other tests
# Faults of the network that a test causes are the browser's to report, not the page's.
NETWORK: Final = ("Failed to load resource", "WebSocket connection to", "net::ERR_")
# A feed for pages: 20 symbols, each with 30 quotes a second.
DEMO = """
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 20
rate = 600
activity = "uniform"
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser without a window."""
    program = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A context whose pages report; ``problems`` holds what none of them may do."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.problems: list[str] = []
        context.set_default_timeout(WAIT_MS)
        context.on("page", self._watch)

    def _watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        page.on("console", lambda message: self._console(message.type, message.text))

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(part in text for part in NETWORK):
            self.problems.append(f"{kind}: {text}")

    def open(self, url: str) -> Page:
        """Open a page; return once it has loaded."""
        page = self.context.new_page()
        page.goto(url)
        return page


@contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[Watched]:
    """Open a context of its own; at its end no page may have reported a problem."""
    context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 800}), **options)
    found = Watched(context)
    try:
        yield found
    finally:
        context.close()
    assert not found.problems, "\n".join(found.problems)


def accessible(page: Page) -> list[str]:
    """Return what axe-core finds serious in the page as it is now, a line each."""
    source = MODULES / "axe-core" / "axe.min.js"
    if not source.exists():
        pytest.skip("needs axe-core: npm install --prefix .venv/foreign axe-core")
    page.evaluate(source.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {json.dumps([node['html'][:120] for node in one['nodes'][:3]])}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]


def session_of(page: Page, expression: str) -> Any:
    """Evaluate an expression in which ``session`` is the page's session object."""
    return page.evaluate(f"import('/page/session.js').then(({{session}}) => {expression})")


def until(page: Page, expression: str) -> None:
    """Wait until an expression holds, in which ``session`` is the page's session object."""
    page.evaluate("import('/page/session.js').then((module) => { window.pageSession = module.session; })")
    page.wait_for_function(f"() => {{ const session = window.pageSession; return {expression}; }}")
