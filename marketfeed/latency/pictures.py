"""A report as a picture: percentile curves, and percentiles over time; one row of panels per hop."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.errors import LogError
from marketfeed.latency.colours import painted
from marketfeed.latency.intervals import MEANINGS
from marketfeed.latency.report import TITLES, Report, ReportRow
from marketfeed.latency.units import shown_ns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from marketfeed.core.histogram import Values

Floats = NDArray[np.float64]

MAX_LINES: Final = 10  # per panel: those with the most values
DPI: Final = 110
GAP: Final = 0.5  # of an interval: longer gaps in the data break the line
_LABEL_HEIGHT: Final = 0.085  # of a panel
_LABEL_X: Final = 1.015  # of a panel: to the right of it
_P50, _P99 = TITLES.index("p50"), TITLES.index("p99")
_GREY: Final = "#59636e"


def png(report: Report) -> bytes:
    """Return the report's plots as a PNG. Raises LogError if matplotlib is not installed."""
    buffer = io.BytesIO()
    figure(report).savefig(buffer, format="png", metadata={"Software": "marketfeed"})
    return buffer.getvalue()


def figure(report: Report) -> Figure:
    """Return the picture: percentiles left, p99 and p50 over time right. Raises LogError as :func:`png`."""
    try:
        from matplotlib.figure import Figure  # without pyplot: no window system, no global state
    except ImportError:
        raise LogError("pictures need matplotlib: pip install 'marketfeed[report]'") from None
    panels: dict[str, list[ReportRow]] = {}
    for row in report.rows:
        if row.figures[0]:
            panels.setdefault(row.key[0], []).append(row)
    colours = painted({row.key: row.figures[0] for row in report.rows}, report.choice.keys)
    made = Figure(figsize=(13, 0.8 + 3.1 * max(len(panels), 1)), dpi=DPI, layout="constrained")
    made.suptitle(f"{', '.join(path.name for path in report.paths)[:100]} · {report.span}", parse_math=False)
    if not panels:
        return made
    axes = made.subplots(len(panels), 2, squeeze=False, sharex="col", sharey="row")
    for (hop, rows), (left, right) in zip(panels.items(), axes, strict=True):
        most = sorted(rows, key=lambda row: -row.figures[0])[:MAX_LINES]
        chosen = [row for row in rows if row in most]
        title = hop.replace("_", " ") or "latency"
        if len(chosen) < len(rows):
            title += f" (the {len(chosen)} of {len(rows)} with the most values)"
        left.set_title(title, loc="left", fontweight="bold", pad=20, parse_math=False)
        meaning = MEANINGS.get(hop, "As recorded in the log.")
        for panel, text in ((left, meaning), (right, "p99 of each interval; p50 dashed.")):
            panel.text(
                0, 1.03, text, transform=panel.transAxes, fontsize="small", color=_GREY, parse_math=False
            )
        _curves(left, report, chosen, colours)
        _courses(right, report, chosen, colours)
        for panel in (left, right):
            _latency_axis(panel)
    _percentile_axis(axes[:, 0].tolist())
    _time_axis(axes[:, 1].tolist(), report)
    # Last, because labels are placed at the ends of the curves.
    for panel in axes.flat:
        _label_ends(panel)
    return made


def _label(row: ReportRow) -> str:
    text = " ".join(filter(None, row.key[1:])) or "all"
    # matplotlib would read `$` as mathematics and hide a label that begins with an underscore.
    return ("\u2009" if text.startswith("_") else "") + text.replace("$", r"\$")


def _curves(axes: Axes, report: Report, rows: list[ReportRow], colours: dict[tuple[str, ...], str]) -> None:
    """Plot latency over percentile, the axis stretched towards 100 % as in HdrHistogram's own plots."""
    for row in rows:
        values, cumulative = report.latencies.merged[row.key].curve()
        total = int(cumulative[-1])
        below = np.concatenate([[0], cumulative[:-1]])
        x = total / (total - below)  # 1 / (1 - share of values below)
        axes.step(
            x, np.maximum(values, 1), where="post", label=_label(row), linewidth=1.4, color=colours[row.key]
        )


def _courses(axes: Axes, report: Report, rows: list[ReportRow], colours: dict[tuple[str, ...], str]) -> None:
    """Plot p99 over time, and p50 dashed."""
    for row in rows:
        times_s, figures = report.latencies.series(row.key)
        times_s, p99, p50 = course(times_s, report.latencies.lengths_of(row.key), figures)
        moments: Any = [datetime.fromtimestamp(t, UTC) for t in times_s.tolist()]
        colour = colours[row.key]
        axes.plot(moments, p99, linewidth=1.3, color=colour, label=f"{_label(row)} p99")
        axes.plot(moments, p50, linewidth=1.0, linestyle="--", color=colour, label=f"{_label(row)} p50")
        # An interval between two gaps has no line, so it gets a dot.
        for values, face in ((p99, colour), (p50, "none")):
            around = np.isnan(np.concatenate([[np.nan], values, [np.nan]]))
            alone = np.flatnonzero(~around[1:-1] & around[:-2] & around[2:])
            axes.plot(
                [moments[i] for i in alone], values[alone], "o",
                color=colour, markerfacecolor=face, markersize=2.5, markeredgewidth=0.7,
            )  # fmt: skip


def course(times_s: Floats, lengths_s: Floats, figures: Values) -> tuple[Floats, Floats, Floats]:
    """Return the middles of intervals with their p99 and p50, with NaN where intervals are missing.

    ``times_s`` and ``lengths_s``, shape ``(k,)``, are the starts and lengths, ``figures``, shape
    ``(k, 8)``, the figures of the report. A point with NaN per gap keeps lines from crossing it.
    """
    middles = times_s + lengths_s / 2
    p99, p50 = (np.maximum(figures[:, column], 1).astype(np.float64) for column in (_P99, _P50))
    ends = times_s[:-1] + lengths_s[:-1]
    after = np.flatnonzero(times_s[1:] - ends > GAP * lengths_s[:-1]) + 1
    moments = np.insert(middles, after, ends[after - 1])
    return moments, np.insert(p99, after, np.nan), np.insert(p50, after, np.nan)


def _percentile_axis(panels: list[Axes]) -> None:
    ends = [float(np.max(np.asarray(line.get_xdata()))) for panel in panels for line in panel.get_lines()]
    deepest = max([10.0, *ends])
    decades = range(int(np.log10(deepest)) + 1)
    for panel in panels:
        panel.set_xscale("log")
        panel.set_xticks([10.0**d for d in decades], [_nines(d) for d in decades])
        panel.minorticks_off()
        panel.set_xlim(1, deepest * 1.02)
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("percentile of values, stretched towards 100 %")


def _nines(decade: int) -> str:
    return "0 %" if not decade else f"{100 - 100 / 10**decade:.{max(decade - 2, 0)}f} %"


def _time_axis(panels: list[Axes], report: Report) -> None:
    from matplotlib import dates as untyped

    dates: Any = untyped
    start_s, end_s, _ = report.latencies.span_s
    start, end = (dates.date2num(datetime.fromtimestamp(moment, UTC)) for moment in (start_s, end_s))
    for panel in panels:
        panel.set_xlim(start, end)
        locator = dates.AutoDateLocator(minticks=3, maxticks=7)
        panel.xaxis.set_major_locator(locator)
        panel.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
        panel.tick_params(labelbottom=True, labelleft=True)
        panel.set_xlabel("time (UTC)", loc="left")


def _latency_axis(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few = high < low * 300
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown_ns(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("latency (logarithmic)")
    axes.grid(True, which="major", alpha=0.3)


def _label_ends(axes: Axes) -> None:
    """Label each curve to the right of the panel, at the height of its end, with a leader line."""
    # Dashed lines share the colour of a labelled line; dots get no label.
    lines = [line for line in axes.get_lines() if line.get_linestyle() == "-"]
    low, high = np.log10(axes.get_ylim())
    ends = []
    for line in lines:
        x = np.asarray(line.get_xdata(orig=False), np.float64)
        y = np.asarray(line.get_ydata(orig=False), np.float64)
        last = int(np.flatnonzero(~np.isnan(y))[-1])
        ends.append((float(x[last]), float(y[last])))
    heights = apart([(np.log10(y) - low) / (high - low) for _, y in ends])
    for line, end, height in zip(lines, ends, heights, strict=True):
        axes.annotate(
            str(line.get_label()), end, (_LABEL_X, height), "data", "axes fraction",
            color=line.get_color(), fontsize="small", va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "alpha": 0.45, "linewidth": 0.7,
                        "linestyle": ":", "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def apart(heights: list[float]) -> list[float]:
    """Return ``heights``, as fractions of a panel, moved apart so that labels do not overlap."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    # Place each label at its height or above the one below it; then move down those that exceed the panel.
    placed: list[float] = []
    for number in order:
        placed.append(max([heights[number], *(p + _LABEL_HEIGHT for p in placed[-1:])]))
    ceiling = 1 - _LABEL_HEIGHT / 2
    for place in reversed(range(len(placed))):
        placed[place] = min(placed[place], ceiling)
        ceiling = placed[place] - _LABEL_HEIGHT
    found = [0.0] * len(heights)
    for number, height in zip(order, placed, strict=True):
        found[number] = height
    return found
