"""The page at `/` in a real browser: its watch list, and what holds for all views."""

from __future__ import annotations

import os
import re

import pytest

from tests.support.chromium import accessible, session_of, until, watched

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
VIEWS = (
    "watch",
    "watch/EUR%2FUSD",
    "tiers",
    "latency",
    "alerts",
    "alerts/history",
    "alerts/silences",
    "connection",
    "access",
)
# Each character that a symbol may have, in names that are markup where they are not text.
PRINTABLE = [chr(code) for code in range(0x21, 0x7F) if chr(code) not in ',*"\\']
STRANGE = ["<b>&amp;'x'</b>", "<img/src=x>", "EUR/USD", "%3Cb%3E", "${1}", "#access", "__proto__"]
STRANGE += ["".join(PRINTABLE[at : at + 24]) for at in range(0, len(PRINTABLE), 24)]
PLAIN = [f"AB{number:03}" for number in range(400)] + [f"BTC{number}" for number in range(7)]
CONFIG = f"""
[latency]
interval_s = 1.0
[[feeds]]
name = "demo"
type = "synthetic"
symbols = {[*STRANGE, *PLAIN]!r}
rate = 4000
[[alerts.rules]]
type = "move"
percent = 0.2
window_s = 1.0
"""


@pytest.fixture(scope="module")
def address(running):
    return f"http://localhost:{running.port}/"


@pytest.fixture(scope="module")
def live(browser, address):
    """A page that is live; what it reports until the end of the module is checked then."""
    with watched(browser) as watcher:
        page = watcher.open(address)
        page.locator("#state[data-tone='live']").wait_for()
        until(page, f"session.book.count === {len(STRANGE) + len(PLAIN)} && session.book.ticks > 2000")
        yield page


@pytest.fixture
def tab(live, address):
    """The page as it is at first."""
    live.goto(f"{address}#watch")
    live.locator("#detail").wait_for(state="hidden")
    search(live, "")
    live.get_by_label("Order").select_option("activity")
    return live


def shown(page):
    """The names of the rows that are shown, in order."""
    return page.evaluate("""() => [...document.querySelectorAll('.row:not([hidden])')]
        .sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex'))
        .map((row) => row.firstChild.textContent)""")


def search(page, text):
    page.get_by_label("Search symbols").fill(text)


def test_quotes_flow_and_every_row_says_that_it_is_live(tab):
    first = tab.locator("[aria-rowindex='2']")
    before = first.inner_text()
    tab.wait_for_function(
        "(before) => document.querySelector('[aria-rowindex=\\'2\\']').innerText !== before", arg=before
    )
    name, status, _, bid, ask, *_ = first.inner_text().split("\n")
    assert name in PLAIN + STRANGE
    assert status == "live"
    assert re.fullmatch(r"\d+\.\d\d", bid)
    assert float(bid) < float(ask)
    assert tab.locator("#foot-rate").inner_text() != "0"


def test_only_visible_rows_have_elements(tab):
    grid = tab.get_by_role("grid")
    assert grid.get_attribute("aria-rowcount") == str(1 + len(STRANGE) + len(PLAIN))
    assert tab.locator(".row").count() < 50
    grid.evaluate("(element) => { element.scrollTop = 1e6; }")
    last = f"[aria-rowindex='{1 + len(STRANGE) + len(PLAIN)}']"
    tab.locator(last).wait_for()
    assert tab.locator(".row").count() < 50


def test_the_data_behind_the_grid_is_complete(tab):
    assert session_of(tab, "session.book.holes") == 0
    assert session_of(tab, "session.feed.statistics().lost") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BTC*", {name for name in PLAIN if name.startswith("BTC")}),
        ("btc3", {"BTC3"}),
        ("TC3", {"BTC3"}),
        ("TC*", set()),
        ("BTC1, AB007", {"BTC1", "AB007"}),
    ],
)
def test_search_finds_parts_of_names_and_prefixes(tab, text, expected):
    search(tab, text)
    assert set(shown(tab)) == expected
    assert tab.locator("#shown").inner_text() == f"{len(expected)} of {len(STRANGE) + len(PLAIN)} symbols"
    assert tab.get_by_text("No symbol matches").is_visible() == (not expected)


def test_a_name_of_any_characters_is_text(tab):
    for name in STRANGE:
        search(tab, name)
        assert name in shown(tab)
    assert tab.locator(".row b, .row img").count() == 0
    search(tab, "<b>")
    tab.locator("[aria-rowindex='2']").click()
    assert tab.get_by_role("heading", level=2).inner_text() == "<b>&amp;'x'</b>"
    assert tab.locator("#detail b, #detail img").count() == 0
    assert tab.evaluate("Object.prototype.bid") is None


@pytest.mark.parametrize("hash_", ["watch/%", "constructor", "toString/1", "%E0%A4%A"])
def test_an_address_that_makes_no_sense_shows_the_watch_list(browser, address, hash_):
    with watched(browser) as watcher:
        page = watcher.open(f"{address}#{hash_}")
        page.locator("#state[data-tone='live']").wait_for()
        page.locator("#view-watch").wait_for()
        page.locator("[aria-rowindex='2']").wait_for()


def test_rows_are_sorted_by_their_headers_in_both_directions(tab):
    header = tab.get_by_role("columnheader", name="Symbol")
    button = header.get_by_role("button")
    button.click()
    assert header.get_attribute("aria-sort") == "ascending"
    names = shown(tab)
    assert names == sorted(STRANGE + PLAIN)[: len(names)]
    button.click()
    assert header.get_attribute("aria-sort") == "descending"
    assert shown(tab) == sorted(STRANGE + PLAIN, reverse=True)[: len(names)]
    until(tab, "session.book.elapsed > 2")
    tab.get_by_label("Order").select_option("activity")
    assert tab.get_by_role("columnheader", name="Ticks/s").get_attribute("aria-sort") == "descending"
    rates = [
        float(text.replace(",", "")) for text in tab.locator(".row:not([hidden]) .c-rate").all_inner_texts()
    ]
    assert max(rates) > 0


def test_the_keyboard_moves_opens_and_closes(tab):
    tab.get_by_label("Order").select_option("symbol")
    grid = tab.get_by_role("grid")
    grid.focus()
    everything = sorted(STRANGE + PLAIN)

    def active():
        return tab.locator(".row[aria-selected='true'] .c-symbol").inner_text()

    grid.press("Home")
    assert active() == everything[0]
    for key, index in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", -1), ("Home", 0)):
        grid.press(key)
        assert active() == everything[index], key
    grid.press("PageDown")
    assert everything.index(active()) > 10
    assert grid.get_attribute("aria-activedescendant") == tab.locator(
        ".row[aria-selected='true']"
    ).get_attribute("id")
    name = active()
    grid.press("Enter")
    heading = tab.locator("#detail-name")
    heading.wait_for()
    assert heading.inner_text() == name
    assert heading.evaluate("(element) => document.activeElement === element")
    tab.keyboard.press("Escape")
    tab.locator("#detail").wait_for(state="hidden")
    assert grid.evaluate("(element) => document.activeElement === element")


def test_details_show_ticks_trades_and_a_chart(tab, address):
    tab.goto(f"{address}#watch/AB000")
    assert tab.locator("#detail-name").inner_text() == "AB000"
    tab.locator(".chart canvas").wait_for()
    assert tab.locator(".u-wrap").bounding_box()["width"] > 200
    times = tab.locator("#ticks tbody tr td:first-child")
    tab.wait_for_function(
        "() => document.querySelector('#ticks tbody tr:nth-child(10) td').textContent.trim()"
    )
    newest_first = times.all_inner_texts()[:10]
    assert newest_first == sorted(newest_first, reverse=True)
    numbers = [
        text.replace(",", "") for text in tab.locator("#ticks tbody tr td:last-child").all_inner_texts()[:10]
    ]
    assert [int(number) for number in numbers] == list(range(int(numbers[0]), int(numbers[0]) - 10, -1))
    tab.get_by_role("tab", name="Trades").click()
    tab.wait_for_function(
        "() => /bought|sold/.test(document.querySelector('#ticks tbody td:nth-child(4)').textContent)"
    )


def test_themes_by_the_system_and_by_the_switch(browser, address):
    with watched(browser, color_scheme="dark") as watcher:
        page = watcher.open(address)
        colour = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(colour)
        switch = page.locator("#theme")
        switch.click()
        assert switch.get_attribute("aria-label") == "Colours: light"
        light = page.evaluate(colour)
        assert light != dark
        page.reload()
        assert page.evaluate(colour) == light
        switch.click()
        assert page.evaluate(colour) == dark


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 390)] + PROVE * [("dark", 1280), ("light", 390)]
)
def test_nothing_serious_for_axe_in_any_view(browser, address, scheme, width):
    options = {
        "color_scheme": scheme,
        "viewport": {"width": width, "height": 844},
        "reduced_motion": "reduce",
    }
    with watched(browser, **options) as watcher:
        page = watcher.open(address)
        until(page, "session.book.elapsed > 2 && session.book.ticks > 2000")
        for view in VIEWS:
            page.goto(f"{address}#{view}")
            page.wait_for_function("() => !document.querySelector('.view:not([hidden])').matches(':empty')")
            page.wait_for_timeout(0)
            assert accessible(page) == [], view
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view


def test_everything_comes_from_the_engine_and_no_policy_is_violated(browser, address):
    with watched(browser) as watcher:
        asked = []
        watcher.context.on("request", lambda request: asked.append(request.url))
        page = watcher.context.new_page()
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error(event.violatedDirective))"
        )
        for view in VIEWS:
            page.goto(f"{address}#{view}")
            page.locator(".view:not([hidden])").wait_for()
        page.locator("#state[data-tone='live']").wait_for()
        foreign = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        assert foreign == []


def test_nothing_is_announced_as_live_that_is_not(tab):
    """The stream ends and stays away: banner, state and each row say so."""
    session_of(tab, "session.feed.close()")
    session_of(
        tab,
        "session.feed.state = {state: 'disconnected', code: 1006, reason: 'cut', retryMs: 1000, since: 0}",
    )
    session_of(tab, "session.emit('state', session.feed.state)")
    assert tab.locator("#banner").inner_text().startswith("Not live.")
    assert tab.locator("#state").inner_text() == "Not live"
    tab.wait_for_function(
        """() => [...document.querySelectorAll('.row:not([hidden]) .c-status')]
            .every((cell) => cell.textContent === 'offline')"""
    )
