"""Delivery at random, with restarts, against a model: sets of what was appended, acknowledged and parked."""

from __future__ import annotations

import os
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marketfeed.alerts.alert import Alert
from marketfeed.alerts.delivery import Delivery, DeliveryLimits
from marketfeed.alerts.log import FORMER, Consumer, Entry, Former, Progress
from marketfeed.core.units import MS, S

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
LIMITS = DeliveryLimits(max_tries=3, in_flight=4)
SESSIONS = ("s", "t", "u")
PATTERNS: tuple[tuple[str, ...], ...] = (("mi*",), ("other",), ("*",))
WANTED: dict[tuple[str, ...], set[str]] = dict(
    zip(PATTERNS, ({"mine"}, {"other"}, {"mine", "other"}), strict=True)
)
KINDS = ("mine", "mine", "mine", "other", "silenced", "directed", "elsewhere")


class DeliveryModel(RuleBasedStateMachine):
    """The log of the model is durable at once, but for floors and tries, of which a restart loses some."""

    def __init__(self):
        super().__init__()
        self.random = random.Random(0)
        self.log = []
        self.wanted = set()
        self.acked, self.dead, self.requeued = set(), set(), set()
        self.floor, self.tries = 0, {}  # as kept
        self.patterns: tuple[str, ...] = PATTERNS[0]  # as kept
        self.former: tuple[Former, ...] = ()
        self.now_ns = 0
        self.last = {}  # position: (tries, taken at, session), of this life
        self.handed = set()  # may come before its delay is over
        self.first = 0  # highest position that was delivered for the first time in this life
        self.start()

    def start(self):
        self.consumer = Consumer("risk", "all", self.patterns, 0, self.floor, former=self.former)
        settled = frozenset(p for p in self.acked | self.dead if p > self.floor)
        requeued = tuple(self.log[p - 1] for p in sorted(self.requeued) if p <= self.floor)
        progress = Progress(self.floor, settled, requeued, dict(self.tries))
        self.delivery = Delivery(self.consumer, progress, LIMITS, self.random.uniform)
        self.sessions = set()
        self.last, self.first = {}, 0
        self.handed = set()

    @property
    def unsettled(self):
        return self.wanted - self.acked - self.dead

    @rule(
        kinds=st.lists(st.sampled_from(KINDS), max_size=6),
        symbols=st.lists(st.sampled_from("ABC"), min_size=6, max_size=6),
    )
    def append(self, kinds, symbols):
        for kind, symbol in zip(kinds, symbols, strict=False):
            position = len(self.log) + 1
            to = {"directed": "risk", "elsewhere": "x"}.get(kind)
            name = "mine" if kind in ("silenced", "elsewhere") else kind
            alert = Alert(id=str(position), key="", rule=name, symbol=symbol, to=to)
            self.log.append(Entry(position, alert, 0, "silenced" if kind == "silenced" else None))
            if kind in WANTED[self.patterns] | {"directed"}:
                self.wanted.add(position)

    @precondition(lambda self: len(self.former) < FORMER)
    @rule(patterns=st.sampled_from(PATTERNS))
    def change(self, patterns):
        """The log keeps up to where the former patterns decide."""
        kept = Consumer("risk", "all", self.patterns, 0, self.floor, former=self.former)
        self.former = kept.former_once(patterns, len(self.log))
        self.patterns = patterns
        self.delivery.change(Consumer("risk", "all", patterns, 0, self.floor, former=self.former))

    @rule()
    def read(self):
        room = self.delivery.room()
        self.delivery.offer(self.log[self.delivery.position :][:room], self.now_ns)

    @rule(session=st.sampled_from(SESSIONS))
    def join(self, session):
        self.delivery.join(session)
        self.sessions.add(session)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def leave(self, data):
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        self.sessions.discard(session)
        self.delivery.leave(session)
        had = {p for p, (_, _, who) in self.last.items() if who == session} & self.unsettled
        self.handed |= had
        if self.sessions:  # at once, within the others' shares
            given = {p for p, _ in self.take_all()}
            left = {p for p in had if self.last[p][0] < LIMITS.max_tries} - given
            assert not left or all(self.full(other) for other in self.sessions)

    def full(self, session):
        share = -(-LIMITS.in_flight // len(self.sessions))
        return len(self.delivery._sessions[session]) >= share

    @precondition(lambda self: self.sessions)
    @rule()
    def take(self):
        self.take_all()

    def take_all(self):
        return [pair for session in sorted(self.sessions) for pair in self.take_by(session, 10)]

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), limit=st.integers(1, 4))
    def take_some(self, data, limit):
        assert len(self.take_by(data.draw(st.sampled_from(sorted(self.sessions))), limit)) <= limit

    def take_by(self, session, limit):
        taken = [(due.entry.position, due.tries) for due in self.delivery.take(session, self.now_ns, limit)]
        assert [p for p, _ in taken] == sorted(p for p, _ in taken)
        for position, tries in taken:
            assert position in self.unsettled
            assert tries <= LIMITS.max_tries
            if position in self.last:
                before, at_ns, _ = self.last[position]
                assert tries == before + 1
                delay_ns = self.now_ns - at_ns
                assert position in self.handed or delay_ns >= 0.8 * 2 ** (before - 1) * S
            elif tries == 1 and position not in self.requeued:
                assert position > self.first  # so it is in order for each symbol
                self.first = position
            self.last[position] = (tries, self.now_ns, session)
            self.tries[position] = tries
            self.handed.discard(position)
        share = -(-LIMITS.in_flight // len(self.sessions))
        assert not taken or len(self.delivery._sessions[session]) <= share
        return taken

    @rule(data=st.data())
    def acknowledge(self, data):
        some = st.integers(1, len(self.log) + 1)
        drawn = data.draw(
            st.sets(st.sampled_from(sorted(self.last)) | some if self.last else some, max_size=4)
        )
        settled = sorted(drawn & (self.unsettled | self.dead))  # as the log answers
        self.dead -= set(settled)
        self.requeued -= set(settled)
        self.acked |= set(settled)
        self.delivery.acknowledged(settled)

    @rule(ms=st.sampled_from((1, 900, 1300, 2500, 70_000, 7_200_000)))
    def wait(self, ms):
        self.now_ns += ms * MS

    @precondition(lambda self: self.sessions)
    @rule()
    def give_up(self):
        """Nobody acknowledges for so long that everything held is parked."""
        for _ in range(LIMITS.max_tries):
            self.take_all()
            self.now_ns += 100 * S
        self.park()

    @rule()
    def park(self):
        expired = self.delivery.expired(self.now_ns)
        for position, tries in expired.items():
            assert position in self.unsettled
            assert tries == LIMITS.max_tries
            if position in self.last:
                assert self.now_ns - self.last[position][1] >= 0.8 * 4 * S
        self.dead |= expired.keys()
        self.requeued -= expired.keys()
        self.delivery.parked(expired)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def requeue(self, data):
        drawn = data.draw(st.sets(st.sampled_from(sorted(self.dead)), min_size=1))
        self.dead -= drawn
        self.requeued |= drawn
        for position in drawn:
            self.last.pop(position, None)
            self.tries.pop(position, None)
        self.delivery.requeued([self.log[p - 1] for p in sorted(drawn)], self.now_ns)

    @rule()
    def keep_floor(self):
        self.floor = self.delivery.floor

    @rule(data=st.data())
    def restart(self, data):
        for position in data.draw(st.sets(st.sampled_from(sorted(self.tries) or [0]))):
            self.tries[position] = self.tries.get(position, 1) - 1
        self.tries = {p: n for p, n in self.tries.items() if n and p in self.unsettled}
        self.start()

    @invariant()
    def bounds_hold(self):
        statistics = self.delivery.statistics()
        assert statistics.unacknowledged <= LIMITS.in_flight
        assert (statistics.state == "stalled") == (statistics.unacknowledged == LIMITS.in_flight)
        held = self.delivery._held
        assert len(held) <= LIMITS.in_flight
        assert held.keys() <= self.unsettled
        assert statistics.unacknowledged == sum(one.tries > 0 for one in held.values())

    @invariant()
    def the_floor_is_below_what_is_unsettled(self):
        floor = self.delivery.floor
        assert floor <= self.delivery.position <= len(self.log)
        assert not {p for p in self.unsettled - self.requeued if p <= floor}

    def teardown(self):
        """Whatever happened, all that is unsettled comes when somebody acknowledges it."""
        self.join("s")
        for _ in range(3 * len(self.log) + 3):
            self.read()
            taken = [p for p, _ in self.take_all()]
            self.acked |= set(taken)
            self.delivery.acknowledged(taken)
            self.requeued -= self.acked
            self.now_ns += 100 * S
            self.park()
        assert not self.unsettled
        assert self.delivery.position == len(self.log)
        assert self.delivery.floor == len(self.log)


TestDelivery = DeliveryModel.TestCase
TestDelivery.settings = settings(max_examples=1000 if PROVE else 60, stateful_step_count=50, deadline=None)
