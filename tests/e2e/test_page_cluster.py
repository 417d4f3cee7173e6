"""The page of an engine of a cluster: is the source of its ticks heard, and which engines are there?"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio

from tests.support.chromium import DEMO, accessible, chromium, until, watched
from tests.support.running_engine import running_engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    from marketfeed.engine import Engine

State = Literal["stale", "live"]

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

CONFIG = DEMO


async def with_page(folder: Path, steps: Callable[[Page, Callable[[State], None], str], None]) -> None:
    """Run ``steps`` in a thread, with a live page, a function that tells the source's state, and the URL."""

    def browse(engine: Engine) -> None:
        def tell(state: State) -> None:
            trio.from_thread.run_sync(engine.source_state, "s0", state)

        url = f"http://localhost:{engine.port}"
        with chromium() as browser, watched(browser) as watcher:
            page = watcher.open(f"{url}/#watch")
            until(page, "session.live && session.book.ticks > 200")
            steps(page, tell, url)

    with trio.fail_after(300):
        async with running_engine(CONFIG, folder) as engine:
            await trio.to_thread.run_sync(browse, engine)


def all_rows_are(page: Page, status: str) -> None:
    page.wait_for_function(
        "(status) => { const rows = [...document.querySelectorAll('.row:not([hidden]) .c-status')];"
        " return rows.length > 0 && rows.every((row) => row.textContent === status); }",
        arg=status,
    )


@pytest.mark.parametrize("transport", ["websocket", "events", "poll", "quotes"])
async def test_a_stale_source_is_shown_in_the_banner_and_in_every_row(tmp_path, transport):
    def steps(page: Page, tell: Callable[[State], None], url: str) -> None:
        page.evaluate("(name) => window.pageSession.feed.use(name)", transport)
        until(page, f"session.live && session.feed.transport.name === '{transport}'")
        tell("stale")
        banner = page.locator("#banner[data-tone='bad']")
        banner.wait_for()
        assert banner.locator("strong").inner_text() == "Stale."
        since = r" since \d\d:\d\d:\d\d" if transport in ("websocket", "events") else ""
        text = f"The source of the data is silent{since}: prices are the last known."
        assert re.fullmatch(text, banner.locator("span").inner_text())
        all_rows_are(page, "stale")
        assert page.locator(".row:not([hidden]):not([data-old])").count() == 0
        assert page.locator("#state").inner_text() == "Stale"
        page.wait_for_function("() => document.querySelector('#not-live .count').textContent === '20'")
        tell("live")
        banner.wait_for(state="hidden")
        all_rows_are(page, "live")
        assert page.locator("#state").inner_text() == "Live"

    await with_page(tmp_path, steps)


async def test_a_page_that_opens_later_and_one_that_shares_the_stream_are_told(tmp_path):
    def steps(page: Page, tell: Callable[[State], None], url: str) -> None:
        tell("stale")
        page.locator("#banner[data-tone='bad']").wait_for()
        second = page.context.new_page()
        second.goto(f"{url}/#watch")
        second.locator("#banner[data-tone='bad']").wait_for()
        all_rows_are(second, "stale")
        until(second, "session.feed.statistics().shared !== 'none'")
        page.evaluate("() => window.pageSession.feed.cut()")
        until(page, "session.feed.statistics().reconnects === 1 && session.stale")
        all_rows_are(page, "stale")
        tell("live")
        for one in (page, second):
            all_rows_are(one, "live")

    await with_page(tmp_path, steps)


async def test_the_tiers_and_the_connection_say_that_the_source_is_stale(tmp_path):
    def steps(page: Page, tell: Callable[[State], None], url: str) -> None:
        page.goto(f"{url}/#tiers")
        page.locator(".lane-state[data-tone='live']").first.wait_for()
        tell("stale")
        page.locator(".lane-state[data-tone='live']").first.wait_for(state="detached")
        assert set(page.locator(".lane-state").all_inner_texts()) == {"stale"}
        page.goto(f"{url}/#connection")
        page.locator("#fact-source[data-tone='bad']").wait_for()
        assert page.locator("#fact-source").inner_text().startswith("stale for ")
        assert "source stale" in page.locator(".journal").inner_text()
        tell("live")
        page.locator("#fact-source:not([data-tone])").wait_for()
        assert page.locator("#fact-source").inner_text() == "live"

    await with_page(tmp_path, steps)


async def test_the_connection_view_lists_the_engines_of_a_cluster(tmp_path):
    def steps(page: Page, tell: Callable[[State], None], url: str) -> None:
        page.goto(f"{url}/#connection")
        page.wait_for_function(f"() => document.querySelector('#fact-node').textContent === '{url}'")
        assert page.locator("#nodes").is_hidden()
        assert re.fullmatch(r"[01] of 100,000", page.locator("#fact-load").inner_text())
        row = {"site": "b", "sessions": 3, "capacity": 1000, "state": "ready"}
        rows: list[dict[str, Any]] = [
            {**row, "url": url, "site": "a"},
            {**row, "url": "http://other.example", "state": "draining"},
            {**row, "url": "javascript:alert(1)", "state": "unheard of"},
        ]
        page.route("**/v1/nodes", lambda route: route.fulfill(json=rows))
        page.locator("#nodes").wait_for()
        cells = page.locator("#nodes tbody tr").evaluate_all(
            "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
        )
        assert cells == [
            [f"{url} (this page)", "a", "3", "1,000", "ready"],
            ["http://other.example", "b", "3", "1,000", "draining"],
            ["javascript:alert(1)", "b", "3", "1,000", "unheard of"],
        ]
        links = page.locator("#nodes a").evaluate_all("(all) => all.map((a) => a.getAttribute('href'))")
        assert links == ["http://other.example", None]
        assert page.locator("#fact-site").inner_text() == "a"
        assert accessible(page) == []
        rows[0]["sessions"] = 1
        page.wait_for_function("() => document.querySelector('#fact-load').textContent === '1 of 1,000'")
        page.unroute("**/v1/nodes")
        page.route("**/v1/nodes", lambda route: route.fulfill(status=500, body=json.dumps({"error": {}})))
        page.locator("#nodes").wait_for(state="hidden")

    await with_page(tmp_path, steps)
