"""How long does the report of a day take?

    24 h of 10-second intervals × 30 tags, written by the log ──► marketfeed report --html --csv

Reports: seconds to read, merge and draw a day, in one process. Not covered: disks, because the file is in the
page cache. The counts in the CSV are checked against the written ones.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from marketfeed.core.histogram import Histogram
from marketfeed.latency.intervals import Interval, Tag
from marketfeed.latency.log import IntervalLog

S = 1_000_000_000
START_NS = 1_790_035_200 * S  # a midnight
TAGS = [Tag(hop, tier, str(worker)) for hop in ("ring", "wait", "encode", "send", "total")
        for tier in ("vip", "premium", "basic") for worker in range(2)]  # fmt: skip
VALUES = 4096


def write_day(path: Path, hours: float) -> int:
    """Write the log; return its number of values."""
    rng = np.random.default_rng(0)
    log = IntervalLog(path, 1 << 40, 1)
    total = 0
    # Sixteen histograms per tag, reused: encoding a quarter of a million is not measured.
    shapes = []
    for number, tag in enumerate(TAGS):
        for _ in range(16):
            histogram = Histogram()
            values = rng.lognormal(11 + number / 10, 0.8, VALUES).astype(np.int64)
            histogram.record(values, rng.integers(1, 50, VALUES))
            shapes.append(Interval.of(tag, histogram, 0, 10 * S)[0])
    for step in range(int(hours * 360)):
        start_ns = START_NS + step * 10 * S
        intervals = []
        for number, tag in enumerate(TAGS):
            shape = shapes[number * 16 + step % 16]
            total += shape.count
            intervals.append(
                Interval(tag, start_ns, start_ns + 10 * S, shape.max_ns, shape.count, 0, shape.encoded)
            )
        log.write(intervals, START_NS)
    log.close()
    return total


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hours", type=float, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latency.hlog"
        total = write_day(path, options.hours)
        lines = int(options.hours * 360) * len(TAGS)
        print(f"{options.hours:g} h: {lines:,} histograms, {path.stat().st_size / 1e6:.0f} MB")
        start = time.perf_counter()
        out = ["--html", f"{folder}/o.html", "--csv", f"{folder}/o.csv"]
        subprocess.run([sys.executable, "-m", "marketfeed", "report", str(path), *out], check=True)
        seconds = time.perf_counter() - start
        with open(f"{folder}/o.csv", encoding="utf-8") as file:
            counted = sum(int(row["count"]) for row in csv.DictReader(file))
        # Lost values invalidate the figures.
        assert counted == total, (counted, total)
        print(f"report: {seconds:.1f} s, {seconds / lines * 1e6:.0f} µs a histogram")


if __name__ == "__main__":
    main()
