"""The latency log and the report about it, on the admin port."""

from __future__ import annotations

import json
import os
from functools import partial

import pytest
import trio

from marketfeed.admin import latency_operations
from marketfeed.admin.latency_operations import FRESH_S, LOG, REPORT, LatencyOperations
from marketfeed.gateway.http import HttpServer, Request, Response, Rules
from marketfeed.gateway.origins import Origins
from tests.support.http_peers import served
from tests.support.latency_logs import interval, write
from tests.support.overviews import SetOverview

SITE = {"same": "same-site", "other": "cross-site", "own": "same-origin", "typed": "none"}


def operations(path):
    return LatencyOperations(SetOverview(), path)


async def get(made, path, **more):
    answer = await made.routes[path]["GET"](Request(path=path, **more))
    assert isinstance(answer, Response)
    return answer


@pytest.fixture
def log(tmp_path):
    return write(tmp_path / "a <b>&.hlog", interval([1_000_000, 2_000_000]))


async def test_the_log_is_served_as_it_is(log):
    answer = await get(operations(log), LOG)
    assert (answer.status, answer.body) == (200, log.read_bytes())
    assert answer.content_type == "text/plain; charset=utf-8"
    assert dict(answer.headers)["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "device"])
async def test_what_is_no_log_is_not_served_and_blocks_nobody(tmp_path, kind):
    path = tmp_path / "latency.hlog"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
    with trio.fail_after(20):
        answer = await get(operations(path), LOG)
    assert answer.status == 404
    assert str(path).encode() in answer.body


@pytest.mark.e2e
@pytest.mark.slow
async def test_the_report_is_the_page_of_the_command(log):
    answer = await get(operations(log), REPORT)
    assert (answer.status, answer.content_type) == (200, "text/html; charset=utf-8")
    page = answer.body.decode()
    assert page.startswith("<!doctype html>")
    assert "a &lt;b&gt;&amp;.hlog" in page
    assert "data:image/png;base64," in page
    assert "<script" not in page
    policy = dict(answer.headers)["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


@pytest.mark.e2e
@pytest.mark.slow
async def test_why_there_is_no_report_is_said_in_one_line(tmp_path):
    empty = tmp_path / "empty.hlog"
    empty.touch()
    for path, why in ((tmp_path / "absent.hlog", "No such file or directory"), (empty, "no intervals yet")):
        answer = await get(operations(path), REPORT)
        said = json.loads(answer.body)["error"]["msg"]
        assert (answer.status, "\n" in said) == (503, False)
        assert said.startswith(f"{path}: {why}")


class Reports:
    """Makes reports, and counts them."""

    def __init__(self, monkeypatch, fails=False, takes_s=1):
        self.made = self.running = self.most = 0
        self._fails, self._takes_s = fails, takes_s
        monkeypatch.setattr(latency_operations, "html_report", self._make)

    async def _make(self, path):
        self.running += 1
        self.most = max(self.most, self.running)
        await trio.sleep(self._takes_s)
        self.running -= 1
        self.made += 1
        if self._fails:
            raise latency_operations.ReportError("no matplotlib")
        return b"report %d" % self.made


async def test_reports_are_made_one_at_a_time_and_shared(autojump_clock, monkeypatch, tmp_path):
    reports, made = Reports(monkeypatch), operations(tmp_path)
    bodies: list[bytes] = []

    async def ask(at_s):
        await trio.sleep(at_s)
        bodies.append((await get(made, REPORT)).body)

    async with trio.open_nursery() as nursery:
        for at_s in (0, 0, 0.5, 1 + FRESH_S / 2, 2 + FRESH_S):
            nursery.start_soon(ask, at_s)
    assert bodies == [b"report 1"] * 4 + [b"report 2"]
    assert (reports.made, reports.most) == (2, 1)


async def test_a_failed_report_is_not_kept(autojump_clock, monkeypatch, tmp_path):
    reports, made = Reports(monkeypatch, fails=True), operations(tmp_path)
    assert [(await get(made, REPORT)).status for _ in range(2)] == [503, 503]
    assert reports.made == 2


@pytest.mark.e2e
async def test_a_report_that_takes_too_long_is_given_up(monkeypatch, log):
    monkeypatch.setattr(latency_operations, "_COMMAND", "import time; time.sleep(3600)")
    monkeypatch.setattr(latency_operations, "REPORT_S", 0.2)
    answer = await get(operations(log), REPORT)
    assert answer.status == 503
    assert b"was not made within 0.2 s" in answer.body


@pytest.mark.parametrize("path", [LOG, REPORT])
@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("typed", "navigate", "document", 200),
        ("own", "navigate", "document", 200),
        ("same", "navigate", "document", 200),  # a link on the page of the gateway
        ("same", "navigate", "iframe", 403),
        ("same", "no-cors", "image", 403),
        ("same", "no-cors", "script", 403),
        ("other", "navigate", "document", 403),
    ],
)
async def test_pages_of_the_same_site_may_link_to_it(monkeypatch, log, path, site, mode, dest, status):
    Reports(monkeypatch, takes_s=0)
    rules = Rules(head_s=5.0, origins=Origins(()), linked=frozenset({LOG, REPORT}))
    headers = f"Sec-Fetch-Site: {SITE[site]}\r\nSec-Fetch-Mode: {mode}\r\nSec-Fetch-Dest: {dest}\r\n"
    for target, expected in ((path, status), ("/v1/latency", 200 if site in ("typed", "own") else 403)):
        server = HttpServer(operations(log).routes, rules)
        async with served(server=server) as peer:
            await peer.stream.send_all(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
            assert (await peer.answer())[0] == expected


async def test_no_parameters_are_taken(log):
    made = operations(log)
    for path in made.routes:
        ask = partial(get, made, path, query={"path": ["/etc/passwd"]})
        with pytest.raises(Exception, match="unknown parameter 'path'"):
            await ask()
