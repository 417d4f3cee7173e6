"""The circuit breaker: its states, and that no sequence of calls breaks its promises."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marketfeed.core.breaker import Breaker, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState


def fail(breaker: Breaker, now_ns: int, wait_ns: int = 0) -> None:
    call = breaker.admit(now_ns)
    assert call is not None
    breaker.failed(call, now_ns, wait_ns)


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not():
    breaker = Breaker(2, 100, 400)
    fail(breaker, 0)
    call = breaker.admit(0)
    assert call is not None
    breaker.succeeded(call)
    fail(breaker, 0)
    assert breaker.state(0) is CLOSED
    fail(breaker, 0)
    assert breaker.state(0) is OPEN
    assert breaker.admit(99) is None
    assert breaker.wait_ns(40) == 60
    assert breaker.state(100) is HALF_OPEN


def test_each_failed_probe_doubles_the_time_up_to_the_most():
    breaker = Breaker(1, 100, 400)
    now_ns, waits = 0, []
    for _ in range(5):
        fail(breaker, now_ns)
        waits.append(breaker.wait_ns(now_ns))
        now_ns += waits[-1]
    assert waits == [100, 200, 400, 400, 400]
    probe = breaker.admit(now_ns)
    assert probe is not None
    breaker.succeeded(probe)
    assert breaker.state(now_ns) is CLOSED
    fail(breaker, now_ns)
    assert breaker.wait_ns(now_ns) == 100


def test_a_wait_that_the_peer_asked_for_opens_it_at_once():
    breaker = Breaker(5, 100, 400)
    fail(breaker, 10, wait_ns=1000)
    assert breaker.wait_ns(10) == 1000
    assert breaker.admit(1009) is None
    assert breaker.admit(1010) is not None


def test_a_probe_without_a_verdict_makes_room_for_another():
    breaker = Breaker(1, 100, 400)
    fail(breaker, 0)
    probe = breaker.admit(100)
    assert probe is not None
    assert breaker.admit(100) is None
    breaker.release(probe)
    assert breaker.admit(100) is not None


def test_statistics_are_counted():
    breaker = Breaker(1, 100, 400)
    fail(breaker, 0)
    breaker.admit(1)
    probe = breaker.admit(100)
    assert probe is not None
    breaker.succeeded(probe)
    found = breaker.statistics(100)
    assert (found.state, found.succeeded, found.failed, found.refused, found.opened) == (CLOSED, 1, 1, 1, 1)


class Calls(RuleBasedStateMachine):
    """Overlapping calls with any outcome, some late, compared with what the breaker promises."""

    FAILURES, FIRST_NS, MOST_NS = 3, 100, 350

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(self.FAILURES, self.FIRST_NS, self.MOST_NS)
        self.now_ns = 0
        self.under_way: list[int] = []
        self.shut_until_ns = 0  # no call may be admitted before
        self.ended = 0

    @rule(by_ns=st.integers(1, 400))
    def time_passes(self, by_ns: int) -> None:
        self.now_ns += by_ns

    @rule()
    def begin(self) -> None:
        state = self.breaker.state(self.now_ns)
        call = self.breaker.admit(self.now_ns)
        if state is CLOSED:
            assert call is not None
        if state is OPEN:
            assert call is None
        if call is not None:
            assert self.now_ns >= self.shut_until_ns
            if state is HALF_OPEN:
                assert call not in self.under_way  # one probe at a time
            self.under_way.append(call)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), wait_ns=st.sampled_from([0, 0, 0, 900]))
    def fail(self, data: st.DataObject, wait_ns: int) -> None:
        before = self.breaker.state(self.now_ns), self.breaker.wait_ns(self.now_ns)
        opened = self.breaker.statistics(self.now_ns).opened
        self.breaker.failed(self._one(data), self.now_ns, wait_ns)
        self.ended += 1
        if self.breaker.statistics(self.now_ns).opened > opened:
            wait = self.breaker.wait_ns(self.now_ns)
            assert max(self.FIRST_NS, wait_ns) <= wait <= max(self.MOST_NS, wait_ns)
            self.shut_until_ns = self.now_ns + wait
        else:  # a late failure neither opens it nor makes it stay open for longer
            assert (self.breaker.state(self.now_ns), self.breaker.wait_ns(self.now_ns)) == before

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        before = self.breaker.state(self.now_ns)
        self.breaker.succeeded(self._one(data))
        self.ended += 1
        if before is not HALF_OPEN:
            assert self.breaker.state(self.now_ns) is before

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        before = self.breaker.state(self.now_ns)
        self.breaker.release(self._one(data))
        assert self.breaker.state(self.now_ns) is before

    def _one(self, data: st.DataObject) -> int:
        return self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))

    @invariant()
    def every_end_is_counted_once(self) -> None:
        found = self.breaker.statistics(self.now_ns)
        assert found.succeeded + found.failed == self.ended

    def teardown(self) -> None:
        """A breaker never stays shut: once all calls have ended and time has passed, one is admitted."""
        for call in self.under_way:
            self.breaker.release(call)
        assert self.breaker.admit(self.now_ns + max(self.MOST_NS, 900)) is not None


Calls.TestCase.settings = settings(stateful_step_count=40)
TestCalls = Calls.TestCase
