"""Who may use the page: sign-in, what a key entitles to, and storage that is denied."""

from __future__ import annotations

import pytest

from tests.support.chromium import accessible, session_of, until, watched
from tests.support.commands import command
from tests.support.process import engine

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

CONFIG = """
[auth]
mode = "keys"
keys_file = "keys.json"
[[feeds]]
name = "demo"
type = "synthetic"
symbols = ["AAPL", "BTC-USD", "BTC-EUR"]
rate = 100
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def key(folder):
    (folder / "config.toml").write_text(CONFIG)
    claims = ("--sub", "ann", "--tier", "premium", "--symbols", "BTC*")
    status, out, err = command(folder, "keys", "add", *claims)
    assert status == 0, err
    return out.strip()


@pytest.fixture(scope="module")
def running(folder, key):
    with engine(CONFIG, folder) as found:
        yield found


def sign_in(page, key):
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_the_page_asks_for_a_key_and_shows_what_it_entitles_to(browser, running, key):
    address = f"http://localhost:{running.port}/"
    with watched(browser) as watcher:
        page = watcher.open(address)
        page.get_by_text("Sign in to see quotes").wait_for()
        assert page.locator("#state").inner_text() == "Signed out"
        page.get_by_role("link", name="Access").click()
        assert accessible(page) == []
        sign_in(page, "wrong")
        page.get_by_role("alert").wait_for()
        assert "Not accepted" in page.get_by_role("alert").inner_text()
        sign_in(page, key)
        until(page, "session.live && session.book.ticks > 20")
        assert set(session_of(page, "session.book.names")) == {"BTC-USD", "BTC-EUR"}
        page.get_by_role("link", name="Access").click()
        grants = page.locator(".grants").inner_text()
        assert "BTC*" in grants
        assert "premium" in grants
        assert accessible(page) == []
        page.reload()
        until(page, "session.live")
        assert page.evaluate("Object.keys(localStorage).concat(document.cookie).join()").count(key) == 0
        assert key not in page.url
        page.get_by_role("link", name="Access").click()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Key").wait_for()
        assert page.evaluate("sessionStorage.length") == 0
        page.get_by_role("link", name="Watch", exact=True).click()
        page.get_by_text("Sign in to see quotes").wait_for()
        assert page.locator(".row:not([hidden])").count() == 0


def test_where_storage_is_denied_the_key_is_kept_in_memory(browser, running, key):
    with watched(browser) as watcher:
        watcher.context.add_init_script("""for (const name of ['localStorage', 'sessionStorage']) {
            Object.defineProperty(window, name, {get() { throw new DOMException('denied'); }});
        }""")
        page = watcher.open(f"http://localhost:{running.port}/#access")
        sign_in(page, key)
        until(page, "session.live && session.book.ticks > 20")
        page.locator("#theme").click()
        assert page.locator("html").get_attribute("data-theme") == "light"
