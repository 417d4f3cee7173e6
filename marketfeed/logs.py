"""Logging: to stderr, for people on a terminal, as JSON lines otherwise."""

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
    """Escape what peers and files put into an event: a terminal would act on it."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = printable(value, MOST)
    return event


def configure(level: str = "info") -> None:
    """Set up structlog for this process; ``level`` is debug, info, warning or error."""
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,  # which worker says it
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # JSON escapes by itself, and has tracebacks as values.
    shared.append(_escaped if terminal else structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        # A line in one write: several processes share this stderr.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
