"""The WebSocket below the protocol, by the cases of the Autobahn test suite, which kosoku runs.

The cases need a server that sends back what it gets: that of tests/support/echo_engine.py is an engine but
for the requests. Cases of performance (9) and of compression (12, 13), which the engine does not offer, are
left out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import kosoku
import pytest

from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kosoku._kosoku import CaseResult

CASES = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)]
NUMBER = 247
# What RFC 6455 leaves open: a message between a large one and a close; close codes that nobody may send.
OPEN = {"7.1.6", "7.13.1", "7.13.2"}
CONCURRENTLY = 8


def results_of(url: str, cases: Sequence[str]) -> list[CaseResult]:
    """Run cases; return the result of each."""
    try:
        return asyncio.run(kosoku.run_fuzzingclient(url, cases, concurrency=CONCURRENTLY))
    except kosoku.FailureError as failure:
        return failure.results


def table(results: list[CaseResult]) -> str:
    """Return a line for each case that did not pass without any reservation: NON-STRICT is none either."""
    return "\n".join(
        f"{one.case_id:8} {one.behavior.value:14} {one.behavior_close.value:14} "
        f"close {one.remote_close_code}: {one.result} {one.result_close} | {one.expectation}"
        for one in results
        if {one.behavior.value, one.behavior_close.value}
        != ({"INFORMATIONAL"} if one.case_id in OPEN else {"OK"})
    )


@pytest.mark.slow
def test_every_case_of_framing_text_and_closing_passes(tmp_path):
    with engine("", tmp_path, module="tests.support.echo_engine") as running:
        results = results_of(running.url, CASES)
        assert running.stop() == 0
    assert table(results) == ""
    assert len(results) == NUMBER
    assert {one.case_id for one in results} >= OPEN


def test_a_case_that_fails_is_in_the_table(tmp_path):
    with engine("", tmp_path) as running:  # which answers what is no request with an error
        results = results_of(running.url, ["1.1.2"])
    (line,) = table(results).splitlines()
    assert line.startswith("1.1.2    FAILED")
