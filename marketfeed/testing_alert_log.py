"""Checks that every alert log has to pass; users import them from marketfeed.testing.

    async def test_my_log():
        await check_alert_log(lambda name: open_my_log(name))

A failed check raises an AssertionError that begins with the number of the check:

 1. Entries have the positions 1, 2, 3 …, and an id is kept once, as is a notice's key.
 2. Reading from a position returns entries in order, at most as many as asked for.
 3. What was appended is there, equal, when the log is opened again.
 4. Marks are kept; a cleared has none if an entry of its episode has none.
 5. Episodes begin with raised and end with one cleared; the first person to resolve one stays.
 6. The first use of a consumer creates it, from now or with all; later ones change patterns and symbols alone.
 7. An acknowledgement settles what is this consumer's, once, and is there when the log is opened again.
 8. Attempts and floors are there after the next change that was waited for.
 9. Dead letters are listed, can be acknowledged, and are unsettled again when they are requeued.
10. A dropped consumer leaves nothing behind.
11. Silences are kept, replaced and expired.
12. Acknowledgements, parks, requeues, resolves, drops and silences are in the audit trail.
13. Pruning removes what nobody needs, and nothing else.
14. What is about other symbols is not a consumer's: not acknowledged, not requeued, not kept for it.

The file is longer than 300 lines because it holds one function per check.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from marketfeed.alerts.alert import Alert, alert_id
from marketfeed.alerts.log import Progress, Retention, Silence
from marketfeed.core.units import DAY_NS, S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from marketfeed.alerts.log import AlertLog

    _Open = Callable[[], AbstractAsyncContextManager[AlertLog]]

NOW_NS: Final = 1_790_000_000 * S


def example(number: int, rule: str = "wide", state: Any = "raised", **fields: Any) -> Alert:
    """Return an alert whose id depends on its arguments; a ``cleared`` has the key of the same ``raised``."""
    at_ns = NOW_NS + number * S
    ids = {which: alert_id(rule, "AAPL", which, at_ns, 0) for which in ("raised", state)}
    known: dict[str, Any] = {
        "key": ids["raised"],
        "symbol": "AAPL",
        "value": 0.1 * number,
        "threshold": 0.5,
        "t_ns": at_ns,
        "message": "é\0",
    }
    return Alert(id=ids[state], rule=rule, state=state, **(known | fields))


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


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r}, expected {expected!r}")


async def _positions(opened: _Open) -> None:
    """Positions count up, and an id is kept once."""
    one, two, three = map(example, (1, 2, 3))
    async with opened() as log:
        _same(await log.head(), 0)
        _same(await log.append([], NOW_NS), [])
        found = await log.append([one, two, one], NOW_NS)
        _same(
            [(a.id, a.position, a.new) for a in found],
            [(one.id, 1, True), (two.id, 2, True), (one.id, 1, False)],
        )
    async with opened() as log:
        found = await log.append([two, three], NOW_NS + 1)
        _same([(a.position, a.new) for a in found], [(2, False), (3, True)])
        _same(await log.head(), 3)
        notice = example(4, state="notice", key="order-17")
        repeated = example(5, state="notice", key="order-17")
        found = await log.append([notice, repeated], NOW_NS + 2)
        _same([(a.id, a.position, a.new) for a in found], [(notice.id, 4, True), (notice.id, 4, False)])


async def _reading(opened: _Open) -> None:
    """Reading from a position is in order and bounded."""
    alerts = [example(number) for number in range(5)]
    async with opened() as log:
        await log.append(alerts, NOW_NS)
        _same([entry.position for entry in await log.read(0, 3)], [1, 2, 3])
        _same([entry.alert for entry in await log.read(3, 10)], alerts[3:])
        _same(await log.read(5, 10), [])
        found = await log.find(alerts[1].id)
        _same(found and (found.position, found.alert), (2, alerts[1]))
        _same(await log.find("unknown"), None)


async def _durable(opened: _Open) -> None:
    """Entries are there when the log is opened again."""
    alerts = [
        example(1, data={"order": [1, None, "ü"]}, state="notice", to="risk-1"),
        example(2, symbol="", value=None, threshold=None, severity="critical", suppressed=3, r_ns=7),
    ]
    async with opened() as log:
        await log.append(alerts, NOW_NS)
    async with opened() as log:
        found = await log.read(0, 10)
        _same([(entry.position, entry.alert, entry.at_ns) for entry in found],
              [(1, alerts[0], NOW_NS), (2, alerts[1], NOW_NS)])  # fmt: skip


async def _marks(opened: _Open) -> None:
    """Marks are kept, except that of a cleared whose episode was shown."""
    shown, hidden = [[example(n), example(n, state="cleared")] for n in (1, 2)]
    async with opened() as log:
        await log.append(shown[:1], NOW_NS)
        await log.append(hidden[:1], NOW_NS, {hidden[0].id: "inhibited"})
        await log.append([shown[1], hidden[1]], NOW_NS, {shown[1].id: "silenced", hidden[1].id: "silenced"})
        _same([entry.mark for entry in await log.read(0, 10)], [None, "inhibited", None, "silenced"])
        _same([episode.shown for episode in await log.episodes()], [True, False])


async def _episodes(opened: _Open) -> None:
    """Episodes begin, end, and are resolved once."""
    raised, cleared = example(1), example(1, state="cleared")
    async with opened() as log:
        await log.append([raised, example(2, state="notice")], NOW_NS)
        (episode,) = await log.episodes(open_only=True)
        _same((episode.key, episode.rule, episode.symbol, episode.raised_ns, episode.cleared_ns),
              (raised.key, "wide", "AAPL", NOW_NS, 0))  # fmt: skip
        await log.resolve(raised.key, "ann", "on it", NOW_NS + 1)
        again = await log.resolve(raised.key, "bob", "", NOW_NS + 2)
        _same(again and (again.resolved_by, again.comment, again.resolved_ns), ("ann", "on it", NOW_NS + 1))
        _same(await log.resolve("unknown", "bob", "", NOW_NS), None)
        _same((await log.episode(raised.key), await log.episode("unknown")), (again, None))
    async with opened() as log:
        await log.append([cleared], NOW_NS + 3)
        _same(await log.episodes(open_only=True), [])
        later = example(3, state="cleared", key=raised.key)
        (kept,) = await log.append([later], NOW_NS + 4)
        _same((kept.id, kept.position, kept.new), (cleared.id, 3, False))
        found = [(e.cleared_ns, e.resolved_by, e.last_position) for e in await log.episodes()]
        _same(found, [(NOW_NS + 3, "ann", 3)])


async def _consumers(opened: _Open) -> None:
    """The first use of a consumer creates it."""
    async with opened() as log:
        await log.append([example(1), example(2)], NOW_NS)
        _same((await log.use_consumer("all", NOW_NS)).floor, 0)
        _same((await log.use_consumer("now", NOW_NS, "now", ["a", "b*"])).floor, 2)
        await log.append([example(3)], NOW_NS)
        again = await log.use_consumer("now", NOW_NS + 1, "all", ["c"])
        _same((again.start, again.floor, again.patterns, again.created_ns), ("now", 2, ("c",), NOW_NS))
        _same(again.symbols, ("*",))
        symbols = ("AAPL", "BTC*")
        _same((await log.use_consumer("now", NOW_NS + 1, "all", ["c"], symbols)).symbols, symbols)
        _same((await log.use_consumer("none", NOW_NS, symbols=[])).symbols, ())
        for name, patterns in (("x" * 300, ["*"]), ("", ["*"]), ("a b", ["*"]), ("é", ["*"]), ("fine", [])):
            await _refused(log, name, patterns, ["*"])
        for symbol in ("A B", "", "*A", "X" * 300):
            await _refused(log, "fine", ["*"], ["AAPL", symbol])
    async with opened() as log:
        _same([(consumer.name, consumer.symbols) for consumer in await log.consumers()],
              [("all", ("*",)), ("none", ()), ("now", symbols)])  # fmt: skip
        _same(await log.progress("now"), Progress(2))
        _same(await log.progress("unknown"), None)


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
        _same((found.ids, found.positions, found.unknown), ((mine.id,), (1,), tuple(ids[1:])))
        _same((await log.acknowledge("b", ids, NOW_NS)).ids, (directed.id,))
        _same((await log.acknowledge("c", ids, NOW_NS)).unknown, tuple(ids))
    async with opened() as log:
        _same((await log.acknowledge("a", [mine.id], NOW_NS)).unknown, (mine.id,))
        _same(await log.progress("a"), Progress(0, frozenset({1})))
        _same(await log.progress("b"), Progress(0, frozenset({3})))


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
        _same(await log.progress("a"), Progress(1, frozenset({4}), (), {2: 2, 3: 4}))
        log.advance("a", 0)
    async with opened() as log:
        log.advance("a", 2)
        await log.append([example(7)], NOW_NS)
        _same(await log.progress("a"), Progress(2, frozenset({4}), (), {3: 4}))
        _same((await log.acknowledge("a", [alerts[1].id], NOW_NS)).unknown, (alerts[1].id,))


async def _dead_letters(opened: _Open) -> None:
    """Dead letters are kept until they are acknowledged or requeued."""
    alerts = [example(number) for number in range(1, 5)]
    ids = [alert.id for alert in alerts]
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        await log.use_consumer("b", NOW_NS)
        await log.append(alerts, NOW_NS)
        await log.acknowledge("a", ids[:1], NOW_NS)
        _same(await log.park("a", {1: 9, 2: 10, 3: 10, 4: 10, 5: 10}, NOW_NS + 5), [2, 3, 4])
        _same(await log.park("b", {1: 10}, NOW_NS + 5), [1])
        _same(await log.park("unknown", {1: 10}, NOW_NS + 5), [])
        _same(await log.progress("a"), Progress(0, frozenset({1, 2, 3, 4})))
        log.advance("a", 4)
    async with opened() as log:
        dead = await log.dead_letters("a")
        _same([(d.consumer, d.entry.position, d.tries, d.parked_ns) for d in dead],
              [("a", position, 10, NOW_NS + 5) for position in (2, 3, 4)])  # fmt: skip
        _same([(d.consumer, d.entry.alert.id) for d in await log.dead_letters()],
              [("a", ids[1]), ("a", ids[2]), ("a", ids[3]), ("b", ids[0])])  # fmt: skip
        _same(await log.dead_letter_counts(), {"a": 3, "b": 1})
        _same((await log.acknowledge("a", ids[1:2], NOW_NS)).positions, (2,))
        requeued = await log.requeue("a", [*ids[:3], "unknown"], NOW_NS, "ann")
        _same([entry.alert for entry in requeued], alerts[2:3])
        _same(await log.progress("a"), Progress(4, frozenset(), tuple(requeued)))
        log.record_attempts("a", {3: 1})
        _same((await log.acknowledge("a", ids[1:2], NOW_NS)).positions, ())
        _same(await log.progress("a"), Progress(4, frozenset(), tuple(requeued), {3: 1}))
    async with opened() as log:
        _same([d.entry.position for d in await log.dead_letters("a")], [4])
        _same((await log.acknowledge("a", ids[2:3], NOW_NS)).positions, (3,))
        _same(await log.progress("a"), Progress(4))


async def _dropping(opened: _Open) -> None:
    """A dropped consumer leaves nothing behind."""
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        await log.append([example(1), example(2)], NOW_NS)
        await log.park("a", {1: 1}, NOW_NS)
        _same(await log.drop_consumer("a", NOW_NS, "ann"), True)
        _same(await log.drop_consumer("a", NOW_NS), False)
        _same(((await log.consumers()), await log.dead_letters()), ([], []))
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        _same(await log.progress("a"), Progress(0))


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
        _same(await log.silences(), [second, changed])
        _same([await log.expire_silence(silence, 10, "ann") for silence in ("2", "1", "1", "3")],
              [True, True, False, False])  # fmt: skip
        _same([silence.ends_ns for silence in await log.silences()], [10, 10])


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
        _same([record.number for record in found], list(range(1, 8)))
        _same([(record.action, record.subject, record.by) for record in found],
              [("acknowledged", "a", ""), ("parked", "a", ""), ("requeued", "a", "ann"),
               ("resolved", one.key, "ann"), ("silenced", "1", "bob"), ("expired", "1", "bob"),
               ("dropped", "a", "ann")])  # fmt: skip
        _same([found[0].detail, found[2].detail, found[3].detail], [[one.id], [two.id], "mine"])
        _same((await log.audit(2, 2)), found[2:4])


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
        _same(await _pruned(log, NOW_NS + DAY_NS, keep), 0)
        _same(await _pruned(log, NOW_NS + DAY_NS, Retention(2, 601)), 4)  # 1, 2, 3, 7
        _same(await _pruned(log, NOW_NS + 3 * DAY_NS, keep), 600)
        _same([entry.position for entry in await log.read(0, 20)], [4, 5, 6, 608])
        await log.drop_consumer("a", NOW_NS + 3 * DAY_NS)
        await log.append([example(5, "open", state="cleared")], NOW_NS + 3 * DAY_NS)
        _same(await _pruned(log, NOW_NS + 6 * DAY_NS, keep), 4)
    async with opened() as log:
        _same([entry.position for entry in await log.read(0, 20)], [609])
        _same([episode.rule for episode in await log.episodes()], ["open"])  # 609 is its cleared
        _same((await log.append([example(9999)], NOW_NS))[0].position, 610)


async def _entitling(opened: _Open) -> None:
    """What is about other symbols is not this consumer's."""
    symbols = ("AAPL", "BTC-USD", "MSFT", "", "MSFT", "AAPL", "AAPL")
    *alerts, newest = [example(n, state="notice", symbol=symbol, to="a" if n == 4 else None)
                       for n, symbol in enumerate(symbols)]  # fmt: skip
    ids = [alert.id for alert in alerts[:5]]
    async with opened() as log:
        await log.use_consumer("a", NOW_NS)
        await log.append(alerts, NOW_NS)
        await log.park("a", {1: 9, 3: 9, 5: 9}, NOW_NS)
        await log.use_consumer("a", NOW_NS + 1, "all", ["*"], ["AAPL", "BTC*"])
        _same([entry.position for entry in await log.requeue("a", ids, NOW_NS, "ann")], [1, 5])
    async with opened() as log:
        _same([letter.entry.position for letter in await log.dead_letters("a")], [3])
        await log.use_consumer("b", NOW_NS, "all", ["*"], ["AAPL", "BTC*"])
        _same((await log.acknowledge("b", ids, NOW_NS)).positions, (1, 2, 4))
        await log.use_consumer("b", NOW_NS, "all", ["*"], ["MSFT"])
        await log.drop_consumer("a", NOW_NS)
        await log.append([newest], NOW_NS)
        await _pruned(log, NOW_NS + 9 * DAY_NS, Retention(2, 1000))
        _same([entry.position for entry in await log.read(0, 20)], [3, 7])


async def _pruned(log: AlertLog, now_ns: int, keep: Retention) -> int:
    """Run steps until a pass has ended; return how many entries they removed."""
    removed, more = 0, True
    while more:
        step = await log.prune(now_ns, keep)
        removed, more = removed + step.removed, step.more
    return removed


_CHECKS: Final[tuple[Callable[[_Open], Awaitable[None]], ...]] = (
    _positions, _reading, _durable, _marks, _episodes, _consumers, _acknowledging, _attempts, _dead_letters,
    _dropping, _silences, _auditing, _pruning, _entitling,
)  # fmt: skip
