"""Shared parts of the replay tests: construct a feed, run it unpaced to its end, return its ticks."""

from __future__ import annotations

import msgspec
import pytest

from marketfeed.errors import ConfigError, SourceError
from marketfeed.feeds.replay import ReplayConfig, ReplayFeed
from marketfeed.testing import RecordingIntake


def make(folder, max_symbols=8192, **settings):
    """Return a feed and its intake."""
    intake = RecordingIntake(base=folder, max_symbols=max_symbols)
    return ReplayFeed(msgspec.convert(settings, ReplayConfig), intake), intake


async def replayed(folder, **settings):
    """Replay to the end; return the intake."""
    feed, intake = make(folder, speed=0, **settings)
    await feed.run(intake.publish)
    return intake


async def damaged(folder, **settings):
    """Replay a damaged recording until it fails; return the intake and the error message."""
    feed, intake = make(folder, speed=0, **settings)
    with pytest.raises(SourceError) as caught:
        await feed.run(intake.publish)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.__cause__ is None
    return intake, text


async def outcome(folder, **settings):
    """Replay a possibly damaged recording; return the intake, None if it was refused, and the error message.

    Any exception but ConfigError and SourceError with one line of text fails the test.
    """
    intake, error = None, None
    try:
        feed, intake = make(folder, speed=0, **settings)
        await feed.run(intake.publish)
    except (ConfigError, SourceError) as raised:
        error = raised
    if error is None:
        return intake, ""
    assert error.__cause__ is None, repr(error.__cause__)
    text = str(error)
    assert text
    assert text.isprintable(), text
    return intake, text


def refusals(folder, **settings):
    """Return the lines of the ConfigError of a feed."""
    with pytest.raises(ConfigError) as caught:
        make(folder, **settings)
    return str(caught.value).splitlines()


def refusal(folder, **settings):
    """Return the ConfigError of a feed, which must have one line."""
    (line,) = refusals(folder, **settings)
    return line


def names(intake, records):
    """Return the symbol's name of each record."""
    known = intake.symbols.names()
    return [known[number] for number in records["symbol"].tolist()]
