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


def test_the_ends_of_calls_of_an_earlier_state_change_nothing():
    breaker = Breaker(1, 100, 400)
    late = [breaker.admit(0) for _ in range(4)]
    assert None not in late
    one, other, third, last = (call or 0 for call in late)
    breaker.failed(one, 0)
    breaker.succeeded(other)
    breaker.failed(third, 50)
    assert breaker.wait_ns(50) == 50
    probe = breaker.admit(100)
    breaker.release(last)
    assert breaker.admit(100) is None
    breaker.succeeded(last)
    assert breaker.state(100) is HALF_OPEN
    breaker.failed(last, 100)
    assert breaker.state(100) is HALF_OPEN
    assert probe is not None
    breaker.succeeded(probe)
    assert breaker.state(100) is CLOSED


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

    FAILURES, FIRST_NS, MOST_NS = 2, 100, 350

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(self.FAILURES, self.FIRST_NS, self.MOST_NS)
        self.now_ns = 0
        self.under_way: list[tuple[int, int]] = []  # the call, and `changes` when it was admitted
        self.state = CLOSED
        self.changes = 0  # of the state
        self.in_a_row = 0  # failures of calls that are not late
        self.ended = 0

    def look(self) -> tuple[BreakerState, int]:
        """Return the state and how long it stays open; count the changes of the state."""
        state = self.breaker.state(self.now_ns)
        if state is not self.state:
            self.state, self.changes, self.in_a_row = state, self.changes + 1, 0
        return state, self.breaker.wait_ns(self.now_ns)

    def one(self, data: st.DataObject) -> tuple[int, bool]:
        """Return a call under way, and whether it is late: of an earlier state."""
        call, admitted = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        return call, admitted != self.changes

    @rule(by_ns=st.sampled_from([1, 99, 100, 400]))
    def time_passes(self, by_ns: int) -> None:
        self.now_ns += by_ns
        state, wait_ns = self.look()
        assert (wait_ns > 0) == (state is OPEN)

    @rule(times=st.integers(1, 4))
    def begin(self, times: int) -> None:
        for _ in range(times):
            self.begin_one()

    def begin_one(self) -> None:
        probes = [call for call, admitted in self.under_way if admitted == self.changes]
        call = self.breaker.admit(self.now_ns)
        expected = self.state is CLOSED or (self.state is HALF_OPEN and not probes)
        assert (call is not None) == expected
        self.look()
        if call is not None:
            self.under_way.append((call, self.changes))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), asked_ns=st.sampled_from([0, 0, 0, 900]))
    def fail(self, data: st.DataObject, asked_ns: int) -> None:
        call, late = self.one(data)
        before = self.look()
        self.in_a_row += not late
        opens = not late and (self.state is HALF_OPEN or self.in_a_row >= self.FAILURES or asked_ns > 0)
        self.breaker.failed(call, self.now_ns, asked_ns)
        self.ended += 1
        after = self.look()
        if opens:
            assert after[0] is OPEN
            assert max(self.FIRST_NS, asked_ns) <= after[1] <= max(self.MOST_NS, asked_ns)
        else:
            assert after == before

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        call, late = self.one(data)
        before = self.look()
        self.breaker.succeeded(call)
        self.ended += 1
        if late:
            assert self.look() == before
        else:
            assert self.look() == (CLOSED, 0)
            self.in_a_row = 0

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        before = self.look()
        self.breaker.release(self.one(data)[0])
        assert self.look() == before

    @invariant()
    def every_end_is_counted_once(self) -> None:
        found = self.breaker.statistics(self.now_ns)
        assert found.succeeded + found.failed == self.ended

    def teardown(self) -> None:
        """A breaker never stays shut: once all calls have ended and time has passed, one is admitted."""
        for call, _ in self.under_way:
            self.breaker.release(call)
        assert self.breaker.admit(self.now_ns + 900) is not None


Calls.TestCase.settings = settings(stateful_step_count=40)
TestCalls = Calls.TestCase
