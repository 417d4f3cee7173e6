"""marketfeed.js in Chromium: one stream for all tabs, by SharedWorker, by Web Locks, or one each."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.blocking_proxy import blocking_proxy
from tests.support.ports import free_port
from tests.support.process import engine
from tests.support.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, Page

    from tests.support.process import Engine

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 20\nrate = 200\n'
CONFIG = f"[limits]\nrequests_per_s = 1000\n{SYNTHETIC}"
WITHOUT = {
    "worker": "",
    "locks": "delete globalThis.SharedWorker;",
    "none": "delete globalThis.SharedWorker; delete Navigator.prototype.locks;",
}
# Collects what a feed tells; an epoch becomes `connected`, before the reset that it causes.
OPEN = """async (options) => {
  const { connect } = await import("/marketfeed.js");
  globalThis.told = [];
  if (options.inflate) options = { ...options, ...(await import("/marketfeed-inflate.js")) };
  globalThis.feed = connect("/", options);
  let reset = null;
  feed.on("message", (m) => {
    m = m.toJSON?.() ?? m;
    if (m.T === "reset" && m.cause === "epoch") return void (reset = m);
    if (m.T === "epoch") m = { T: "connected", epoch: m.epoch };
    told.push(m);
    if (m.T === "connected" && reset) told.push(reset), (reset = null);
  });
  feed.subscribe({ quotes: ["*"], trades: ["*"] }, () => {});
}"""
TICKS = "(more) => told.filter((m) => m.T === 'q').length >= more"


def context_of(browser: Any, shared: str) -> BrowserContext:
    context: BrowserContext = browser.new_context()
    context.set_default_timeout(60_000)
    context.add_init_script(WITHOUT[shared])
    return context


def tab(context: BrowserContext, running: Engine, **options: Any) -> Page:
    """Open a page of the engine's origin with a feed, which has ticks."""
    page = context.new_page()
    page.goto(f"{running.ready.split()[2]}/robots.txt")
    page.evaluate(OPEN, options)
    page.wait_for_function(TICKS, arg=40)
    return page


def more_ticks(page: Page) -> None:
    page.wait_for_function(TICKS, arg=page.evaluate("told.filter((m) => m.T === 'q').length") + 100)


def sessions(running: Engine) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.admin_port}/v1/sessions") as answer:
        shown: list[dict[str, Any]] = json.load(answer)["shown"]
    return shown


def until(running: Engine, true: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Wait until ``true`` is, of the sessions of the engine."""
    end = time.monotonic() + 60
    while not true(sessions(running)):
        assert time.monotonic() < end, sessions(running)
        time.sleep(0.1)


def check(page: Page) -> Witness:
    """Every hole in what the tab saw was told, from where it had the state of all symbols."""
    witness = Witness(ordered=False, every=False)
    for message in page.evaluate("told"):
        witness.see(message)
        witness.every = witness.every or message["T"] == "synced"
    return witness


def shared(page: Page) -> str:
    way: str = page.evaluate("feed.statistics().shared")
    return way


@pytest.mark.parametrize("encoding", ["json", "binary"])
@pytest.mark.parametrize("way", ["worker", "locks"])
def test_two_tabs_share_one_session(running, browser, way, encoding):
    with context_of(browser, way) as context:
        first = tab(context, running, encoding=encoding)
        second = tab(context, running, encoding=encoding)
        assert (shared(first), shared(second)) == (way, way)
        (row,) = sessions(running)
        assert (row["transport"], row["encoding"], row["tier"]) == ("websocket", encoding, "vip")
        more_ticks(first)
        more_ticks(second)
        # What one tab adds comes for it alone; all have the state of the stream.
        assert second.evaluate("feed.state.state") == "connected"
        assert second.evaluate("feed.transport.name") == "websocket"
        assert second.evaluate("[feed.tier, feed.encoding]") == ["vip", encoding]
        first.evaluate("feed.cut()")
        for page in (first, second):
            page.wait_for_function("told.some((m) => m.T === 'resumed')")
            more_ticks(page)
            assert check(page).silent == 0


@pytest.mark.parametrize("way", ["worker", "locks"])
def test_the_tab_that_leads_is_closed_and_the_other_goes_on_without_a_hole(running, browser, way):
    with context_of(browser, way) as context:
        first, second = tab(context, running), tab(context, running)
        more_ticks(second)
        first.close()
        more_ticks(second)
        more_ticks(second)
        assert len(sessions(running)) == 1
        assert (check(second).silent, shared(second)) == (0, way)


def test_tabs_with_a_decompressor_share_by_locks(running, browser):
    with context_of(browser, "worker") as context:
        first, second = (tab(context, running, inflate=True, tier="premium") for _ in range(2))
        assert (shared(first), shared(second)) == ("locks", "locks")
        first.wait_for_function("told.some((m) => m.T === 'subscription' && m.compress)")
        (row,) = sessions(running)
        assert row["tier"] == "premium"
        first.close()
        more_ticks(second)
        assert len(sessions(running)) == 1
        assert second.evaluate("told.filter((m) => m.T === 'gap' || m.T === 'reset').length") == 0


def test_without_worker_and_locks_each_tab_has_a_session(running, browser):
    with context_of(browser, "none") as context:
        first, second = tab(context, running), tab(context, running)
        assert (shared(first), shared(second), len(sessions(running))) == ("none", "none", 2)


@pytest.mark.parametrize("way", ["worker", "locks"])
def test_only_tabs_with_the_same_token_share(running, browser, way):
    with context_of(browser, way) as context:
        pages = [tab(context, running, token=token) for token in ("one", "two", "one")]
        assert len(sessions(running)) == 2
        assert {shared(page) for page in pages} == {way}


def test_a_feed_that_is_closed_ends_its_session_although_its_tab_stays(running, browser):
    """Who signs out is not to leave a session behind that the token began."""
    with context_of(browser, "worker") as context:
        first, second = (tab(context, running, token=token) for token in ("one", "two"))
        assert len(sessions(running)) == 2
        second.evaluate("feed.close()")
        until(running, lambda rows: len(rows) == 1)
        more_ticks(first)
        second.evaluate(OPEN, {"token": "two"})
        second.wait_for_function(TICKS, arg=40)
        assert (len(sessions(running)), shared(second)) == (2, "worker")


def test_where_locks_are_denied_a_tab_has_its_own_stream(running, browser):
    """In a frame with an opaque origin, which the engine refuses: it is to be told why."""
    with context_of(browser, "worker") as context:
        page = context.new_page()
        page.goto(f"{running.ready.split()[2]}/robots.txt")
        page.set_content("<iframe sandbox='allow-scripts'></iframe>")
        frame = page.frames[1]
        frame.evaluate(
            """async (url) => {
              const { connect } = await import(`${url}/marketfeed.js`);
              globalThis.feed = connect(url);
              feed.subscribe({ quotes: ["*"] }, () => {});
            }""",
            running.ready.split()[2],
        )
        frame.wait_for_function("feed.state.state === 'disconnected'")


def test_a_leader_that_hangs_is_replaced_and_joins_again(running, browser):
    with context_of(browser, "locks") as context:
        first, second = tab(context, running), tab(context, running)
        (before,) = sessions(running)
        debugger = context.new_cdp_session(first)
        debugger.send("Debugger.enable")
        debugger.send("Debugger.pause")
        until(running, lambda rows: any(row["session"] != before["session"] for row in rows))
        more_ticks(second)
        debugger.send("Debugger.resume")
        debugger.send("Debugger.disable")
        more_ticks(first)
        until(running, lambda rows: len(rows) == 1)
        (after,) = sessions(running)
        # Neither tab takes the lock from the other again, of which each would notice in its next beat.
        first.wait_for_timeout(22_000)
        assert [row["session"] for row in sessions(running)] == [after["session"]]
        for page in (first, second):
            more_ticks(page)
            check(page)
        assert (shared(first), shared(second)) == ("locks", "locks")
        # The lock is queued for again: when the tab that leads is closed, the other goes on at once.
        second.close()
        more_ticks(first)


def test_websocket_is_used_again_when_the_network_changes(running, browser):
    with blocking_proxy(running.port) as proxy, browser.new_context() as context:
        proxy.blocked.add("/v1/stream")
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{proxy.port}/robots.txt")
        page.evaluate(OPEN, {"share": False, "retryMs": [50, 200]})
        page.wait_for_function("feed.transport.name === 'events'")
        page.wait_for_function(TICKS, arg=40)
        page.evaluate("dispatchEvent(new Event('online'))")
        more_ticks(page)
        assert page.evaluate("feed.transport.name") == "events"
        proxy.blocked.clear()
        page.evaluate("dispatchEvent(new Event('online'))")
        page.wait_for_function("feed.transport.name === 'websocket'")
        assert page.evaluate("feed.transport.why") == "works again"
        more_ticks(page)
        assert check(page).silent == 0


def test_the_stream_has_the_fastest_tier_that_a_visible_tab_asks_for(running, browser):
    with context_of(browser, "worker") as context:
        first, second = tab(context, running), tab(context, running)
        first.evaluate("feed.setTier('basic')")
        more_ticks(second)
        assert [row["tier"] for row in sessions(running)] == ["vip"]
        # Chromium without a window does not hide a tab that is behind another.
        hide = """(hidden) => {
          const get = () => (hidden ? "hidden" : "visible");
          Object.defineProperty(document, "visibilityState", { configurable: true, get });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
        second.evaluate(hide, True)
        first.wait_for_function("feed.tier === 'basic'")
        assert [row["tier"] for row in sessions(running)] == ["basic"]
        second.evaluate(hide, False)
        first.wait_for_function("feed.tier === 'vip'")


def tell_worker(browser: Any, method: str, **parameters: Any) -> None:
    """Send a command of the DevTools protocol to the only SharedWorker."""
    devtools = browser.new_browser_cdp_session()
    (worker,) = [
        target
        for target in devtools.send("Target.getTargets")["targetInfos"]
        if target["type"] == "shared_worker"
    ]
    attached = devtools.send("Target.attachToTarget", {"targetId": worker["targetId"]})
    message = json.dumps({"id": 1, "method": method, "params": parameters})
    devtools.send("Target.sendMessageToTarget", {"sessionId": attached["sessionId"], "message": message})


def test_a_worker_that_dies_is_replaced_and_the_stream_resumes(running, browser):
    with context_of(browser, "worker") as context:
        first, second = tab(context, running), tab(context, running)
        session = sessions(running)[0]["session"]
        tell_worker(browser, "Runtime.evaluate", expression="self.close()")
        for page in (first, second):
            more_ticks(page)
            more_ticks(page)
            check(page)
        # Chromium may still connect tabs to the worker that ends: they share the next way then.
        assert shared(first) == shared(second) != "none"
        (row,) = sessions(running)
        assert row["session"] != session


def test_a_worker_that_hangs_is_replaced_by_the_next_way(running, browser):
    with context_of(browser, "worker") as context:
        first, second = tab(context, running), tab(context, running)
        # It waits for a symbol that never ticks, for longer than its tabs wait for it.
        hang = """const request = new XMLHttpRequest();
            request.open("GET", "/v1/poll?quotes=NONE&timeout_s=120", false);
            request.send();"""
        tell_worker(browser, "Runtime.evaluate", expression=hang)
        for page in (first, second):
            page.wait_for_function("feed.statistics().shared === 'locks'")
            more_ticks(page)
            more_ticks(page)
            check(page)


@pytest.mark.parametrize("way", ["worker", "locks"])
def test_each_tab_goes_on_with_the_next_engine(browser, tmp_path, way):
    at = ("--set", f"gateway.port={free_port()}")
    with engine(CONFIG, tmp_path, *at) as first_life, context_of(browser, way) as context:
        pages = [tab(context, first_life, retryMs=[50, 200]) for _ in range(2)]
        first_life.stop(signal.SIGKILL)
        with engine(CONFIG, tmp_path, *at):
            for page in pages:
                page.wait_for_function("told.some((m) => m.T === 'reset')")
                more_ticks(page)
                assert check(page).seen["reset"] == 1
