"""Subjects of messages between nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.clustering.subjects import Address, Subjects, Topic

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
HERE = Subjects("main", "s0", "a")


@given(NAMES, st.sampled_from([Topic.REQUEST, Topic.SYNC, Topic.REPAIR, Topic.STATE]), st.integers(0, 10**12))
def test_a_subject_says_what_it_carries_from_whom_and_its_number(source, topic, number):
    subject = Subjects("main", "s0", source).to(topic, "a", number)
    assert HERE.parsed(subject) == Address(topic, source, number)
    assert any(subject.startswith(own.removesuffix(">")) for own in HERE.received)


def test_frames_and_statuses():
    assert HERE.frames == "mf.main.s0.t"
    assert HERE.parsed(HERE.frames) == Address(Topic.FRAME)
    assert HERE.parsed("mf.main.n.b") == Address(Topic.STATUS, "b")


@pytest.mark.parametrize(
    "rest", ["", "s0.x", "s0.r.a.b", "s0.r.a.b.-1", "s0.r.a.b.x", "s0.a.a.x.b.1", "n", "s0.sync.a.b.٣"]
)
def test_other_subjects_say_nothing(rest):
    assert HERE.parsed(f"mf.main.{rest}") is None
