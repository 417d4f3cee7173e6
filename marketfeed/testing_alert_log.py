"""Checks that every alert log has to pass; users import them from marketfeed.testing.

    async def test_my_log():
        await check_alert_log(lambda name: open_my_log(name))

A failed check raises an AssertionError that begins with the number of the check:

 1. Entries have the positions 1, 2, 3 …, and an id is kept once, as is a key of notices of one publisher.
 2. Reading from a position, or back from one, returns entries in order, at most as many as asked for.
 3. What was appended is there, equal, when the log is opened again.
 4. Marks are kept; a cleared has none if an entry of its episode has none.
 5. Episodes begin with raised and end with one cleared; the first person to resolve one stays.
 6. The first use of a consumer creates it, from now or with all; later ones change what it gets.
 7. An acknowledgement settles what is this consumer's, once, and is there when the log is opened again.
 8. Attempts and floors are there after the next change that was waited for.
 9. Dead letters are listed, can be acknowledged, and are unsettled again when they are requeued.
10. A dropped consumer leaves nothing behind.
11. Silences are kept, replaced and expired; of those that have ended, the newest EXPIRED are kept.
12. Acknowledgements, parks, requeues, resolves, drops and silences are in the audit trail.
13. Pruning removes what nobody needs, and nothing else.
14. What is about other symbols is not a consumer's: not acknowledged, not requeued, not kept for it.
15. Other patterns decide about what is appended from then on; what was a consumer's before stays its.

The file is longer than 300 lines because it holds one function per check.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.alerts.log import EXPIRED, Progress, Retention, Silence
from marketfeed.core.units import DAY_NS
from marketfeed.testing_alert_consumers import entitling, patterns_by_position
from marketfeed.testing_alert_examples import NOW_NS, example, pruned, same

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from marketfeed.alerts.log import AlertLog

    _Open = Callable[[], AbstractAsyncContextManager[AlertLog]]

__all__ = ["NOW_NS", "check_alert_log", "example"]


async def check_alert_log(opened: Callable[[str], AbstractAsyncContextManager[AlertLog]]) -> None:
    """Run the numbered checks in this module's docstring.

    ``opened(name)`` opens a log: an empty one for a new name, the same one for a name that was used before.
    Raises AssertionError.
    """
    for number, check in enumerate(_CHECKS, 1):
        try:
            await check(partial(opened, f"check-{number}"))
        except AssertionError as failure:
            raise AssertionError(
                f"check {number}, {(check.__doc__ or '').rstrip('.')}: {failure}"
            ) from failure


async def _positions(opened: _Open) -> None:
    """Positions count up, and an id is kept once."""
    one, two, three = map(example, (1, 2, 3))
    async with opened() as log:
        same(await log.head(), 0)
        same(await log.append([], NOW_NS), [])
        found = await log.append([one, two, one], NOW_NS)
        same(
            [(a.id, a.position, a.new) for a in found],
            [(one.id, 1, True), (two.id, 2, True), (one.id, 1, False)],
        )
    async with opened() as log:
        found = await log.append([two, three], NOW_NS + 1)
        same([(a.position, a.new) for a in found], [(2, False), (3, True)])
        same(await log.head(), 3)
        notice = example(4, state="notice", key="order-17")
        repeated = example(5, state="notice", key="order-17")
        found = await log.append([notice, repeated], NOW_NS + 2)
        same([(a.id, a.position, a.new) for a in found], [(notice.id, 4, True), (notice.id, 4, False)])
        others = [example(n, state="notice", key="order-17", publisher="ann") for n in (6, 7)]
        found = await log.append([*others, repeated], NOW_NS + 3)
        same([(a.id, a.position, a.new) for a in found],
              [(others[0].id, 5, True), (others[0].id, 5, False), (notice.id, 4, False)])  # fmt: skip


async def _reading(opened: _Open) -> None:
    """Reading from a position is in order and bounded."""
    alerts = [example(number) for number in range(5)]
    async with opened() as log:
        await log.append(alerts, NOW_NS)
        same([entry.position for entry in await log.read(0, 3)], [1, 2, 3])
        same([entry.alert for entry in await log.read(3, 10)], alerts[3:])
        same(await log.read(5, 10), [])
        same([entry.position for entry in await log.read_back(None, 3)], [5, 4, 3])
        same([entry.alert for entry in await log.read_back(3, 10)], [alerts[1], alerts[0]])
        same((await log.read_back(1, 10), await log.read_back(None, 0)), ([], []))
        same(len(await log.read_back(2**70, 10)), 5)
        found = await log.find(alerts[1].id)
        same(found and (found.position, found.alert), (2, alerts[1]))
        same(await log.find("unknown"), None)


async def _durable(opened: _Open) -> None:
    """Entries are there when the log is opened again."""
    alerts = [
        example(1, data={"order": [1, None, "ü"]}, state="notice", to="risk-1", publisher="é"),
        example(2, symbol="", value=None, threshold=None, severity="critical", suppressed=3, r_ns=7),
    ]
    async with opened() as log:
        await log.append(alerts, NOW_NS)
    async with opened() as log:
        found = await log.read(0, 10)
        same([(entry.position, entry.alert, entry.at_ns) for entry in found],
              [(1, alerts[0], NOW_NS), (2, alerts[1], NOW_NS)])  # fmt: skip


async def _marks(opened: _Open) -> None:
    """Marks are kept, except that of a cleared whose episode was shown."""
    shown, hidden = [[example(n), example(n, state="cleared")] for n in (1, 2)]
    async with opened() as log:
        await log.append(shown[:1], NOW_NS)
        await log.append(hidden[:1], NOW_NS, {hidden[0].id: "inhibited"})
        await log.append([shown[1], hidden[1]], NOW_NS, {shown[1].id: "silenced", hidden[1].id: "silenced"})
        same([entry.mark for entry in await log.read(0, 10)], [None, "inhibited", None, "silenced"])
        same([episode.shown for episode in await log.episodes()], [True, False])


async def _episodes(opened: _Open) -> None:
    """Episodes begin, end, and are resolved once."""
    raised, cleared = example(1), example(1, state="cleared")
    async with opened() as log:
        await log.append([raised, example(2, state="notice")], NOW_NS)
        (episode,) = await log.episodes(open_only=True)
        same((episode.key, episode.rule, episode.symbol, episode.raised_ns, episode.cleared_ns),
              (raised.key, "wide", "AAPL", NOW_NS, 0))  # fmt: skip
        await log.resolve(raised.key, "ann", "on it", NOW_NS + 1)
        again = await log.resolve(raised.key, "bob", "", NOW_NS + 2)
        same(again and (again.resolved_by, again.comment, again.resolved_ns), ("ann", "on it", NOW_NS + 1))
        same(await log.resolve("unknown", "bob", "", NOW_NS), None)
        same((await log.episode(raised.key), await log.episode("unknown")), (again, None))
    async with opened() as log:
        await log.append([cleared], NOW_NS + 3)
        same(await log.episodes(open_only=True), [])
        later = example(3, state="cleared", key=raised.key)
        (kept,) = await log.append([later], NOW_NS + 4)
        same((kept.id, kept.position, kept.new), (cleared.id, 3, False))
        found = [(e.cleared_ns, e.resolved_by, e.last_position) for e in await log.episodes()]
        same(found, [(NOW_NS + 3, "ann", 3)])


async def _consumers(opened: _Open) -> None:
    """The first use of a consumer creates it."""
    async with opened() as log:
        await log.append([example(1), example(2)], NOW_NS)
        same((await log.use_consumer("all", NOW_NS)).floor, 0)
        same((await log.use_consumer("now", NOW_NS, "now", ["a", "b*"])).floor, 2)
        await log.append([example(3)], NOW_NS)
        again = await log.use_consumer("now", NOW_NS + 1, "all", ["c"])
        same((again.start, again.floor, again.patterns, again.created_ns), ("now", 2, ("c",), NOW_NS))
        same(again.symbols, ("*",))
        symbols = ("AAPL", "BTC*")
        same((await log.use_consumer("now", NOW_NS + 1, "all", ["c"], symbols)).symbols, symbols)
        same((await log.use_consumer("none", NOW_NS, symbols=[])).symbols, ())
        for name, patterns in (("x" * 300, ["*"]), ("", ["*"]), ("a b", ["*"]), ("é", ["*"]), ("fine", [])):
            await _refused(log, name, patterns, ["*"])
        for symbol in ("A B", "", "*A", "X" * 300):
            await _refused(log, "fine", ["*"], ["AAPL", symbol])
    async with opened() as log:
        same([(consumer.name, consumer.symbols) for consumer in await log.consumers()],
              [("all", ("*",)), ("none", ()), ("now", symbols)])  # fmt: skip
        same(await log.progress("now"), Progress(2))
        same(await log.progress("unknown"), None)


async def _refused(log: AlertLog, name: str, patterns: list[str], symbols: list[str]) -> None:
    try:
        await log.use_consumer(name, NOW_NS, "all", patterns, symbols)
    except ValueError:
        return
    raise AssertionError(f"accepts the name {name!r} with the patterns {patterns} and symbols {symbols}")


async def _acknowledging(opened: _Open) -> None:
    """An acknowledgement settles once what is this consumer's."""
    mine, other, directed, hidden = example(1), example(2, "stale"), example(3, to="b"), example(4)
    async with opened() as log:
        await log.use_consumer("a", NOW_NS, "all", ["wi*"])
        await log.use_consumer("b", NOW_NS, "all", ["none"])
        await log.append([mine, other, directed, hidden], NOW_NS, {hidden.id: "silenced"})
        ids = [mine.id, other.id, directed.id, hidden.id, "unknown"]
        found = await log.acknowledge("a", ids, NOW_NS)
        same((found.ids, found.positions, found.unknown), ((mine.id,), (1,), tuple(ids[1:])))
        same((await log.acknowledge("b", ids, NOW_NS)).ids, (directed.id,))
        same((await log.acknowledge("c", ids, NOW_NS)).unknown, tuple(ids))
    async with opened() as log:
        same((await log.acknowledge("a", [mine.id], NOW_NS)).unknown, (mine.id,))
        same(await log.progress("a"), Progress(0, frozenset({1})))
        same(await log.progress("b"), Progress(0, frozenset({3})))


async def _attempts(opened: _Open) -> None:
    """Attempts and floors are there after the next change."""
    alerts = [example(number) for number in range(1, 6)]
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        await log.append(alerts, NOW_NS)
        await log.acknowledge("a", [alerts[0].id, alerts[3].id], NOW_NS)
        log.record_attempts("a", {1: 1, 2: 1, 3: 4})
        log.record_attempts("a", {2: 2})
        log.advance("a", 1)
        log.advance("unknown", 1)
        log.record_attempts("unknown", {1: 1})
        await log.append([example(6)], NOW_NS)
        same(await log.progress("a"), Progress(1, frozenset({4}), (), {2: 2, 3: 4}))
        log.advance("a", 0)
    async with opened() as log:
        log.advance("a", 2)
        await log.append([example(7)], NOW_NS)
        same(await log.progress("a"), Progress(2, frozenset({4}), (), {3: 4}))
        same((await log.acknowledge("a", [alerts[1].id], NOW_NS)).unknown, (alerts[1].id,))


async def _dead_letters(opened: _Open) -> None:
    """Dead letters are kept until they are acknowledged or requeued."""
    alerts = [example(number) for number in range(1, 5)]
    ids = [alert.id for alert in alerts]
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        await log.use_consumer("b", NOW_NS)
        await log.append(alerts, NOW_NS)
        await log.acknowledge("a", ids[:1], NOW_NS)
        same(await log.park("a", {1: 9, 2: 10, 3: 10, 4: 10, 5: 10}, NOW_NS + 5), [2, 3, 4])
        same(await log.park("b", {1: 10}, NOW_NS + 5), [1])
        same(await log.park("unknown", {1: 10}, NOW_NS + 5), [])
        same(await log.progress("a"), Progress(0, frozenset({1, 2, 3, 4})))
        log.advance("a", 4)
    async with opened() as log:
        dead = await log.dead_letters("a")
        same([(d.consumer, d.entry.position, d.tries, d.parked_ns) for d in dead],
              [("a", position, 10, NOW_NS + 5) for position in (2, 3, 4)])  # fmt: skip
        same([(d.consumer, d.entry.alert.id) for d in await log.dead_letters()],
              [("a", ids[1]), ("a", ids[2]), ("a", ids[3]), ("b", ids[0])])  # fmt: skip
        same([d.entry.position for d in await log.dead_letters(limit=2)], [2, 3])
        same(await log.dead_letter_counts(), {"a": 3, "b": 1})
        same((await log.acknowledge("a", ids[1:2], NOW_NS)).positions, (2,))
        requeued = await log.requeue("a", [*ids[:3], "unknown"], NOW_NS, "ann")
        same([entry.alert for entry in requeued], alerts[2:3])
        same(await log.progress("a"), Progress(4, frozenset(), tuple(requeued)))
        log.record_attempts("a", {3: 1})
        same((await log.acknowledge("a", ids[1:2], NOW_NS)).positions, ())
        same(await log.progress("a"), Progress(4, frozenset(), tuple(requeued), {3: 1}))
    async with opened() as log:
        same([d.entry.position for d in await log.dead_letters("a")], [4])
        same((await log.acknowledge("a", ids[2:3], NOW_NS)).positions, (3,))
        same(await log.progress("a"), Progress(4))


async def _dropping(opened: _Open) -> None:
    """A dropped consumer leaves nothing behind."""
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        await log.append([example(1), example(2)], NOW_NS)
        await log.park("a", {1: 1}, NOW_NS)
        same(await log.drop_consumer("a", NOW_NS, "ann"), True)
        same(await log.drop_consumer("a", NOW_NS), False)
        same(((await log.consumers()), await log.dead_letters()), ([], []))
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        same(await log.progress("a"), Progress(0))


async def _silences(opened: _Open) -> None:
    """Silences are kept, replaced and expired."""
    first = Silence(
        id="1", rules=("wi*",), symbols=("A*",), starts_ns=5, ends_ns=9, created_by="ann", comment=""
    )
    second = Silence(id="2", starts_ns=3, ends_ns=20, created_by="bob", comment="move")
    async with opened() as log:
        await log.add_silence(first, NOW_NS)
        await log.add_silence(second, NOW_NS)
        changed = Silence(id="1", starts_ns=5, ends_ns=11, created_by="ann", comment="longer")
        await log.add_silence(changed, NOW_NS)
    async with opened() as log:
        same(await log.silences(), [second, changed])
        same([await log.expire_silence(silence, 10, "ann") for silence in ("2", "1", "1", "3")],
              [True, True, False, False])  # fmt: skip
        same([silence.ends_ns for silence in await log.silences()], [10, 10])
        async with trio.open_nursery() as nursery:  # so that they share commits
            for n in range(EXPIRED):
                ended = Silence(id=f"e{n}", starts_ns=11, ends_ns=20 + n, created_by="ann", comment="")
                nursery.start_soon(log.add_silence, ended, 20 + EXPIRED)
        same(len(await log.silences()), EXPIRED)
        same({"1", "2"} & {silence.id for silence in await log.silences()}, set())


async def _auditing(opened: _Open) -> None:
    """Changes by consumers and people are in the audit trail."""
    one, two = example(1), example(2)
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        await log.append([one, two], NOW_NS)
        await log.acknowledge("a", [one.id, "unknown"], NOW_NS + 1)
        await log.acknowledge("a", [one.id], NOW_NS + 1)
        await log.park("a", {2: 3}, NOW_NS + 2)
        await log.requeue("a", [two.id], NOW_NS + 3, "ann")
        await log.resolve(one.key, "ann", "mine", NOW_NS + 4)
        await log.add_silence(
            Silence(id="1", starts_ns=1, ends_ns=9, created_by="bob", comment=""), NOW_NS + 5
        )
        await log.expire_silence("1", 6, "bob")
        await log.drop_consumer("a", NOW_NS + 7, "ann")
    async with opened() as log:
        found = await log.audit(0, 100)
        same([record.number for record in found], list(range(1, 8)))
        same([(record.action, record.subject, record.by) for record in found],
              [("acknowledged", "a", ""), ("parked", "a", ""), ("requeued", "a", "ann"),
               ("resolved", one.key, "ann"), ("silenced", "1", "bob"), ("expired", "1", "bob"),
               ("dropped", "a", "ann")])  # fmt: skip
        same([found[0].detail, found[2].detail, found[3].detail], [[one.id], [two.id], "mine"])
        same((await log.audit(2, 2)), found[2:4])


async def _pruning(opened: _Open) -> None:
    """Pruning removes what nobody needs, and nothing else."""
    rules = ["other", "mine", "mine", "mine", "mine", "open", "shut", "shut", *["other"] * 600]
    alerts = [example(n, rule, state="notice" if rule not in ("open", "shut") else "raised")
              for n, rule in enumerate(rules[:7])]  # fmt: skip
    alerts += [example(6, "shut", state="cleared")]
    alerts += [example(n, "other", state="notice") for n in range(8, len(rules))]
    async with opened() as log:
        await log.use_consumer("a", NOW_NS, "all", ["mine"])
        await log.use_consumer("b", NOW_NS, "all", ["mine"])
        await log.append(alerts, NOW_NS)
        log.advance("a", 2)  # position 2 is settled for both
        log.advance("b", 1)
        await log.acknowledge("b", [alert.id for alert in alerts[1:5]], NOW_NS)
        await log.acknowledge("a", [alerts[2].id], NOW_NS)  # 3 too
        await log.park("a", {4: 1}, NOW_NS)  # 5 is unsettled, 6 is open
        keep = Retention(keep_days=2, keep_alerts=1000)
        same(await pruned(log, NOW_NS + DAY_NS, keep), 0)
        same(await pruned(log, NOW_NS + DAY_NS, Retention(2, 601)), 4)  # 1, 2, 3, 7
        same(await pruned(log, NOW_NS + 3 * DAY_NS, keep), 600)
        same([entry.position for entry in await log.read(0, 20)], [4, 5, 6, 608])
        await log.drop_consumer("a", NOW_NS + 3 * DAY_NS)
        await log.append([example(5, "open", state="cleared")], NOW_NS + 3 * DAY_NS)
        same(await pruned(log, NOW_NS + 6 * DAY_NS, keep), 4)
    async with opened() as log:
        same([entry.position for entry in await log.read(0, 20)], [609])
        same([episode.rule for episode in await log.episodes()], ["open"])  # 609 is its cleared
        same((await log.append([example(9999)], NOW_NS))[0].position, 610)


_CHECKS: Final[tuple[Callable[[_Open], Awaitable[None]], ...]] = (
    _positions, _reading, _durable, _marks, _episodes, _consumers, _acknowledging, _attempts, _dead_letters,
    _dropping, _silences, _auditing, _pruning, entitling, patterns_by_position,
)  # fmt: skip
