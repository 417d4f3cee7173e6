"""Pictures: one colour per tier, labels at the ends of curves, equal time axes, visible gaps."""

import base64
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.dates import num2date
from matplotlib.text import Annotation

from marketfeed.latency.colours import KNOWN, OTHERS, painted
from marketfeed.latency.intervals import HOPS, MEANINGS, Tag
from marketfeed.latency.page import html
from marketfeed.latency.pictures import apart, course, figure
from marketfeed.latency.report import Selection, make
from tests.support.foreign_histograms import V2, packed, payload_of, recorded
from tests.support.latency_logs import START_S, interval, write

MS = 1_000_000
GAP = range(20, 35)  # intervals without data
TIERS = {"vip": MS, "premium": 40 * MS, "basic": 200 * MS, "house": 3 * MS}


@pytest.fixture
def report(tmp_path):
    """Return a report whose hops differ in tiers and times: the second has no vip, the third starts late."""
    lasts = []
    for number in range(60):
        one = []
        for hop, tiers, first in (
            ("wait", TIERS, 0), ("total", list(TIERS)[1:], 0), ("client", ["vip", "basic"], 40)
        ):  # fmt: skip
            if number < first or number in GAP:
                continue
            for tier in tiers:
                base = TIERS[tier]
                one += interval(range(base, 2 * base, base // 50), Tag(hop, tier, "0"), number)
        if one:
            lasts.append(one)
    return make([write(tmp_path / "a.hlog", *lasts)], Selection())


def panels(made):
    """Return the axes in rows of two."""
    axes = made.get_axes()
    return [(axes[i], axes[i + 1]) for i in range(0, len(axes), 2)]


def curves(axes):
    """Return the colour of each named curve by its label."""
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    return {str(line.get_label()): to_hex(line.get_color()) for line in lines}


def labels(axes):
    """Return the labels beside the panel: text, colour and height."""
    return {
        text.get_text(): (to_hex(text.get_color()), text.xyann)
        for text in axes.texts
        if isinstance(text, Annotation)
    }


@pytest.mark.slow
def test_a_tier_has_one_colour_in_every_panel_and_in_the_page(report):
    found: dict[str, set[Any]] = {}
    for left, right in panels(figure(report)):
        for axes in (left, right):
            for name, colour in curves(axes).items():
                found.setdefault(name.split()[0], set()).add(colour.upper())
            for name, (colour, _) in labels(axes).items():
                found.setdefault(name.split()[0], set()).add(colour.upper())
    assert found == {**{tier: {colour} for tier, colour in KNOWN.items()}, "house": {OTHERS[0]}}
    page = html(report)
    for tier, (colour,) in found.items():
        assert set(re.findall(rf'style="background:(#\w+)"></i>{tier}<', page)) == {colour}


tiers = st.sampled_from(["vip", "basic", "x", "y", ""])


@given(st.lists(st.tuples(st.sampled_from(HOPS), tiers, st.text("ab", max_size=2)), unique=True))
def test_colours_are_those_of_tiers_whatever_else_tells_rows_apart(keys):
    colours = painted(dict.fromkeys(keys, 1), ("hop", "tier", "worker"))
    by_tier: dict[str, set[Any]] = {}
    for key in keys:
        by_tier.setdefault(key[1], set()).add(colours[key])
    assert all(len(each) == 1 for each in by_tier.values())
    assert len({colour for each in by_tier.values() for colour in each}) == len(by_tier)
    assert all(by_tier[tier] == {KNOWN[tier]} for tier in by_tier.keys() & KNOWN.keys())


@pytest.mark.parametrize("known", [[], ["vip"], list(KNOWN)])
def test_ten_tiers_differ_whatever_their_names(known):
    names = [*known, *(f"tier{i}" for i in range(10 - len(known)))]
    colours = painted({("total", name): 1 for name in names}, ("hop", "tier"))
    assert len(set(colours.values())) == 10
    assert all(colours["total", name] == KNOWN[name] for name in known)


def test_the_ten_symbols_with_the_most_values_differ():
    colours = painted({("total", f"S{i:02}"): 1000 - i for i in range(40)}, ("hop", "symbol"))
    assert len({colours["total", f"S{i:02}"] for i in range(10)}) == 10


@pytest.mark.slow
def test_curves_are_named_at_their_ends_and_there_is_no_legend(report):
    for left, right in panels(figure(report)):
        for axes in (left, right):
            assert axes.get_legend() is None
            beside = labels(axes)
            assert set(beside) == {name for name in curves(axes) if not name.endswith("p50")}
            assert all(x > 1 for _, (x, _) in beside.values()), "beside the panel, where no curve is"
            heights = sorted(y for _, (_, y) in beside.values())
            assert (np.diff(heights) > 0.08).all()


@given(st.lists(st.floats(-0.2, 1.2), max_size=10))
def test_labels_do_not_cover_each_other_and_keep_their_order(heights):
    moved = apart(heights)
    assert len(moved) == len(heights)
    order = np.argsort(heights, kind="stable")
    steps = np.diff(np.array(moved)[order])
    assert (steps > 0.084).all()
    assert max(moved, default=0) < 1
    if len(heights) == 1 and 0 < heights[0] < 0.95:
        assert moved == heights


def test_axes_have_labels_units_and_a_sentence_on_the_hop(report):
    made = figure(report)
    made.draw_without_rendering()
    for (left, right), hop in zip(panels(made), ("wait", "total", "client"), strict=True):
        assert left.get_title(loc="left") == hop
        assert MEANINGS[hop] in [text.get_text() for text in left.texts]
        assert left.get_xlabel().startswith("percentile")
        assert right.get_xlabel() == "time (UTC)"
        assert left.get_ylabel() == right.get_ylabel() == "latency (logarithmic)"
        for axes in (left, right):
            low, high = axes.get_ylim()
            shown = [
                label.get_text()
                for label, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
                if low <= at <= high
            ]
            assert len(shown) >= 2
            assert all(re.fullmatch(r"[\d.]+ (ns|µs|ms|s)", text) for text in shown)
            assert [label.get_visible() for label in axes.get_xticklabels()].count(True) >= 2


def test_every_hop_has_a_sentence():
    assert MEANINGS.keys() == set(HOPS)


def test_rows_have_equal_axes(report):
    rows = panels(figure(report))
    assert len({left.get_xlim() for left, _ in rows}) == 1
    assert len({right.get_xlim() for _, right in rows}) == 1
    assert all(left.get_ylim() == right.get_ylim() for left, right in rows)
    start, end = (num2date(edge).timestamp() for edge in rows[0][1].get_xlim())
    assert (start, end) == (pytest.approx(START_S), pytest.approx(START_S + 600))


def test_no_line_bridges_a_gap(report):
    for _, right in panels(figure(report)):
        for line in right.get_lines():
            if str(line.get_label()).startswith("_"):
                continue
            moments = np.array([moment.timestamp() for moment in line.get_xdata()])
            values = np.asarray(line.get_ydata(), float)
            drawn = ~np.isnan(values[:-1]) & ~np.isnan(values[1:])
            assert np.diff(moments)[drawn].max() == 10
            if moments[0] < START_S + 200:
                assert np.isnan(values).sum() == 1
                assert START_S + 200 <= moments[np.isnan(values)][0] <= START_S + 350


def test_intervals_that_stand_alone_are_dots(tmp_path):
    path = write(tmp_path / "a.hlog", *(interval([MS] * 9, number=i) for i in (0, 5, 9, 10)))
    ((_, right),) = panels(figure(make([path], Selection())))
    dots = [line for line in right.get_lines() if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [2, 2]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=30))
def test_a_course_has_all_intervals_and_not_a_number_at_each_gap(steps):
    starts, lengths, at = [], [], 0
    for length, pause in steps:
        starts.append(at)
        lengths.append(length)
        at += length + pause * length
    figures = np.arange(8 * len(steps)).reshape(-1, 8) + 1
    moments, p99, p50 = course(np.array(starts, float), np.array(lengths, float), figures)
    assert p99[~np.isnan(p99)].tolist() == figures[:, 4].tolist()
    assert p50[~np.isnan(p50)].tolist() == figures[:, 2].tolist()
    assert np.isnan(p99).sum() == sum(pause > 0 for _, pause in steps[:-1])
    assert (np.diff(moments) > 0).all()


def test_a_report_of_nothing_but_empty_histograms_has_a_picture(tmp_path):
    hdr, counts = recorded([])
    encoded = base64.b64encode(packed(payload_of(hdr, counts, V2), V2)).decode()
    (tmp_path / "a.hlog").write_text(f"{START_S}.0,10.0,0.0,{encoded}\n")
    assert panels(figure(make([tmp_path / "a.hlog"], Selection()))) == []
