"""Technical debt in figures: ``make debt``. Exits with 1 if one of them is beyond its limit.

complexity    ruff C901: branches of a function, at most 12
length        lines of a file: more than 300 are listed, more than 400 are a breach
duplication   pylint: blocks of 6 equal lines in two places, imports and docstrings left out
imports       tests/test_layers.py: layers, and no import cycle
coverage      lines that tests run, per package, in all processes: at least 90 %, core and fanout 95 %

Coverage is read from build/coverage, where `make debt` has measured it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = ("marketfeed", "feeds")
MAX_COMPLEXITY: Final = 12
LONG_LINES: Final = 300
MAX_LINES: Final = 400
SAME_LINES: Final = 6
MIN_COVERED: Final = 90.0  # %
MIN_COVERED_OF: Final = {"marketfeed/core": 95.0, "marketfeed/fanout": 95.0}


class Figure(NamedTuple):
    """One line of the table; ``breach`` says whether it is beyond its limit."""

    what: str
    value: str
    limit: str
    breach: bool


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)


def complexity() -> Iterator[Figure]:
    limit = f"lint.mccabe.max-complexity={MAX_COMPLEXITY}"
    done = tool(
        "ruff", "check", "--select", "C901", "--config", limit, "--output-format", "json", *SOURCES, "perf"
    )
    for found in json.loads(done.stdout):
        where = f"{Path(found['filename']).relative_to(ROOT)}:{found['location']['row']}"
        yield Figure(f"complexity of {where}", found["message"], f"≤ {MAX_COMPLEXITY}", True)


def length() -> Iterator[Figure]:
    for path in sorted(path for source in SOURCES for path in (ROOT / source).rglob("*.py")):
        lines = len(path.read_text("utf-8").splitlines())
        if lines > LONG_LINES:
            name = str(path.relative_to(ROOT))
            yield Figure(f"length of {name}", f"{lines} lines", f"≤ {MAX_LINES}", lines > MAX_LINES)


def duplication() -> Iterator[Figure]:
    done = tool(
        "pylint", "--disable=all", "--enable=duplicate-code", f"--min-similarity-lines={SAME_LINES}",
        "--ignore-imports=y", "--ignore-docstrings=y", "--ignore-signatures=y", "--output-format=json",
        *SOURCES,
    )  # fmt: skip
    for found in json.loads(done.stdout):
        places = [line for line in found["message"].splitlines() if line.startswith("==")]
        yield Figure("duplicated block", ", ".join(places), f"< {SAME_LINES} lines", True)


def imports() -> Iterator[Figure]:
    done = tool("pytest", "-q", "-p", "no:cacheprovider", "tests/test_layers.py")
    last = (done.stdout.strip().splitlines() or [done.stderr])[-1]
    yield Figure("import layers and cycles", last, "no failure", done.returncode != 0)


def package_of(path: str) -> str:
    """Return ``feeds``, ``marketfeed/core`` …, or ``marketfeed`` for the modules that are in no package."""
    first, *rest = path.split("/")
    return f"{first}/{rest[0]}" if first == "marketfeed" and len(rest) > 1 else first


def coverage() -> Iterator[Figure]:
    done = tool("coverage", "json", "-q", "-o", "-")
    if done.returncode:
        yield Figure("coverage", (done.stdout or done.stderr).strip(), "measured", True)
        return
    lines: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    for path, file in json.loads(done.stdout)["files"].items():
        package = package_of(path)
        lines[package] += file["summary"]["num_statements"]
        covered[package] += file["summary"]["covered_lines"]
    for package in sorted(lines):
        share = 100 * covered[package] / max(lines[package], 1)
        floor = MIN_COVERED_OF.get(package, MIN_COVERED)
        yield Figure(f"coverage of {package}", f"{share:.1f} %", f"≥ {floor:g} %", share < floor)


def main() -> int:
    console = Console()
    table = Table("what", "value", "limit", title="technical debt")
    breaches = 0
    for measure in (complexity, length, duplication, imports, coverage):
        with console.status(measure.__name__):
            for figure in measure():
                style = "red" if figure.breach else None
                table.add_row(figure.what, figure.value, figure.limit, style=style)
                breaches += figure.breach
    console.print(table)
    console.print(f"{breaches} beyond their limit" if breaches else "nothing beyond its limit")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
