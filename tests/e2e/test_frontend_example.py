"""examples/frontend.html in a real Chromium, served from another origin, as its page says."""

from __future__ import annotations

import functools
import http.server
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chromium import chromium, watched
from tests.support.pages import served
from tests.support.peers import ROOT
from tests.support.ports import free_port
from tests.support.process import engine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

CONFIG = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 200\nrate = 2000\n'
# A row is complete when its prices are numbers; the last trade may be missing yet.
COMPLETE = """wanted => {
  const texts = (row) => [...row.cells].map((cell) => cell.textContent);
  const complete = ([name, bid, ask]) => /^SY0/.test(name) && Number(bid) < Number(ask);
  const rows = [...document.querySelectorAll("#rows tr")].map(texts);
  return rows.length === wanted && rows.every(complete);
}"""


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.mark.slow
def test_the_frontend_shows_prices_and_says_when_they_stand_still(tmp_path: Path) -> None:
    port = free_port()
    text = (ROOT / "examples" / "frontend.html").read_text("utf-8")
    assert len(text.splitlines()) <= 40
    (tmp_path / "frontend.html").write_text(text.replace("127.0.0.1:8765", f"127.0.0.1:{port}"))
    with (
        served(functools.partial(Files, directory=str(tmp_path))) as files,
        chromium() as browser,
        watched(browser) as pages,
    ):
        allowed = f'gateway.allowed_origins=["http://127.0.0.1:{files}"]'
        own = ("--set", f"gateway.port={port}", "--set", allowed)
        with engine(CONFIG, tmp_path, *own) as running:
            page = pages.open(f"http://127.0.0.1:{files}/frontend.html")
            page.wait_for_function(COMPLETE, arg=101)
            assert page.inner_text("#state") == "connected"
            page.fill("#names", "SY001*, SY0150")
            page.press("#names", "Enter")
            page.wait_for_function(COMPLETE, arg=11)
            assert running.stop() == 0
        page.wait_for_selector("#rows.stale")
        assert page.inner_text("#state") != "connected"
        with engine(CONFIG, tmp_path, *own):
            page.wait_for_selector("#rows:not(.stale)")
            page.wait_for_function(COMPLETE, arg=11)
            page.goto(f"http://localhost:{files}/frontend.html")  # an origin that is not allowed
            page.wait_for_function('document.querySelector("#state").value.startsWith("disconnected")')
            assert not page.query_selector_all("#rows tr")
            page.goto("about:blank")
            assert pages.problems
            assert all("blocked by CORS policy" in problem for problem in pages.problems)
            pages.problems.clear()
