"""The escalator on a virtual clock, over a log in memory: what is sent when, and what survives."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from marketfeed.alerts.escalation import lane
from marketfeed.alerts.escalation.message import Outcome, Verdict
from marketfeed.alerts.escalator import PAGE
from tests.support.escalating import DELIVERED, FAILED, Log, Peer, escalating, escalation, silence, wall_ns
from tests.support.escalations import raised


async def test_an_episode_that_lasts_is_sent_after_its_time_and_its_end_follows(autojump_clock):
    peer = Peer()
    async with escalating(Log(), escalation(peer)) as bench:
        alert = await bench.raise_one()
        await trio.sleep(30)
        assert peer.sent == []
        await trio.sleep(60)
        assert peer.sent == [(62.0, "raised", "AAPL")]
        await bench.clear(alert)
        await trio.sleep(1)
        assert [cause for _, cause, _ in peer.sent] == ["raised", "cleared"]
        assert {message.alert.key for message in peer.messages} == {alert.key}
        assert bench.escalator.lanes["desk"].figures.delivered == 2
        assert bench.escalator.lanes["desk"].schedule.pending() == []
    assert bench.log.kept == {}


async def test_what_ends_or_is_resolved_in_time_is_not_sent(autojump_clock):
    peer = Peer()
    async with escalating(Log(), escalation(peer)) as bench:
        await bench.clear(await bench.raise_one("A"))
        bench.resolve(await bench.raise_one("B"))
        await trio.sleep(300)
        assert peer.sent == []
        assert bench.escalator.lanes["desk"].figures.cancelled == 2


async def test_what_a_person_resolves_after_it_was_sent_is_told_with_the_person(autojump_clock):
    peer = Peer()
    async with escalating(Log(), escalation(peer)) as bench:
        alert = await bench.raise_one()
        await trio.sleep(61)
        bench.resolve(alert, "bob")
        await trio.sleep(1)
        end = peer.messages[-1].end
        assert end is not None
        assert (end.cause, end.by, end.comment) == ("resolved", "bob", "mine")
        await bench.clear(alert)
        await trio.sleep(300)
        assert len(peer.messages) == 2  # the incident was ended once


@pytest.mark.parametrize("mark", ["silenced", "inhibited"])
async def test_what_is_not_delivered_is_not_escalated(autojump_clock, mark):
    peer = Peer()
    async with escalating(Log(), escalation(peer)) as bench:
        await bench.raise_one(mark=mark)
        await trio.sleep(300)
        assert peer.sent == []


async def test_a_silence_postpones_open_episodes_until_it_ends(autojump_clock):
    peer = Peer()
    log = Log()
    async with escalating(log, escalation(peer)) as bench:
        await bench.raise_one()
        bench.escalator.silenced(silence(ends_s=500, starts_s=1))
        await trio.sleep(400)
        assert peer.sent == []
        await trio.sleep(200)
        assert peer.sent == [(500.0, "raised", "AAPL")]


async def test_a_silence_that_is_ended_postpones_no_longer(autojump_clock):
    peer = Peer()
    log = Log()
    log.silenced = [silence(ends_s=5000)]
    async with escalating(log, escalation(peer)) as bench:
        await bench.raise_one()  # the mark is the dispatcher's: this one was raised just before
        await trio.sleep(98)
        assert peer.sent == []
        bench.escalator.unsilenced(log.silenced[0])
        await trio.sleep(1)
        assert peer.sent == [(100.0, "raised", "AAPL")]


async def test_the_next_engine_goes_on_where_one_was_killed(autojump_clock):
    log, first, second = Log(), Peer(), Peer()
    first.open = trio.Event()  # the peer never answers
    async with escalating(log, escalation(first)) as bench:
        alert = await bench.raise_one("A")
        late = await bench.raise_one("B")
        bench.resolve(late)
        await trio.sleep(61)
        assert first.under_way == 1
        (kept,) = log.kept.values()
        assert (kept.phase, kept.alert.key) == ("sending", alert.key)  # in the log before it was sent
    # Nothing of it was recorded as sent, and "A" cleared while no engine ran.
    log.known[alert.key] = msgspec.structs.replace(log.known[alert.key], cleared_ns=wall_ns())
    async with escalating(log, escalation(second)):
        await trio.sleep(5)
    # What may have arrived is not left without its end.
    assert [(cause, symbol) for _, cause, symbol in second.sent] == [("cleared", "A")]
    assert log.kept == {}


async def test_an_episode_that_waits_goes_on_waiting_after_a_restart(autojump_clock):
    log, peer = Log(), Peer()
    async with escalating(log, escalation(peer)) as bench:
        await bench.raise_one()
        await trio.sleep(20)
    await trio.sleep(10)
    async with escalating(log, escalation(peer)):
        await trio.sleep(60)
    assert peer.sent == [(62.0, "raised", "AAPL")]


async def test_the_first_start_escalates_nothing_that_is_in_the_log_already(autojump_clock):
    log, peer = Log(), Peer()
    await log.append([raised()])
    async with escalating(log, escalation(peer, after_s=0)) as bench:
        await trio.sleep(10)
        assert peer.sent == []
        await bench.raise_one("B")
        await trio.sleep(10)
        assert [symbol for _, _, symbol in peer.sent] == ["B"]


async def test_a_peer_that_wants_no_messages_is_switched_off_until_the_next_reload(autojump_clock):
    peer, again = Peer(Outcome(Verdict.GONE, "HTTP status 410")), Peer()
    async with escalating(Log(), escalation(peer, after_s=0)) as bench:
        await bench.raise_one("A")
        await trio.sleep(5)
        await bench.raise_one("B")
        await trio.sleep(5)
        assert len(peer.sent) == 1
        told = [entry.alert for entry in bench.log.entries if entry.alert.rule == "escalation"]
        assert [(one.state, one.severity) for one in told] == [("raised", "critical")]
        assert "desk" in told[0].message
        assert "410" in told[0].message
        trouble = bench.escalator.lanes["desk"].trouble()
        assert trouble is not None
        assert trouble.startswith("is off until the configuration is read again")
        bench.escalator.reload([escalation(again, after_s=0)])
        await bench.raise_one("C")
        await trio.sleep(5)
        assert [symbol for _, _, symbol in again.sent] == ["C"]
        told = [entry.alert for entry in bench.log.entries if entry.alert.rule == "escalation"]
        assert [one.state for one in told] == ["raised", "cleared"]
        assert told[0].key == told[1].key
        assert bench.escalator.lanes["desk"].trouble() is None


async def test_tables_come_and_go_with_a_reload(autojump_clock):
    stays, goes, comes = Peer(), Peer(), Peer()
    log = Log()
    async with escalating(log, escalation(stays), escalation(goes, "other")) as bench:
        await bench.raise_one("A")
        await trio.sleep(1)
        bench.escalator.reload([escalation(stays, after_s=60), escalation(comes, "new")])
        await trio.sleep(1)
        await bench.raise_one("B")
        await trio.sleep(100)
        assert [symbol for _, _, symbol in stays.sent] == ["A", "B"]
        assert goes.sent == []
        assert [symbol for _, _, symbol in comes.sent] == ["B"]
        assert {name for name, _ in log.kept} == {"desk", "new"}
        bench.escalator.reload([])
        await bench.raise_one("C")
        await trio.sleep(100)
        assert bench.escalator.lanes == {}
    assert (log.kept, log.position) == ({}, None)


async def test_the_first_table_may_come_with_a_reload(autojump_clock):
    log, peer = Log(), Peer()
    async with escalating(log) as bench:
        await bench.raise_one("A")
        bench.escalator.reload([escalation(peer, after_s=0)])
        await trio.sleep(1)
        await bench.raise_one("B")
        await trio.sleep(1)
        assert [symbol for _, _, symbol in peer.sent] == ["B"]


async def test_a_peer_that_hangs_delays_no_other(autojump_clock):
    hangs, works = Peer(), Peer()
    hangs.open = trio.Event()
    async with escalating(Log(), escalation(hangs), escalation(works, "other")) as bench:
        for number in range(10):
            await bench.raise_one(f"S{number}")
        await trio.sleep(61)
        assert len(works.sent) == 10
        assert (hangs.sent, hangs.under_way, hangs.most) == ([], lane.AT_ONCE, lane.AT_ONCE)
        await trio.sleep(lane.SEND_S)
        trouble = bench.escalator.lanes["desk"].trouble()
        assert trouble == f"fails: no outcome within {lane.SEND_S:g} s"


@pytest.mark.parametrize(
    ("outcome", "trouble"),
    [
        (FAILED, "fails: HTTP status 500"),
        (ValueError("token=secret"), "fails: the sender raised ValueError"),
        ("fine", "fails: the sender returned a str"),
    ],
)
async def test_a_message_that_fails_is_sent_again_with_growing_delays(autojump_clock, outcome, trouble):
    peer = Peer(outcome, outcome, outcome, DELIVERED)
    async with escalating(Log(), escalation(peer, after_s=0)) as bench:
        await bench.raise_one()
        await trio.sleep(3)
        desk = bench.escalator.lanes["desk"]
        assert desk.trouble() == trouble
        await trio.sleep(100)
        first, second, third, fourth = peer.at_s
        assert 4 <= second - first <= 6 < 8 <= third - second <= 12 < 16 <= fourth - third <= 24
        assert desk.trouble() is None
        assert (desk.figures.failed, desk.figures.delivered) == (3, 1)
        assert len({message.id for message in peer.messages}) == 1


async def test_while_the_log_cannot_be_written_nothing_is_sent(autojump_clock):
    log, peer = Log(), Peer()
    async with escalating(log, escalation(peer)) as bench:
        await bench.raise_one()
        log.broken = {"keep"}
        await trio.sleep(300)
        assert peer.sent == []
        assert bench.escalator.problem == "keep: no room"
        log.broken = set()
        await trio.sleep(3)
        assert len(peer.sent) == 1
        assert bench.escalator.problem is None


async def test_what_came_while_the_log_could_not_be_read_is_sent_later(autojump_clock):
    log, peer = Log(), Peer()
    async with escalating(log, escalation(peer)) as bench:
        log.broken = {"read"}
        alert = await bench.raise_one("A")
        await bench.raise_one("B")
        bench.resolve(alert)
        await trio.sleep(10)
        assert bench.escalator.problem == "read: no room"
        log.broken = set()
        await trio.sleep(100)
        assert peer.sent == [(62.0, "raised", "B")]
        assert bench.escalator.problem is None


async def test_its_own_alert_is_appended_as_soon_as_the_log_can_be_written(autojump_clock):
    log = Log()
    async with escalating(log, escalation(Peer(Outcome(Verdict.GONE, "410")), after_s=0)) as bench:
        await bench.raise_one()
        log.broken = {"append"}
        await trio.sleep(10)
        assert bench.escalator.problem == "append: no room"
        log.broken = set()
        await trio.sleep(10)
        assert [entry.alert.rule for entry in log.entries] == ["wide", "escalation"]


async def test_episodes_beyond_one_read_are_escalated_once_each(autojump_clock):
    log, peer = Log(), Peer()
    peer.batch = 50
    async with escalating(log, escalation(peer, after_s=1)) as bench:
        await bench.append([raised(f"S{number}", at_ns=wall_ns()) for number in range(PAGE + 7)])
        await trio.sleep(60)
        assert len({symbol for _, _, symbol in peer.sent}) == len(peer.sent) == PAGE + 7
        assert bench.escalator.lanes["desk"].figures.delivered == PAGE + 7
