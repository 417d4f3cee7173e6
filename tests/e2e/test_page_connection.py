"""The page when its connection changes: cut, forced, blocked, hidden, shared, and over a restart."""

from __future__ import annotations

import json

import pytest

from tests.support.admin_client import get
from tests.support.blocking_proxy import blocking_proxy
from tests.support.chromium import DEMO, session_of, until, watched
from tests.support.ports import free_port
from tests.support.process import engine

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

CONFIG = DEMO
TRANSPORTS = {"websocket": "WebSocket", "events": "Events", "poll": "Long poll", "quotes": "Short poll"}
RECORD = """() => { window.ticks = []; session.feed.on('message', (m) => {
    if (m.T === 'q' || m.T === 't') window.ticks.push([m.T, m.S, m.n, m.snap ? 1 : 0]);
    else if (m.T === 'gap' || m.T === 'reset') window.ticks.push([m.T, '', 0, 0]);
}); }"""


def open_page(watcher, port, view="connection"):
    page = watcher.open(f"http://localhost:{port}/#{view}")
    until(page, "session.live && session.book.ticks > 200")
    return page


def record(page):
    """Keep the numbers of all ticks that the page gets from now on."""
    session_of(page, f"({RECORD})()")


def check(page, every=True):
    """No tick came twice, out of order or, unless ``every`` is false, not at all; return how many came."""
    last: dict[tuple[str, str], int] = {}
    for kind, symbol, number, snap in page.evaluate("window.ticks"):
        assert kind in ("q", "t"), kind
        before = last.get((kind, symbol))
        if before is not None and not snap:
            assert number > before
            assert number == before + 1 or not every, f"{kind} {symbol}: {number} after {before}"
        last[kind, symbol] = number
    return len(page.evaluate("window.ticks"))


def reads(page, selector, text):
    """Wait until an element has a text."""
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector).innerText === text", arg=[selector, text]
    )


def after(page, ticks):
    """Wait until the page has so many more ticks."""
    before = session_of(page, "session.book.ticks")
    until(page, f"session.book.ticks > {before + ticks}")


def test_pulling_the_plug_leaves_no_hole(browser, running):
    with watched(browser) as watcher:
        page = open_page(watcher, running.port)
        record(page)
        after(page, 300)
        page.get_by_role("button", name="Pull the plug").click()
        verdict = page.locator("#verdict")
        page.get_by_text("Nothing is missing: each of the 20 symbols that ticked since").wait_for()
        assert verdict.get_attribute("data-tone") == "live"
        assert page.locator("#fact-holes").inner_text() == "0"
        symbol, _, before = page.locator("#fact-before-the-cut").inner_text().rpartition(" ")
        assert page.locator("#fact-after-it").inner_text() == f"{symbol} {int(before.replace(',', '')) + 1:,}"
        reads(page, "#fact-reconnects", "1")
        after(page, 300)
        assert check(page) > 500


@pytest.mark.parametrize("name", ["events", "poll", "quotes", "websocket"])
def test_each_transport_can_be_forced(browser, running, name):
    with watched(browser) as watcher:
        page = open_page(watcher, running.port)
        if name == "websocket":
            page.locator("[data-transport='poll']").click()
            page.locator("[data-transport='poll'][data-used]").wait_for()
        record(page)
        page.locator(f"[data-transport='{name}']").click()
        page.locator(f"[data-transport='{name}'][data-used]").wait_for()
        reads(page, "#fact-transport", f"{TRANSPORTS[name]}: forced")
        after(page, 400)
        assert check(page, every=name != "quotes") > 400
        assert page.locator("#state").inner_text() == "Live"


def test_a_blocked_transport_is_replaced_by_the_next_one(browser, running):
    with blocking_proxy(running.port) as proxy, watched(browser) as watcher:
        page = open_page(watcher, proxy.port)
        record(page)
        for path, name in (("/v1/stream", "events"), ("/v1/events", "poll")):
            proxy.blocked.add(path)
            proxy.cut()
            page.locator(f"[data-transport='{name}'][data-used]").wait_for()
            after(page, 300)
            assert check(page) > 300


def test_a_network_that_is_gone_is_shown_and_nothing_is_missing_after_it(browser, running):
    with blocking_proxy(running.port) as proxy, watched(browser) as watcher:
        page = open_page(watcher, proxy.port, "watch")
        record(page)
        proxy.refusing = True
        proxy.cut()
        page.locator("#banner[data-tone='bad']").wait_for()
        assert page.locator("#banner").inner_text().startswith("Not live.")
        page.wait_for_function("() => document.querySelector('.row .c-status').textContent === 'offline'")
        assert set(page.locator(".row:not([hidden]) .c-status").all_inner_texts()) == {"offline"}
        proxy.refusing = False
        page.locator("#banner").wait_for(state="hidden")
        page.wait_for_function("() => document.querySelector('.row .c-status').textContent === 'live'")
        after(page, 300)
        assert check(page) > 300


def test_an_engine_that_restarts_under_the_page_is_followed_from_its_first_tick(browser, tmp_path):
    port = f"gateway.port={free_port()}"
    with watched(browser) as watcher:
        with engine(CONFIG, tmp_path, "--set", port) as first:
            page = open_page(watcher, first.port, "watch")
            epoch = session_of(page, "session.engine.epoch")
            high = session_of(page, "Math.max(...session.book.quotes)")
        page.locator("#banner[data-tone='bad']").wait_for()
        with engine(CONFIG, tmp_path, "--set", port):
            page.locator("#banner").wait_for(state="hidden")
            until(page, f"session.engine.epoch !== '{epoch}' && session.conditions.connected")
            assert session_of(page, "Math.max(...session.book.quotes)") < high + 1000
            after(page, 300)
            assert session_of(page, "session.book.late") == 0
            assert set(page.locator(".row:not([hidden]) .c-status").all_inner_texts()) == {"live"}
            page.goto(f"http://localhost:{first.port}/#connection")
            assert "epoch" in page.locator(".journal").inner_text()


def test_a_hidden_tab_takes_a_slower_tier_until_it_is_shown(browser, running):
    with watched(browser) as watcher:
        page = open_page(watcher, running.port)

        def show(state):
            # Chromium shows every tab while it is driven, so the page is told what it would be told.
            page.evaluate(
                """(state) => {
                Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});
                Object.defineProperty(document, 'hidden', {value: state === 'hidden', configurable: true});
                document.dispatchEvent(new Event('visibilitychange'));
            }""",
                state,
            )

        show("hidden")
        until(page, "session.feed.tier === 'basic'")
        show("visible")
        until(page, "session.feed.tier === 'vip'")
        after(page, 300)
        assert "while the tab is hidden" in page.locator(".journal").inner_text()


def test_two_tabs_have_one_stream(browser, running):
    with watched(browser) as watcher:
        first = open_page(watcher, running.port)
        second = open_page(watcher, running.port)
        for page in (first, second):
            until(page, "session.feed.statistics().shared !== 'none'")
            record(page)
        sessions = json.loads(get(running.admin_port, "/v1/sessions")[2])
        assert sessions["sessions"] == 1
        for page in (first, second):
            after(page, 300)
        first.close()
        after(second, 300)
        assert check(second) > 500
