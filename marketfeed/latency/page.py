"""A report as a self-contained HTML page: no scripts, no fonts, no other files."""

from __future__ import annotations

import base64
from html import escape

from marketfeed.latency.colours import painted
from marketfeed.latency.intervals import MEANINGS
from marketfeed.latency.pictures import png
from marketfeed.latency.report import (
    SPREAD_NOTE,
    TITLES,
    Report,
    ReportRow,
    Shown,
    shown_changes,
    shown_figures,
)

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #d8dee4;font-variant-numeric:tabular-nums}
th.key,td.key{text-align:left}
tr.broken td{background:#ffebe9}
img{max-width:100%}
.note{color:#9a6700}.broken-note{color:#cf222e}
small,dd{color:#59636e}
dt{font-weight:bold;float:left;clear:left;width:8rem}dd{margin:0 0 .3rem 8rem}
i.line{display:inline-block;width:1.1em;height:.28em;margin-right:.45em;vertical-align:middle}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}
tr.broken td{background:#4b1113}img{background:#fff}}
"""


def html(report: Report) -> str:
    """Return the page. Raises LogError if matplotlib is not installed."""
    picture = base64.b64encode(png(report)).decode("ascii")
    names = ", ".join(str(path) for path in report.paths)
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>Latency: {escape(names)}</title><style>{_STYLE}</style>",
        f"<h1>Latency</h1><p>{escape(names)}<br>{escape(report.span)}</p>",
        *(f'<p class="broken-note">Over budget: {escape(text)}</p>' for text in report.broken),
        *(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        _table(report, report.rows, TITLES, shown_figures),
    ]
    if report.against:
        before = ", ".join(str(path) for path in report.against)
        parts += [
            f"<h2>Change against {escape(before)}</h2>",
            _table(report, [row for row in report.rows if row.changes], TITLES[1:], shown_changes),
            f"<p><small>{escape(SPREAD_NOTE)}</small></p>",
        ]
    hops = dict.fromkeys(row.key[0] for row in report.rows if row.key[0] in MEANINGS)
    meanings = "".join(f"<dt>{escape(hop)}</dt><dd>{escape(MEANINGS[hop])}</dd>" for hop in hops)
    if meanings:
        parts.append(f"<h2>What each hop measures</h2><dl>{meanings}</dl>")
    parts.append(
        f'<h2>Percentiles, overall and over time</h2><img alt="Latency over percentile, and p50 and p99'
        f' over time, per hop" src="data:image/png;base64,{picture}">'
    )
    return "\n".join(parts) + "\n"


def _table(report: Report, rows: list[ReportRow], titles: tuple[str, ...], cells: Shown) -> str:
    colours = painted({row.key: row.figures[0] for row in report.rows}, report.choice.keys)
    # A line in the colour of the curves stands before the field that names them.
    coloured = (
        report.choice.keys.index("tier") if "tier" in report.choice.keys else len(report.choice.keys) - 1
    )
    head = "".join(f'<th class="key">{escape(name)}</th>' for name in report.choice.keys)
    head += "".join(f"<th>{escape(title)}</th>" for title in titles)
    lines = [f"<table><tr>{head}</tr>"]
    for row in rows:
        kind = ' class="broken"' if row.broken else ""
        line = f'<i class="line" style="background:{colours[row.key]}"></i>'
        key = "".join(
            f'<td class="key">{line if place == coloured else ""}{escape(value)}</td>'
            for place, value in enumerate(row.key)
        )
        lines.append(f"<tr{kind}>{key}{''.join(f'<td>{escape(cell)}</td>' for cell in cells(row))}</tr>")
    return "\n".join(lines) + "\n</table>"
