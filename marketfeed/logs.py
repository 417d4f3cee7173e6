"""Logging to stderr: as text on a terminal, otherwise as JSON lines."""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog

from marketfeed.core.printable import printable

MOST: Final = 2000  # characters of one value on a terminal


def _escaped(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape control characters in values, which may come from peers and files."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = printable(value, MOST)
    return event


def configure(level: str = "info") -> None:
    """Set up structlog for this process; ``level`` is debug, info, warning or error."""
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        # Tracebacks without the values of variables, which may be tokens.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,  # the worker, if any
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # JSON escapes control characters, and needs tracebacks as strings.
    shared.append(_escaped if terminal else structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        # One write per line, because several processes share stderr.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
