"""The page's modules without the page, in Chromium: columns, statuses, orders, numbers, episodes."""

from __future__ import annotations

import json

import pytest

from tests.support.chromium import chromium, watched
from tests.support.process import engine

pytestmark = pytest.mark.slow  # as other tests in a browser: without coverage, which slows engines down

IDLE = '[[feeds]]\nname = "none"\ntype = "push"\nlisten = "127.0.0.1:0"\n'
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A page of the engine's origin that runs nothing but what a test gives it."""
    folder = tmp_path_factory.mktemp("engine")
    with engine(IDLE, folder) as running, chromium() as browser, watched(browser) as watcher:
        yield watcher.open(f"http://localhost:{running.port}/robots.txt")


def run(page, body, **values):
    """Run the body of a function that may use the names of all modules and of ``values``."""
    names = ("format", "book", "status", "ordering", "episodes", "history")
    imports = ", ".join(f"import('/page/{name}.js')" for name in names)
    given = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
    return page.evaluate(
        f"async () => {{ const [{', '.join(names)}] = await Promise.all([{imports}]); {given} {body} }}"
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("price(1.5, 2)", "1.50"),
        ("price(-37.63, 2)", "−37.63"),
        ("price(0, 2)", "0.00"),
        ("price(NaN, 2)", "–"),
        ("size(0)", "–"),
        ("size(1500)", "1,500"),
        ("size(0.00012345)", "0.000123"),
        ("size(35e6)", "35.0\u2009M"),
        ("size(3.5e12)", "3500.00\u2009G"),
        ("change(0.001)", "0.00"),
        ("change(-0.001)", "0.00"),
        ("change(1.234)", "+1.23"),
        ("change(-1.235, 1)", "−1.2"),
        ("change(NaN)", "–"),
        ("figure(99.96)", "100.0"),
        ("figure(1234.5)", "1,235"),
        ("age(-5)", "<1 s"),
        ("age(999)", "<1 s"),
        ("age(1000)", "1 s"),
        ("age(99999)", "99 s"),
        ("age(100000)", "1 min"),
        (f"age({48 * HOUR_MS})", "2 d"),
        ("ns(511)", "511 ns"),
        ("ns(999)", "999 ns"),
        ("ns(999999)", "1.00 ms"),
        ("ns(1200000)", "1.20 ms"),
        ("ns(60e9)", "60.0 s"),
        ("ms(null)", "–"),
        ("bytes(12345)", "12.3 kB"),
        ("clock(NaN).length", None),
    ],
)
def test_numbers_as_text(modules, call, text):
    found = run(modules, f"return format.{call};")
    assert text is None or found == text


@pytest.mark.parametrize(
    ("value", "least", "digits"),
    [
        (231.4, 2, 2),
        (1.08412, 2, 5),
        (152.318, 2, 3),
        (0, 2, 2),
        (67210.5, 0, 1),
        (1e-9, 2, 9),
        (0.1 + 0.2, 2, 2),
        (98765.4321, 2, 4),
    ],
)
def test_digits_of_a_tick_size(modules, value, least, digits):
    assert run(modules, "return format.digitsOf(value, least);", value=value, least=least) == digits


TICKS = """
const b = new book.Book(1);
const one = (price) => (price === null ? 0 : 1);
const q = (S, n, bp, ap, more = {}) => b.quote(
    {T: 'q', S, n, bp, ap, bs: one(bp), as: one(ap), r: 1e9, t: 1e9, ...more});
const t = (S, n, p, more = {}) => b.trade({T: 't', S, n, p, s: 1, d: 'b', r: 1e9, t: 1e9, ...more});
"""


def test_what_is_not_known_is_no_number(modules):
    assert run(
        modules,
        TICKS
        + "q('A', 1, 1, 2); q('B', 1, 3, 4);"
        + "return [b.last[0], b.last[1], b.bid[1], b.capacity].map(String);",
    ) == ["NaN", "NaN", "3", "2"]


def test_a_missing_side_is_no_price(modules):
    found = run(
        modules,
        TICKS
        + "q('A', 1, 5, null); q('B', 1, null, null);"
        + "return [b.ask[0], b.mid[0], b.spread(0), b.mid[1]].map(String);",
    )
    assert found == ["NaN", "5", "NaN", "NaN"]


def test_ticks_out_of_order_and_doubles_are_passed_over(modules):
    found = run(
        modules,
        TICKS
        + "q('A', 5, 1, 2); q('A', 4, 7, 8); q('A', 5, 7, 8); q('A', 7, 3, 4);"
        + "return [b.bid[0], b.late, b.holes, b.ticks];",
    )
    assert found == [3, 2, 1, 2]


def test_numbers_that_wrap_at_2_to_32_go_on(modules):
    found = run(
        modules, TICKS + "q('A', 4294967295, 1, 2); q('A', 0, 2, 3); return [b.bid[0], b.late, b.holes];"
    )
    assert found == [2, 0, 0]


def test_after_a_reset_numbers_begin_anew(modules):
    found = run(
        modules,
        TICKS
        + "q('A', 500, 1, 2); b.reset(['A']); q('A', 1, 3, 4); b.reset(null); q('A', 1, 5, 6, {snap: 1});"
        + "return [b.bid[0], b.late, b.holes];",
    )
    assert found == [5, 0, 0]


def test_rates_count_what_was_conflated_and_not_what_came_before(modules):
    found = run(
        modules,
        TICKS
        + """
        q('A', 1000, 1, 2, {snap: 1}); b.second(); q('A', 1030, 1, 2); b.second(); b.second();
        const first = b.rate[0];
        for (let i = 0; i < 20; i += 1) { q('A', 1040 + 10 * i, 1, 2); b.second(); }
        return [first, b.rate[0]];""",
    )
    assert found == [10, 10]


def test_moves_are_those_of_the_last_minute(modules):
    found = run(
        modules,
        TICKS
        + """
        q('A', 1, 99, 101); b.second(10); q('A', 2, 109, 111); b.second();
        const early = b.move(0); b.second(70);
        return [early, b.move(0)];""",
    )
    assert found == [pytest.approx(10), 0]


def test_names_of_object_properties_are_symbols(modules):
    assert run(
        modules,
        TICKS + "q('__proto__', 1, 1, 2); q('constructor', 1, 1, 2); return [b.count, b.row('__proto__')];",
    ) == [2, 0]


STATUS = (
    TICKS
    + """
const c = new status.Conditions();
b.now = () => 1e6; // by the engine's clock, when ticks come
Object.assign(c, {connected: true, now: 1e6 + 100, only: {state: 'live'}});
// 49 ticks, `ms` apart, the last one at 1e6
const run = (ms) => { for (let n = 1; n < 50; n += 1) q('A', n, 1, 2, {r: 1e9 - (49 - n) * ms * 1e3}); };
const feed = (state, flags = 0) => { b.list([{S: 'A', feed: 'x', flags}]); c.feeds = [undefined, {state}]; };
const of = (row = 0) => status.STATUS[status.statusOf(b, row, c)].word;
"""
)


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        ("q('A', 1, 1, 2)", "live"),
        ("q('A', 1, 2, 2)", "crossed"),
        ("q('A', 1, null, null)", "halted"),
        ("q('A', 1, 5, null)", "live"),
        ("b.row('A')", "no tick"),
        ("q('A', 1, 1, 2); c.connected = false", "offline"),
        ("q('A', 1, 1, 2); c.stale = true", "stale"),
        ("b.row('A'); c.stale = true", "stale"),
        ("q('A', 1, 1, 2); c.stale = true; c.connected = false", "offline"),
        ("q('A', 1, 1, 2); c.only.state = 'down'", "feed down"),
        ("q('A', 1, 1, 2); c.only.state = 'failed'", "feed down"),
        ("q('A', 1, 1, 2); c.only.state = 'stale'", "stale"),
        ("q('A', 1, 1, 2); c.only.state = 'done'", "ended"),
        ("b.row('A'); c.only.state = 'down'", "feed down"),
        ("q('A', 1, 1, 2); feed('live', 2)", "stale"),
        ("q('A', 1, 1, 2); feed('down'); c.only = null", "feed down"),
        ("q('A', 1, 1, 2); c.lagging = true", "delayed"),
        ("q('A', 1, 1, 2, {t: 1e9 - 900e6})", "delayed"),
        ("q('A', 1, 1, 2, {r: 1e15, t: 1e12}); c.now = 1e12", "recorded"),
        ("q('A', 1, 1, 2, {t: 0})", "live"),
        ("q('A', 1, 1, 2, {t: 2e9})", "live"),
        ("b.now = () => 1e6 + 3000; q('A', 1, 1, 2)", "delayed"),
        ("b.now = () => 1e6 + 3000; q('A', 1, 1, 2); c.intervalMs = 5000", "live"),
        ("q('A', 1, 1, 2); c.now += 59e3", "live"),
        ("q('A', 1, 1, 2); c.now += 61e3", "quiet"),
        ("run(100); c.now += 14e3", "live"),
        ("run(100); c.now += 16e3", "quiet"),
        ("run(10e3); c.now += 100e3", "live"),
    ],
)  # fmt: skip
def test_every_row_tells_whether_it_is_live(modules, steps, word):
    assert run(modules, STATUS + f"{steps}; return of();") == word


def test_orders_of_rows(modules):
    body = (
        STATUS
        + """
        q('B', 1, 10, 11); q('A', 1, 10, 10.1); q('C', 1, 10, 12); q('D', 1, null, null);
        const o = new ordering.Ordering(), found = {};
        const sorts = [['symbol', false], ['symbol', true], ['spread', true], ['spread', false]];
        for (const [sort, descending] of [...sorts, ['age', true]]) {
            Object.assign(o, {sort, descending});
            o.update(b, c);
            found[sort + descending] = [...o.order.subarray(0, o.length)].map((row) => b.names[row]).join('');
        }
        return found;"""
    )
    assert run(modules, body) == {
        "symbolfalse": "ABCD",
        "symboltrue": "DCBA",
        "spreadtrue": "CBAD",
        "spreadfalse": "ABCD",
        "agetrue": "ABCD",
    }


def test_the_filter_for_rows_that_are_not_live(modules):
    body = (
        STATUS
        + """
        q('A', 1, 1, 2); q('B', 1, null, null); b.row('C');
        const o = new ordering.Ordering();
        o.onlyNotLive = true;
        o.update(b, c);
        return [o.notLive, o.length, b.names[o.order[0]]];"""
    )
    assert run(modules, body) == [1, 1, "B"]


ALERT = """
const alert = {rule: 'jump', S: 'A', sev: 'warning', state: 'raised', r: 1e9, try: 1, ack: false};
const a = (id, more = {}) => ({...alert, id, key: id, msg: id, ...more});
"""


def test_episodes_of_alerts(modules):
    body = (
        ALERT
        + """
        const e = new episodes.Episodes();
        e.add(a('1')); e.add(a('1')); e.add(a('2', {sev: 'critical'}));
        e.add(a('3', {key: '1', state: 'cleared', r: 1e9 + 2e6}));
        e.add(a('n', {state: 'notice', sev: 'info'}));
        const by = e.bySeverity(() => true);
        const lengths = by.warning.map((one) => one.cleared - one.began);
        return [e.byKey.size, e.open, by.critical.map((one) => one.key), lengths, by.info.length];"""
    )
    assert run(modules, body) == [3, 1, ["2"], [2000.0], 1]


def test_alerts_are_due_until_the_engine_has_settled_them(modules):
    body = (
        ALERT
        + """
        const e = new episodes.Episodes();
        e.add(a('1')); e.add(a('1', {ack: true})); e.add(a('1', {ack: true, try: 2}));
        e.add(a('2', {ack: true}));
        const before = e.due(); e.settle(['1', 'unknown']);
        const one = e.byKey.get('1');
        return [before, e.due(), one.acknowledged, one.tries];"""
    )
    assert run(modules, body) == [["1", "2"], ["2"], 1, 2]


def test_a_storm_of_alerts_is_bounded_and_keeps_what_is_due(modules):
    body = (
        ALERT
        + """
        const e = new episodes.Episodes();
        e.add(a('due', {ack: true, r: 1}));
        for (let i = 0; i < 5000; i += 1) e.add(a('k' + i, {r: 1e9 + i}));
        return [e.byKey.size <= 1000, e.byKey.has('due'), e.byKey.has('k4999')];"""
    )
    assert run(modules, body) == [True] * 3


def test_last_ticks_are_kept_newest_first_and_bounded(modules):
    body = """
        const h = new history.History();
        const quote = {T: 'q', S: 'A', bs: 1, as: 1};
        for (let n = 1; n <= 200; n += 1) h.take({...quote, n, r: 1e9 + n * 1e4, bp: n, ap: n + 1});
        const columns = h.columns(1e6 + 2000, 60);
        const ends = [h.quotes.newest(0).n, h.quotes.newest(63).n, h.quotes.newest(64) === undefined];
        return [...ends, columns.map((one) => one.length), columns[1].at(-1), columns[1][0]];"""
    assert run(modules, body) == [200, 137, True, [240] * 6, 200, None]
