"""The page's alerts: live, acknowledged as a consumer, in the log, silenced, and off."""

from __future__ import annotations

import json

import pytest

from tests.support.admin_client import get, post
from tests.support.chromium import until, watched
from tests.support.process import engine

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

CONFIG = """
[limits]
requests_per_s = 1000
[[feeds]]
name = "demo"
type = "synthetic"
symbols = ["A", "B"]
rate = 50
[[alerts.rules]]
name = "tight"
type = "spread"
symbols = ["A"]
severity = "critical"
absolute = 1e-9
"""


def open_alerts(watcher, running, part="live"):
    page = watcher.open(f"http://localhost:{running.port}/#alerts/{part}")
    until(page, "session.engine && session.live")
    return page


def publish(running, key, text, severity="info"):
    assert post(running.port, "/v1/alerts", {"key": key, "msg": text, "sev": severity})[0] == 201


def consumer(running, name):
    found = json.loads(get(running.admin_port, "/v1/alerts/consumers")[2])["consumers"]
    return next(one for one in found if one["consumer"] == name)


def test_alerts_come_live_under_their_severity_and_are_filtered(browser, running):
    with watched(browser) as watcher:
        page = open_alerts(watcher, running)
        critical = page.get_by_role("region", name="critical alerts")
        critical.get_by_text("tight").wait_for()
        assert "open" in critical.locator(".alert-state").inner_text()
        publish(running, "first", "<b>first</b> & 'only'")
        info = page.get_by_role("region", name="info alerts")
        info.get_by_text("<b>first</b> & 'only'").wait_for()
        assert info.locator("b").count() == 0
        page.get_by_role("button", name="critical").click()
        critical.wait_for(state="hidden")
        page.get_by_role("button", name="critical").click()
        page.get_by_label("Filter alerts").fill("tight")
        info.wait_for(state="hidden")
        critical.wait_for()
        page.get_by_label("Filter alerts").fill("nothing such")
        page.get_by_text("No alert matches").wait_for()
        page.get_by_label("Filter alerts").fill("")
        page.get_by_role("button", name="Open only").click()
        info.wait_for(state="hidden")
        page.wait_for_function("() => document.querySelector('#alert-count').innerText === '1'")


def test_a_person_acknowledges_as_a_consumer_of_their_choice(browser, running):
    with watched(browser) as watcher:
        page = open_alerts(watcher, running)
        page.get_by_label("Acknowledge as consumer").fill("desk-7")
        page.get_by_label("If it is new").select_option("all")
        page.get_by_role("button", name="Take alerts").click()
        button = page.get_by_role("button", name="Acknowledge tight A")
        button.wait_for()
        assert consumer(running, "desk-7")["unacknowledged"] >= 1
        button.click()
        page.get_by_role("region", name="critical alerts").get_by_text("acknowledged").wait_for()
        publish(running, "second", "second notice", "warning")
        page.get_by_role("region", name="warning alerts").get_by_role("button", name="Acknowledge").wait_for()
        page.get_by_role("button", name="Acknowledge all").click()
        page.get_by_text("0 unacknowledged").wait_for()
        assert consumer(running, "desk-7")["unacknowledged"] == 0
        page.get_by_role("button", name="Stop").click()
        assert page.get_by_label("Acknowledge as consumer").is_visible()


def test_the_log_is_shown_page_by_page_and_searched(browser, running):
    for number in range(60):
        publish(running, f"many-{number}", f"notice {number}")
    with watched(browser) as watcher:
        page = open_alerts(watcher, running, "history")
        rows = page.locator("#view-alerts table:visible tbody tr")
        page.get_by_text("50 shown.").wait_for()
        assert "notice 59" in rows.first.inner_text()
        page.get_by_role("button", name="Older").click()
        page.wait_for_function(
            """() => /^All \\d+ shown/.test(
                document.querySelector('#view-alerts .stack:not([hidden]) [role=status]').textContent)"""
        )
        assert "notice 0" in page.locator("#view-alerts table:visible").inner_text()
        page.get_by_label("Rules").locator("visible=true").fill("tight")
        page.get_by_role("button", name="Search").click()
        page.wait_for_function(
            "() => document.querySelectorAll('#view-alerts .stack:not([hidden]) tbody tr').length === 1"
        )
        assert "critical" in rows.first.inner_text()


def test_a_silence_is_made_from_an_alert_and_ended(browser, running):
    with watched(browser) as watcher:
        page = open_alerts(watcher, running)
        page.get_by_role("button", name="Silence tight A").click()
        form = page.locator("form.form-row")
        form.wait_for()
        assert form.get_by_label("Rules").input_value() == "tight"
        assert form.get_by_label("Symbols").input_value() == "A"
        form.get_by_label("By").fill("ann")
        form.get_by_label("Comment").fill("venue <upgrade>")
        form.get_by_role("button", name="Silence").click()
        row = page.get_by_role("row", name="venue <upgrade>")
        row.wait_for()
        assert row.get_by_role("cell").first.inner_text() == "active"
        (silence,) = json.loads(get(running.port, "/v1/alerts/silences")[2])["silences"]
        assert (silence["rules"], silence["symbols"], silence["by"]) == (["tight"], ["A"], "ann")
        row.get_by_role("button").click()
        page.get_by_role("cell", name="expired").wait_for()


def test_an_engine_without_alerts_says_how_to_turn_them_on(browser, tmp_path):
    with engine(CONFIG.partition("[[alerts")[0], tmp_path) as running, watched(browser) as watcher:
        page = watcher.open(f"http://localhost:{running.port}/#alerts")
        page.get_by_text("Alerts are off").wait_for()
        assert "[[alerts.rules]]" in page.get_by_label("A rule, as an example").inner_text()
        assert page.get_by_role("button", name="Take alerts").is_hidden()
