"""The page's views of tiers and latency, against what the engine says itself."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.admin_client import get
from tests.support.chromium import watched

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

CONFIG = """
[latency]
interval_s = 1.0
[[feeds]]
name = "demo"
type = "synthetic"
symbols = ["AAA", "BBB", "C/D"]
rate = 300
activity = "uniform"
"""


def figures(page, tier):
    texts = {name: page.locator(f"#tier-{tier}-{name}").inner_text() for name in ("received", "conflated")}
    return {name: int(text.replace(",", "")) for name, text in texts.items()}


def test_each_tier_shows_what_it_delivered_and_what_it_conflated(browser, running):
    with watched(browser) as watcher:
        page = watcher.open(f"http://localhost:{running.port}/#tiers/C%2FD")
        page.wait_for_function("""() => ['vip', 'premium', 'basic'].every((tier) =>
            parseInt(document.querySelector(`#tier-${tier}-received`)?.textContent) >= 8)""")
        # Each figure grows, so they are read together.
        texts = page.evaluate("""() => ['vip', 'premium', 'basic'].map((tier) =>
            ['received', 'conflated', 'share'].map(
                (name) => document.querySelector(`#tier-${tier}-${name}`).textContent))""")
        (vip, vip_left, vip_share), (premium, premium_left, _), (basic, basic_left, _) = texts
        assert (vip_left, vip_share) == ("0", "100 %")
        assert int(vip) > int(premium) > int(basic)
        assert 0 < int(premium_left) < int(vip)
        assert 0 < int(basic_left) < int(vip) + 100
        assert [one.inner_text() for one in page.locator(".lane h3").all()] == ["vip", "premium", "basic"]
        assert page.locator("#tier-basic header").inner_text().startswith("basic\nthe latest, each 500 ms")
        drawn = page.evaluate("""() => [...document.querySelectorAll('.lane-canvas')].map((canvas) =>
            canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean))""")
        assert drawn == [True] * 3
        sessions = json.loads(get(running.admin_port, "/v1/sessions")[2])
        assert sorted(one["tier"] for one in sessions["shown"]) == ["basic", "premium", "vip", "vip"]
        page.get_by_label("Symbol", exact=True).fill("AAA")
        page.get_by_role("button", name="Compare").click()
        page.locator("[aria-label='Ticks of AAA on vip']").wait_for()
        page.goto(f"http://localhost:{running.port}/#watch")
        page.wait_for_function("() => true")
        deadline = 100
        while (
            json.loads(get(running.admin_port, "/v1/sessions")[2])["sessions"] != 1
        ):  # the view closes its own
            deadline -= 1
            assert deadline
            page.wait_for_timeout(50)


def test_latency_per_hop_and_tier_and_of_this_browser(browser, running):
    with watched(browser) as watcher:
        page = watcher.open(f"http://localhost:{running.port}/#latency")
        page.get_by_role("region", name="Tier vip").wait_for()
        table = page.get_by_role("region", name="Tier vip").get_by_role("table")
        row = table.get_by_role("row", name=re.compile("^total "))
        page.wait_for_function("""() => [...document.querySelectorAll('[aria-label="Tier vip"] tr')]
            .some((row) => /^total/.test(row.textContent) && /ms|µs/.test(row.textContent))""")
        cells = row.get_by_role("cell").all_inner_texts()
        assert int(cells[0].replace(",", "")) > 0
        assert all(re.fullmatch(r"\d[\d.]* (ns|µs|ms|s)", text) for text in cells[1:6]), cells
        browser_row = page.get_by_role("region", name="This browser").get_by_role(
            "row", name=re.compile("^this browser")
        )
        page.wait_for_function(
            """() => /\\d [mµ]s/.test(
                document.querySelector('[aria-label="This browser"] tbody').textContent)"""
        )
        assert int(browser_row.get_by_role("cell").first.inner_text().replace(",", "")) > 0


def test_the_ledger_adds_up(browser, running):
    with watched(browser) as watcher:
        page = watcher.open(f"http://localhost:{running.port}/#latency")
        ledger = page.get_by_role("region", name="Ledger").get_by_role("table")
        ledger.get_by_text("adds up").first.wait_for()
        rows = ledger.locator("tbody tr").all()
        assert len(rows) == 3
        for row in rows:
            matched, *parts = (int(text.replace(",", "")) for text in row.locator("td").all_inner_texts()[:6])
            assert matched == sum(parts)
            assert row.locator("td").last.inner_text() == "adds up"


def test_log_and_report_are_linked_on_the_engines_machine(browser, running):
    with watched(browser) as watcher:
        page = watcher.open(f"http://localhost:{running.port}/#latency")
        for name in ("Report", "Log"):
            link = page.get_by_role("link", name=name)
            link.wait_for()
            address = link.get_attribute("href") or ""
            assert address.startswith(f"http://localhost:{running.admin_port}/v1/latency/")
            if name == "Log":  # a report takes many seconds
                assert page.context.request.get(address).status == 200
