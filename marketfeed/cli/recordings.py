"""What commands that read a recording share: its format, the feed that replays it, a progress bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from marketfeed.errors import ConfigError
from marketfeed.ingest.registry import FeedSpec, feed_specs

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from marketfeed.config.schema import Loaded

_BY_SUFFIX: Final = {".mfr": "marketfeed", ".dbn": "dbn", ".csv": "csv", ".parquet": "parquet", ".zip": "csv"}


def format_of(path: Path) -> str:
    """Return the format by the file's name; a folder holds recordings of marketfeed."""
    suffixes = [s for s in map(str.lower, path.suffixes) if s not in (".gz", ".zst", ".bz2", ".xz")]
    if path.is_dir():
        return "marketfeed"
    return _BY_SUFFIX.get(suffixes[-1] if suffixes else "", "binance-raw")


def feed_of(loaded: Loaded, recording: Path, format: str | None, feed: str | None) -> FeedSpec:
    """Return the feed that replays ``recording``, with the keys of the configured ``feed``.

    Raises ConfigError.
    """
    table: dict[str, Any] = {}
    if feed is not None:
        tables = {t.get("name", t.get("type")): t for t in loaded.config.feeds}
        if tables.get(feed, {}).get("type") != "replay":
            raise ConfigError(f"--feed {feed}: {loaded.source} has no feed of this name and type replay")
        table = dict(tables[feed])
    table |= {"name": "recording", "type": "replay", "path": str(recording.resolve())}
    table |= {"speed": 1.0, "loop": False, "start_sessions": 0}
    if format is not None or feed is None:
        table["format"] = format or format_of(recording)
    (spec,) = feed_specs([table])
    return spec


def progress_bar(console: Console, size: ProgressColumn) -> Progress:
    """Return a bar whose tasks count ticks; ``size`` shows how many of them."""
    title = TextColumn("{task.description}", markup=False)
    return Progress(title, BarColumn(), size, _Rate(), TimeRemainingColumn(), console=console, transient=True)


class _Rate(ProgressColumn):
    """Progress column: ticks per second."""

    def render(self, task: Task) -> Text:
        """Return the rate so far."""
        return Text(f"{task.speed or 0:,.0f} ticks/s")
