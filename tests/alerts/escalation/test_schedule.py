"""When which escalation sends what: exact times, ends, restarts, and a machine of all of them together."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from marketfeed.alerts.escalation.message import End, Outcome, Verdict
from marketfeed.alerts.escalation.pending import Key, Pending, Plan
from marketfeed.alerts.escalation.schedule import Schedule
from marketfeed.core.units import S
from tests.support.escalations import NOW_NS, raised

HOUR_S = 3600
DELIVERED, FAILED = Outcome(Verdict.DELIVERED), Outcome(Verdict.FAILED)
GONE, REFUSED = Outcome(Verdict.GONE), Outcome(Verdict.REFUSED)
PLAN = Plan("ops", "warning", 60.0)


def at(seconds: float) -> int:
    return NOW_NS + round(seconds * S)


def cleared(seconds: float) -> End:
    return End(cause="cleared", at_ns=at(seconds))


def schedule(*plans: Plan, stored: tuple[Pending, ...] = ()) -> Schedule:
    return Schedule(plans or (PLAN,), stored, uniform=lambda low, high: 1.0)


def due(found: Schedule, seconds: float) -> list[Pending]:
    return [pending for batch in found.due(at(seconds)) for pending in batch]


def send(found: Schedule, seconds: float, outcome: Outcome) -> list[str]:
    """Send what is due, and return the ids of the messages."""
    batches = found.due(at(seconds))
    for batch in batches:
        found.record(batch, outcome, at(seconds))
    return [pending.message.id for batch in batches for pending in batch]


def next_s(found: Schedule) -> float | None:
    next_ns = found.next_ns()
    return None if next_ns is None else (next_ns - NOW_NS) / S


def test_an_episode_that_nobody_took_on_goes_out_after_its_time():
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    assert send(found, 59.9, DELIVERED) == []
    assert next_s(found) == 60
    assert send(found, 60, DELIVERED) == [f"raised_{alert.key}"]
    assert next_s(found) is None
    assert [pending.phase for pending in found.pending()] == ["sent"]


def test_what_is_not_severe_enough_and_notices_do_not_escalate():
    found = schedule(PLAN, Plan("boss", "critical", 600.0))
    found.raised(raised(severity="info"), at(0))
    found.raised(msgspec.structs.replace(raised(), state="notice"), at(0))
    assert found.pending() == []
    found.raised(raised(severity="warning"), at(0))
    found.raised(raised(severity="warning"), at(30))
    assert [(pending.name, pending.due_ns) for pending in found.pending()] == [("ops", at(60))]


@pytest.mark.parametrize("end", [cleared(1), End(cause="resolved", at_ns=at(1), by="ann")])
def test_an_end_before_the_first_message_cancels_it(end):
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    found.changes()
    found.ended(alert.key, end, at(1))
    assert found.changes() == {("ops", alert.key): None}
    assert send(found, 1000, DELIVERED) == []
    assert found.figures["ops"].cancelled == 1


@pytest.mark.parametrize("first", [DELIVERED, FAILED])
def test_an_end_after_a_message_that_may_have_arrived_is_sent(first):
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    send(found, 60, first)
    found.ended(alert.key, cleared(61), at(61))
    found.ended(alert.key, End(cause="resolved", at_ns=at(62)), at(62))
    assert send(found, 62, FAILED) == [f"cleared_{alert.key}"]
    assert send(found, 67, DELIVERED) == [f"cleared_{alert.key}"]
    assert found.pending() == []


@pytest.mark.parametrize("outcome", [DELIVERED, FAILED, REFUSED, Outcome(Verdict.DEFERRED)])
def test_an_end_during_an_attempt_is_sent_after_it(outcome):
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    (batch,) = found.due(at(60))
    found.ended(alert.key, cleared(61), at(61))
    assert found.due(at(61)) == []
    found.record(batch, outcome, at(62))
    assert send(found, 62, DELIVERED) == [f"cleared_{alert.key}"]


def test_delays_double_from_5_s_to_an_hour_and_never_end_while_the_episode_lasts():
    found = schedule()
    found.raised(raised(), at(0))
    times = [60.0]
    for _ in range(14):
        assert len(send(found, times[-1], FAILED)) == 1
        following = next_s(found)
        assert following is not None
        times.append(following)
    delays = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert delays == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600, 3600]
    assert len(send(found, 60 * 86_400, DELIVERED)) == 1


def test_delays_are_spread():
    found = Schedule([PLAN], uniform=lambda low, high: high)
    found.raised(raised(), at(0))
    send(found, 60, FAILED)
    assert next_s(found) == 66


def test_retry_after_is_the_least_delay():
    found = schedule()
    found.raised(raised(), at(0))
    send(found, 60, Outcome(Verdict.FAILED, retry_after_s=120))
    assert next_s(found) == 180
    send(found, 180, Outcome(Verdict.FAILED, retry_after_s=1))
    assert next_s(found) == 190


def test_what_was_not_attempted_is_no_failure_and_can_be_cancelled():
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    assert send(found, 60, Outcome(Verdict.DEFERRED, retry_after_s=30)) == [f"raised_{alert.key}"]
    assert next_s(found) == 90
    assert found.pending()[0].tries == 0
    found.ended(alert.key, cleared(70), at(70))
    assert found.pending() == []


def test_an_episode_is_resent_until_it_ends():
    found = schedule(Plan("am", "warning", 0.0, resend_s=60.0))
    alert = raised()
    found.raised(alert, at(0))
    assert [len(send(found, seconds, DELIVERED)) for seconds in (0, 59, 60, 120)] == [1, 0, 1, 1]
    for _ in range(6):
        send(found, next_s(found) or 0, FAILED)
    assert found.pending()[0].wait_ns == 60 * S  # not longer, or the alert would end there
    found.ended(alert.key, cleared(2000), at(2000))
    assert send(found, 2000, DELIVERED) == [f"cleared_{alert.key}"]
    assert next_s(found) is None


def test_a_peer_that_wants_nothing_more_gets_nothing_more():
    found = schedule(PLAN, Plan("boss", "warning", 60.0))
    found.raised(raised("A"), at(0))
    found.raised(raised("B"), at(0))
    batch = found.due(at(60))[0]
    assert batch[0].name == "boss" or batch[0].name == "ops"
    name = batch[0].name
    found.record(batch, GONE, at(60))
    assert found.off() == {name}
    found.raised(raised("C"), at(60))
    assert {pending.name for pending in found.pending()} == {"ops", "boss"} - {name}
    assert [key for key, pending in found.changes().items() if key[0] == name and pending] == []


def test_a_message_that_is_refused_is_dropped():
    found = schedule()
    found.raised(raised(), at(0))
    send(found, 60, REFUSED)
    assert found.pending() == []
    assert found.figures["ops"].refused == 1


def test_the_end_of_an_episode_is_given_up_after_a_day():
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    send(found, 60, DELIVERED)
    found.ended(alert.key, cleared(100), at(100))
    while (seconds := next_s(found)) is not None:
        send(found, seconds, FAILED)
    assert found.figures["ops"].given_up == 1
    assert found.pending() == []


def test_messages_of_one_table_go_out_in_batches():
    found = schedule(Plan("am", "warning", 0.0, batch=3), Plan("ops", "warning", 0.0))
    for number in range(7):
        found.raised(raised(f"S{number}"), at(number))
    batches = found.due(at(7), most=12)
    assert sorted(len(batch) for batch in batches if batch[0].name == "am") == [3, 3]
    assert all(len(batch) == 1 for batch in batches if batch[0].name == "ops")
    assert sum(map(len, batches)) == 12
    assert len(due(found, 7)) == 2
    assert due(found, 7) == []


def test_a_silenced_episode_waits_and_its_end_does_not():
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    found.postpone(alert.key, at(HOUR_S), at(50))
    assert next_s(found) == HOUR_S
    found.postpone(alert.key, at(100), at(51))
    assert next_s(found) == HOUR_S
    send(found, HOUR_S, DELIVERED)
    found.ended(alert.key, cleared(HOUR_S + 1), at(HOUR_S + 1))
    found.postpone(alert.key, at(2 * HOUR_S), at(HOUR_S + 2))
    assert next_s(found) == HOUR_S + 1


def test_what_was_postponed_goes_on_when_a_silence_is_ended():
    found = schedule(PLAN, Plan("repeating", "info", 0.0, resend_s=30.0))
    alert = raised()
    found.raised(alert, at(0))
    assert send(found, 0, DELIVERED) == [f"raised_{alert.key}"]
    found.postpone(alert.key, at(HOUR_S), at(5))
    found.resume(alert.key, at(20))
    assert send(found, 20, DELIVERED) == [f"raised_{alert.key}"]  # the one that repeats
    assert send(found, 49, DELIVERED) == []
    found.resume(alert.key, at(49))  # nothing is later than it would be anyway, but for the one that repeats
    assert send(found, 49, DELIVERED) == [f"raised_{alert.key}"]
    assert next_s(found) == pytest.approx(60)  # after_s from the raised alert
    found.postpone(alert.key, at(HOUR_S), at(61))
    found.resume(alert.key, at(70))
    assert len(send(found, 70, DELIVERED)) == 2


def test_a_restart_goes_on_where_the_last_schedule_ended():
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    for seconds in (60, 65, 75):
        assert len(send(found, seconds, FAILED)) == 1
    (stored,) = (pending for pending in found.changes().values() if pending)
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(stored), type=Pending)
    assert read == stored
    again = schedule(stored=(read,))
    assert next_s(again) == next_s(found) == 95
    assert send(again, 95, FAILED) == [f"raised_{alert.key}"]
    assert next_s(again) == 135
    assert schedule(Plan("other", "info", 1.0), stored=(read,)).changes() == {("ops", alert.key): None}


def test_an_attempt_that_a_crash_cut_off_is_known_after_the_restart():
    found = schedule()
    alert = raised()
    found.raised(alert, at(0))
    found.due(at(60))
    (stored,) = (pending for pending in found.changes().values() if pending)
    again = schedule(stored=(stored,))
    again.ended(alert.key, cleared(61), at(61))
    assert send(again, 61, DELIVERED) == [f"cleared_{alert.key}"]


def test_a_clock_that_is_set_back_delays_nothing_by_more_than_its_own_delay():
    found = schedule()
    found.raised(raised(), at(0))
    send(found, 60, FAILED)
    assert send(found, -2 * HOUR_S, FAILED) == []
    assert next_s(found) == -2 * HOUR_S + 5
    stored = tuple(found.pending())
    again = schedule(stored=stored)
    assert due(again, -10 * HOUR_S) == []
    assert next_s(again) == -10 * HOUR_S + 5


def test_a_clock_that_is_set_forward_sends_each_message_once():
    found = schedule()
    for number in range(50):
        found.raised(raised(f"S{number}"), at(0))
    assert len(send(found, 2 * HOUR_S, FAILED)) == 50
    assert send(found, 2 * HOUR_S, FAILED) == []


class Outside(RuleBasedStateMachine):
    """Episodes, attempts with any outcome, and crashes; and what the outside knows of each episode.

    Two promises: of an episode whose ``raised`` may have arrived, the end arrives too; and an episode that
    lasts arrives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plans = [Plan("am", "warning", 10.0, resend_s=60.0, batch=3), Plan("ops", "warning", 60.0)]
        self.now_ns = NOW_NS
        self.stored: dict[Key, Pending] = {}
        self.open: dict[str, bool] = {}  # by key: whether the episode lasts
        self.known: dict[Key, str] = {}  # the last message that arrived
        self.maybe: set[Key] = set()  # those whose `raised` was attempted
        self.under_way: list[list[Pending]] = []
        self.found = Schedule(self.plans, uniform=lambda low, high: 1.0)

    def store(self) -> None:
        for key, pending in self.found.changes().items():
            if pending is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = pending

    @rule(seconds=st.sampled_from([1, 5, 30, 60, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * S

    @rule()
    def an_episode_begins(self) -> None:
        alert = raised(f"S{len(self.open)}", at_ns=self.now_ns)
        self.open[alert.key] = True
        self.found.raised(alert, self.now_ns)
        self.store()

    @precondition(lambda self: any(self.open.values()))
    @rule(data=st.data())
    def an_episode_ends(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, lasts in self.open.items() if lasts)))
        self.open[key] = False
        self.found.ended(key, End(cause="cleared", at_ns=self.now_ns), self.now_ns)
        self.store()

    @rule()
    def attempts_begin(self) -> None:
        batches = self.found.due(self.now_ns, most=4)
        self.store()  # before sending
        flying = {pending.key for batch in self.under_way for pending in batch}
        for batch in batches:
            assert len({pending.name for pending in batch}) == 1
            for pending in batch:
                assert pending.key not in flying
                assert pending.due_ns is not None
                assert pending.due_ns <= self.now_ns
                self.maybe.add(pending.key)
        self.under_way += batches

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), verdict=st.sampled_from([Verdict.DELIVERED, Verdict.FAILED]), arrives=st.booleans())
    def an_attempt_ends(self, data: st.DataObject, verdict: Verdict, arrives: bool) -> None:
        batch = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if arrives or verdict is Verdict.DELIVERED:
            self.arrive(batch)
        self.found.record(batch, Outcome(verdict), self.now_ns)
        self.store()

    @rule()
    def crash(self) -> None:
        for batch in self.under_way:
            self.arrive(batch)
        self.under_way = []
        self.found = Schedule(self.plans, list(self.stored.values()), uniform=lambda low, high: 1.0)

    def arrive(self, batch: list[Pending]) -> None:
        for pending in batch:
            if self.known.get(pending.key) != "cleared":  # a peer ignores what is late
                self.known[pending.key] = pending.message.cause

    def teardown(self) -> None:
        while self.under_way:
            batch = self.under_way.pop()
            self.arrive(batch)
            self.found.record(batch, DELIVERED, self.now_ns)
        for _ in range(5):  # no delay is longer than an hour
            batches = self.found.due(self.now_ns)
            for batch in batches:
                self.arrive(batch)
                self.found.record(batch, DELIVERED, self.now_ns)
            self.now_ns += 3600 * S
        for key, lasts in self.open.items():
            for plan in self.plans:
                if lasts:
                    assert self.known[plan.name, key] == "raised"
                elif (plan.name, key) in self.maybe:
                    assert self.known[plan.name, key] == "cleared"
                else:
                    assert (plan.name, key) not in self.known
        assert all(self.open[pending.alert.key] for pending in self.found.pending())


Outside.TestCase.settings = settings(stateful_step_count=40)
TestOutside = Outside.TestCase
