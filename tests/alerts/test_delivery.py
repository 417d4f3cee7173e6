"""Delivery to one consumer: delays, bounds, sessions, order. At random: test_delivery_model.py."""

from __future__ import annotations

import pytest

from marketfeed.alerts.alert import Alert
from marketfeed.alerts.delivery import Delivery, DeliveryLimits, DeliveryStatistics, Due
from marketfeed.alerts.log import Consumer, Entry, Former, Progress
from marketfeed.core.units import S

HOUR_NS = 3600 * S


def entry(position, *, symbol="A", rule="wide", mark=None, to=None, at_ns=0):
    alert = Alert(id=f"id{position}", key=f"id{position}", rule=rule, symbol=symbol, to=to)
    return Entry(position, alert, at_ns, mark)


def delivery(progress=None, *, patterns=("*",), max_tries=10, in_flight=1000, sessions=("s",)):
    progress = progress or Progress(0)
    made = Delivery(
        Consumer("risk", "all", patterns, 0, progress.floor),
        progress,
        DeliveryLimits(max_tries, in_flight),
        uniform=lambda low, high: 1.0,
    )
    for session in sessions:
        made.join(session)
    return made


def taken(made, now_s, session="s", limit=1000):
    return [(due.entry.position, due.tries) for due in made.take(session, round(now_s * S), limit)]


def test_an_alert_comes_again_after_1_2_4_seconds_and_at_most_60():
    made = delivery()
    made.offer([entry(1)], 0)
    times_s = []
    now_s = 0.0
    for tries in range(1, 11):
        assert taken(made, now_s) == [(1, tries)]
        assert taken(made, now_s) == []
        due_ns = made.next_ns()
        assert due_ns is not None
        assert taken(made, due_ns / S - 0.001) == []
        times_s.append(due_ns / S - now_s)
        now_s = due_ns / S
    assert times_s == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert taken(made, now_s) == []


def test_delays_are_jittered():
    made = Delivery(Consumer("risk", "all", ("*",), 0, 0), Progress(0), DeliveryLimits(3, 1000))
    made.join("s")
    made.offer([entry(position) for position in range(1, 101)], 0)
    made.take("s", 0, 100)
    assert made.next_ns() in range(round(0.8 * S), round(0.9 * S))
    assert len(made.take("s", S, 100)) in range(20, 80)


def test_what_was_tried_max_tries_times_is_parked_after_its_last_delay():
    made = delivery(max_tries=2)
    made.offer([entry(1), entry(2)], 0)
    taken(made, 0)
    taken(made, 1)
    made.acknowledged([2])
    assert made.expired(round(2.9 * S)) == {}
    assert made.expired(3 * S) == made.expired(3 * S) == {1: 2}
    assert made.floor == 0
    made.parked([1])
    assert made.expired(4 * S) == {}
    assert (made.floor, made.room(), made.next_ns()) == (2, 1000, None)
    assert made.statistics().parked == 1


def test_an_acknowledgement_before_parking_is_done_settles():
    made = delivery(max_tries=1)
    made.offer([entry(1)], 0)
    taken(made, 0)
    assert made.expired(S) == {1: 1}
    made.acknowledged([1])
    assert made.expired(S) == {}
    made.parked([1])
    assert made.statistics().parked == 0


def test_a_consumer_that_holds_in_flight_alerts_is_stalled():
    made = delivery(in_flight=2)
    assert made.statistics().state == "live"
    made.offer([entry(1, at_ns=5), entry(2, at_ns=6)], 0)
    assert made.room() == 0
    assert taken(made, 0) == [(1, 1), (2, 1)]
    assert made.statistics() == DeliveryStatistics("stalled", 1, 2, 5, 2, 0, 2, 0, 0, 0)
    made.acknowledged([1])
    assert made.room() == 1
    assert made.statistics() == DeliveryStatistics("live", 1, 1, 6, 2, 1, 2, 0, 1, 0)
    made.leave("s")
    assert made.statistics().state == "away"


def test_sessions_share_the_load_equally():
    made = delivery(in_flight=5, sessions=("s", "t"))
    made.offer([entry(position) for position in range(1, 6)], 0)
    assert taken(made, 0, "s") == [(1, 1), (2, 1), (3, 1)]
    assert taken(made, 0, "t") == [(4, 1), (5, 1)]
    made.acknowledged([1, 4])
    made.offer([entry(6), entry(7)], 0)
    assert taken(made, 0, "t", limit=1) == [(6, 1)]
    assert taken(made, 0, "s") == [(7, 1)]


def test_what_a_session_had_goes_to_another_at_once_in_order():
    made = delivery(sessions=("s", "t"))
    made.offer([entry(position) for position in range(1, 5)], 0)
    assert taken(made, 0, "s", 3) == [(1, 1), (2, 1), (3, 1)]
    made.acknowledged([2])
    made.leave("s")
    assert taken(made, 0.1, "t") == [(1, 2), (3, 2), (4, 1)]
    made.leave("unknown")


def test_a_session_that_leaves_after_the_last_try_does_not_park_early():
    made = delivery(max_tries=1)
    made.offer([entry(1)], 0)
    taken(made, 0)
    made.leave("s")
    made.join("t")
    assert (taken(made, 0.5, "t"), made.expired(S // 2)) == ([], {})
    assert made.expired(S) == {1: 1}


def test_patterns_filter_on_rules_and_a_directed_notice_ignores_them():
    made = delivery(patterns=("wide", "sta*"))
    made.offer(
        [
            entry(1, rule="wide"), entry(2, rule="wider"), entry(3, rule="stale"),
            entry(4, rule="notice", to="risk"), entry(5, to="other"),
            entry(6, mark="silenced"), entry(7, mark="inhibited"),
        ],
        0,
    )  # fmt: skip
    assert taken(made, 0) == [(1, 1), (3, 1), (4, 1)]
    made.acknowledged([1, 3, 4])
    assert made.floor == 7


def test_new_patterns_decide_about_what_is_appended_after_they_were_set():
    made = delivery(Progress(2, requeued=(entry(1, rule="a"),)), patterns=("a",))
    made.offer([entry(3, rule="a"), entry(4, rule="b")], 0)
    assert taken(made, 0, limit=1) == [(1, 1)]
    former = (Former(5, ("a",)),)  # 5 is not read yet
    made.change(Consumer("risk", "all", ("b",), 0, 0, former=former))
    made.offer([entry(5, rule="a"), entry(6, rule="a"), entry(7, rule="b")], 0)
    assert taken(made, 0) == [(3, 1), (5, 1), (7, 1)]
    made.acknowledged([3])
    assert made.floor == 4
    assert taken(made, 1) == [(1, 2), (5, 2), (7, 2)]


def test_new_symbols_leave_out_what_is_about_others_whenever_it_was_appended():
    made = delivery(Progress(2, requeued=(entry(1, symbol="A"),)))
    made.offer([entry(3, symbol="A"), entry(4, symbol="B")], 0)
    made.change(Consumer("risk", "all", ("*",), 0, 0, symbols=("B",)))
    assert taken(made, 0) == [(4, 1)]
    assert made.floor == 3


def test_new_symbols_settle_what_they_leave_out_in_whatever_state_it_is():
    made = delivery(
        Progress(2, requeued=(entry(1, symbol="B"), entry(2, symbol=""))), max_tries=1, in_flight=5
    )
    made.offer([entry(3, symbol="B"), entry(4, symbol="BA"), entry(5, symbol="B", to="risk")], 0)
    assert taken(made, 0, limit=3) == [(1, 1), (2, 1), (3, 1)]
    assert made.expired(S) == {1: 1, 2: 1, 3: 1}
    made.change(Consumer("risk", "all", ("*",), 0, 0, ("A*",)))
    assert made.expired(S) == {2: 1}
    made.parked([1, 3])  # which the log has parked before: they are settled already
    assert made.statistics().parked == 0
    assert (taken(made, 1), made.floor) == ([(5, 1)], 4)
    made.acknowledged([2, 3])
    assert made.statistics().unacknowledged == 1


def test_a_new_life_goes_on_where_the_log_says():
    progress = Progress(3, frozenset({5, 7}), (entry(1), entry(2)), {4: 3, 1: 2})
    made = delivery(progress, max_tries=4)
    made.offer([entry(position) for position in range(4, 9)], 0)
    assert made.statistics().unacknowledged == 2
    assert taken(made, 0) == [(1, 3), (2, 1), (4, 4), (6, 1), (8, 1)]
    assert made.floor == 3
    made.acknowledged([4, 1, 2])
    assert made.floor == 5


def test_a_new_life_parks_only_after_the_whole_last_delay():
    made = delivery(Progress(0, tries={1: 3}), max_tries=3)
    made.offer([entry(1)], 10 * S)
    assert (taken(made, 10), made.expired(13 * S)) == ([], {})
    assert made.expired(14 * S) == {1: 3}


def test_requeued_dead_letters_wait_for_room():
    made = delivery(in_flight=2)
    made.offer([entry(1), entry(2)], 0)
    made.acknowledged([1, 2])
    assert made.floor == 2
    made.offer([entry(3)], 0)
    made.requeued([entry(2), entry(1)], 0)
    assert (made.room(), made.floor) == (0, 2)
    assert taken(made, 0) == [(1, 1), (3, 1)]
    made.acknowledged([1])
    assert taken(made, 0) == [(2, 1)]


def test_a_dead_letter_that_is_requeued_before_it_is_read_is_delivered():
    made = delivery(Progress(0, frozenset({1})))
    made.requeued([entry(1)], 0)
    made.offer([entry(1)], 0)
    assert taken(made, 0) == [(1, 1)]


def test_an_alert_that_is_requeued_before_parking_is_told_is_not_lost():
    made = delivery(max_tries=1)
    made.offer([entry(1)], 0)
    taken(made, 0)
    assert made.expired(S) == {1: 1}
    made.requeued([entry(1)], S)
    made.parked([1])
    assert taken(made, 1) == [(1, 1)]


def test_an_acknowledgement_that_arrives_before_the_entry_is_read_counts():
    made = delivery()
    made.acknowledged([1])
    made.offer([entry(1), entry(2)], 0)
    assert taken(made, 0) == [(2, 1)]


@pytest.mark.parametrize("step_ns", [2 * HOUR_NS, -2 * HOUR_NS])
def test_a_step_of_the_wall_clock_changes_nothing(step_ns):
    """Times in entries are wall times and step; ``now_ns`` is monotonic and does not."""

    def seen(step_ns):
        made = delivery(max_tries=3)
        made.offer([entry(n, at_ns=10 * HOUR_NS) for n in range(1, 50)], 0)
        first = taken(made, 0)
        made.offer([entry(n, at_ns=10 * HOUR_NS + step_ns) for n in range(50, 100)], 0)
        return first, [(taken(made, now_s), made.expired(now_s * S)) for now_s in range(12)]

    assert seen(step_ns) == seen(0)


def test_a_long_interruption_causes_one_delivery_each_and_parks_nothing_early():
    """The event loop did not run for two hours, as in a suspended machine."""
    made = delivery(max_tries=3)
    made.offer([entry(n) for n in range(1, 100)], 0)
    taken(made, 0)
    assert taken(made, 7200) == [(n, 2) for n in range(1, 100)]
    assert taken(made, 7200) == []
    assert made.expired(7200 * S) == {}


def test_due_has_the_entry():
    made = delivery()
    made.offer([entry(1)], 0)
    assert made.take("s", 0, 1) == [Due(entry(1), 1)]
