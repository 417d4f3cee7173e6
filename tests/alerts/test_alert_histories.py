"""The check of the storm of kills finds what it is for, in histories made up for that."""

from __future__ import annotations

import msgspec
import pytest

from marketfeed.alerts.log import Entry
from marketfeed.testing_alert_log import example
from tests.support.alert_histories import Answered, Event, History, Seen, Watched, check, read, redeliveries

RAISED, CLEARED = example(1), example(1, state="cleared")
NOTICE = example(2, rule="notice", state="notice", key="order-1", to="streamed")
LOG = [Entry(position, alert, 0) for position, alert in enumerate([RAISED, CLEARED, NOTICE], 1)]
NOTICES = {"order-1": NOTICE.id}
POLLED: list[Event] = [
    Seen(RAISED.id, 0),
    Answered(RAISED.id),
    Seen(CLEARED.id, 2),
    Seen(CLEARED.id, 3),  # not acknowledged the first time
    Answered(CLEARED.id),
]
STREAMED: list[Event] = [Seen(NOTICE.id, 0, 7), Answered(NOTICE.id, 7)]


def problems(log=LOG, polled=POLLED, streamed=STREAMED, notices=NOTICES, in_order=True):
    consumers = {"polled": Watched(["wi*"], polled, in_order), "streamed": Watched(["other"], streamed)}
    return check(log, consumers, notices)


def test_a_history_as_promised_has_no_problems():
    assert problems() == []
    assert redeliveries(POLLED) == 1


def test_an_alert_that_was_not_delivered_is_lost():
    assert problems(polled=POLLED[2:]) == [f"polled: {RAISED.id} was lost"]
    assert problems(streamed=[]) == [f"streamed: {NOTICE.id} was lost"]
    assert len(problems(polled=[])) == 2


@pytest.mark.parametrize(
    "again",
    [
        Seen(RAISED.id, len(POLLED)),  # a later poll
        Seen(RAISED.id, 2),  # the answer was known when this was sent
    ],
)
def test_an_alert_that_comes_after_its_answered_acknowledgement_is_found(again):
    expected = [f"polled: {RAISED.id} came again after its acknowledgement was answered"]
    assert problems(polled=[*POLLED, again]) == expected


def test_on_one_connection_nothing_comes_after_the_answer_to_its_acknowledgement():
    expected = [f"streamed: {NOTICE.id} came again after its acknowledgement was answered"]
    assert problems(streamed=[*STREAMED, Seen(NOTICE.id, 0, 7)]) == expected
    # To another session it may have been sent before.
    assert problems(streamed=[*STREAMED, Seen(NOTICE.id, 0, 8)]) == []
    assert problems(streamed=[*STREAMED, Seen(NOTICE.id, 2, 8)]) == expected
    assert problems(streamed=[Seen(NOTICE.id, 0), Answered(NOTICE.id), Seen(NOTICE.id, 1)]) == []


def test_an_id_that_is_not_in_the_log_and_an_alert_for_somebody_else_are_found():
    assert problems(polled=[*POLLED, Seen("?", 5)], in_order=False) == ["polled: ? is not in the log"]
    assert problems(streamed=[*STREAMED, Seen(RAISED.id, 2)]) == [f"streamed: {RAISED.id} is not for it"]
    hidden = [*LOG, Entry(4, example(3), 0, "silenced")]
    assert problems(hidden) == []
    assert problems(hidden, [*POLLED, Seen(example(3).id, 5)], in_order=False) == [
        f"polled: {example(3).id} is not for it"
    ]


def test_first_deliveries_in_another_order_than_the_log_are_found():
    expected = ["polled: first deliveries are not in the order of the log"]
    assert problems(polled=[Seen(CLEARED.id, 0), *POLLED]) == expected
    assert problems(polled=[Seen(CLEARED.id, 0), *POLLED], in_order=False) == []


def with_copy(alert, **fields):
    return [*LOG, Entry(4, msgspec.structs.replace(alert, **fields), 0)]


def test_a_cause_and_an_id_that_the_log_has_twice_are_found():
    twice = problems(with_copy(NOTICE))
    assert twice == [
        f"{NOTICE.id} is in the log 2 times",
        "the cause ('notice', 'order-1') is in the log 2 times",
    ]
    found = problems(with_copy(RAISED, id="again", key="again"), [*POLLED, Seen("again", 0)])
    assert found == [f"the cause ('wide', 'AAPL', 'raised', {RAISED.t_ns}) is in the log 2 times"]


def test_episodes_that_do_not_alternate_are_found():
    unended = [LOG[0], Entry(2, example(4), 0)]
    seen = [Seen(RAISED.id, 0), Seen(example(4).id, 0)]
    (problem,) = check(unended, {"polled": Watched(["*"], seen)}, {})
    assert problem.startswith(f"{example(4).id} is raised within the episode {RAISED.id}")
    ended_twice = with_copy(example(5, state="cleared"), key=RAISED.id)
    (problem,) = problems(ended_twice, [*POLLED, Seen(example(5, state="cleared").id, 5)])
    assert problem.startswith(f"{example(5, state='cleared').id} clears {RAISED.id}, but None")


def test_a_notice_that_was_answered_and_is_not_kept_is_found_and_so_is_one_with_another_id():
    assert problems(notices={**NOTICES, "order-2": "?"}) == [
        "the notice order-2 was answered as ?; the log has None"
    ]
    assert problems(notices={"order-1": "?"}) == [
        f"the notice order-1 was answered as ?; the log has {NOTICE.id}"
    ]


def test_positions_with_holes_are_found():
    assert problems([*LOG, Entry(5, example(3, rule="x"), 0)]) == ["positions have holes"]


def test_a_history_in_a_file_goes_on_in_another_process(tmp_path):
    path = tmp_path / "history"
    first = History(path)
    first.add(POLLED[:2])
    with path.open("a") as file:
        file.write('["Seen", "01')  # killed while it wrote
    assert read(path) == POLLED[:2]
    second = History(path)
    assert (second.now(), second.ids) == (2, {RAISED.id})
    second.add(POLLED[2:])
    first.close()
    second.close()
    assert read(path) == POLLED
