"""What a page of another origin gets of an engine, in a real Chromium: the browser client, and nothing else.

A page on another port of the same host is of the same site; one on another name of it is not.
"""

from __future__ import annotations

import http.server
import json
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from marketfeed.gateway.files import files
from tests.support.admin_client import get
from tests.support.pages import served
from tests.support.peers import need
from tests.support.process import engine

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

# Attempts, each of which returns what came of it; the engine is `base`, its admin port `admin`.
ATTEMPTS = """async ([base, admin, style]) => {
  const found = {};
  const attempt = async (name, work) => {
    try { found[name] = await work(); } catch (error) { found[name] = "refused"; }
  };
  const element = (tag, fields) => new Promise((loaded, failed) => {
    const one = Object.assign(document.createElement(tag), fields);
    one.onload = () => loaded("loaded");
    one.onerror = failed;
    document.body.append(one);
  });
  const opening = (one) => new Promise((opened, failed) => {
    one.onopen = () => { one.close(); opened("open"); };
    one.onerror = () => { one.close(); failed(); };
  });
  const post = {method: "POST", body: "{}"};
  await attempt("engine", async () => (await fetch(base + "/v1/engine")).status);
  await attempt("page", async () => (await fetch(base + "/")).status);
  await attempt("opaque page", async () => (await fetch(base + "/", {mode: "no-cors"})).type);
  await attempt("client", async () => typeof await import(base + "/marketfeed.js"));
  await attempt("stream", () => opening(new WebSocket(base.replace("http", "ws") + "/v1/stream")));
  await attempt("events", () => opening(new EventSource(base + "/v1/events?quotes=*")));
  await attempt("style", () => element("link", {rel: "stylesheet", href: base + style}));
  await attempt("latency", async () => (await fetch(admin + "/v1/latency")).status);
  await attempt("notice", async () => (await fetch(base + "/v1/alerts", post)).status);
  await attempt("frame", async () => {
    const frame = document.createElement("iframe");
    frame.src = base + "/";
    await new Promise((loaded) => { frame.onload = loaded; document.body.append(frame); });
    return frame.contentDocument === null ? "refused" : frame.contentDocument.title;
  });
  return found;
}"""


class Page(http.server.BaseHTTPRequestHandler):
    """An attacker's page, which allows itself everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another page</title><body></body>")

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.mark.slow
def test_a_page_of_another_origin_gets_the_browser_client_and_nothing_else(tmp_path):
    config = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 100\n'
    with (
        engine(config, tmp_path) as running,
        served(Page) as port,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=need("chromium"), args=["--no-sandbox"])
        base, admin = (f"http://127.0.0.1:{one}" for one in (running.port, running.admin_port))
        page, style = chromium.new_page(), next(path for path in files().routes if path.endswith(".css"))
        for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
            page.goto(origin)
            found = page.evaluate(ATTEMPTS, [base, admin, style])
            assert found.pop("client") == "object"
            assert set(found.values()) == {"refused"}, (origin, found)
        page.goto(base)  # the engine's own page
        found = page.evaluate(ATTEMPTS, [base, admin, style])
        assert (found["engine"], found["page"], found["stream"], found["events"]) == (
            200,
            200,
            "open",
            "open",
        )
        assert (found["client"], found["style"], found["notice"]) == ("object", "loaded", 503)
        assert (found["frame"], found["latency"]) == ("refused", "refused")  # by its own policy
        answer = json.loads(get(running.port, "/v1/engine")[2])
        assert answer["admin"] == admin
        chromium.close()
