"""A report as a picture: percentile curves and their course over time, one row of panels per hop."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.errors import LogError
from marketfeed.latency.report import TITLES, Report, Row
from marketfeed.latency.units import shown_ns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LINES: Final = 10  # of one panel: the ones with the most values
DPI: Final = 110
_P50, _P99 = TITLES.index("p50"), TITLES.index("p99")


def png(report: Report) -> bytes:
    """Return the report's curves as a PNG. Raises LogError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # without pyplot: no window system, no global state
    except ImportError:
        raise LogError("pictures need matplotlib: pip install 'marketfeed[report]'") from None
    panels: dict[str, list[Row]] = {}
    for row in report.rows:
        if row.figures[0]:
            panels.setdefault(row.key[0], []).append(row)
    figure = Figure(figsize=(13, 0.6 + 2.7 * len(panels)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(panels), 2, squeeze=False)
    for (hop, rows), (left, right) in zip(panels.items(), axes, strict=True):
        most = sorted(rows, key=lambda row: -row.figures[0])[:MAX_LINES]
        chosen = [row for row in rows if row in most]  # in the table's order: the same colour in each panel
        title = hop.replace("_", " ") or "latency"
        if len(chosen) < len(rows):
            title += f" (the {len(chosen)} of {len(rows)} with the most values)"
        _curves(left, report, chosen)
        left.set_title(title, loc="left", fontweight="bold", parse_math=False)
        _courses(right, report, chosen)
    figure.suptitle(
        f"{', '.join(path.name for path in report.paths)[:100]} · {report.span}", parse_math=False
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "marketfeed"})
    return buffer.getvalue()


def _label(row: Row) -> str:
    text = " ".join(filter(None, row.key[1:])) or "all"
    # matplotlib would read `$` as mathematics and hide a label that begins with an underscore.
    return ("\u2009" if text.startswith("_") else "") + text.replace("$", r"\$")


def _curves(axes: Axes, report: Report, rows: list[Row]) -> None:
    """Latency over percentile, the axis stretched towards 100 % as HdrHistogram's own plots do."""
    deepest = 1.0
    for row in rows:
        values, cumulative = report.latencies.merged[row.key].curve()
        total = int(cumulative[-1])
        below = np.concatenate([[0], cumulative[:-1]])
        x = total / (total - below)  # 1 / (1 - share of values below)
        deepest = max(deepest, float(x[-1]))
        axes.step(x, np.maximum(values, 1), where="post", label=_label(row), linewidth=1.3)
    axes.set_xscale("log")
    decades = range(int(np.ceil(np.log10(deepest))) + 1)
    axes.set_xticks([10.0**d for d in decades], [_nines(d) for d in decades])
    axes.minorticks_off()
    axes.set_xlim(1, max(deepest, 10))
    axes.set_xlabel("percentile")
    _latency_axis(axes)
    axes.legend(fontsize="small", loc="upper left")


def _nines(decade: int) -> str:
    return "0 %" if not decade else f"{100 - 100 / 10**decade:.{max(decade - 2, 0)}f} %"


def _courses(axes: Axes, report: Report, rows: list[Row]) -> None:
    """p99 over time, and p50 dashed."""
    from matplotlib import dates as untyped

    dates: Any = untyped
    for row in rows:
        times_s, figures = report.latencies.series(row.key)
        moments: Any = [datetime.fromtimestamp(t, UTC) for t in times_s.tolist()]
        marker = "." if len(moments) < 3 else None
        (line,) = axes.plot(moments, figures[:, _P99], linewidth=1.2, marker=marker)
        axes.plot(moments, figures[:, _P50], linewidth=1.0, linestyle="--", color=line.get_color())
    locator = dates.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.set_xlabel("time (UTC); p99, dashed p50")
    _latency_axis(axes)


def _latency_axis(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown_ns(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", alpha=0.3)
