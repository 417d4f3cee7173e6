"""What tests of recordings share: a feed made, run to its end as fast as it goes, and its ticks."""

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
    """Replay up to the damage that ends it for good; return the intake and what is said of it."""
    feed, intake = make(folder, speed=0, **settings)
    with pytest.raises(SourceError) as caught:
        await feed.run(intake.publish)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.__cause__ is None
    return intake, text


async def outcome(folder, **settings):
    """Replay what may be damaged; return the intake, None if it was refused, and what is said of it.

    Any exception but the two that say so in one line is a fault.
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
    """Return the lines that say why a feed cannot be made."""
    with pytest.raises(ConfigError) as caught:
        make(folder, **settings)
    return str(caught.value).splitlines()


def refusal(folder, **settings):
    """Return the one line that says why a feed cannot be made."""
    (line,) = refusals(folder, **settings)
    return line


def names(intake, records):
    """Return the symbol's name of each record."""
    known = intake.symbols.names()
    return [known[number] for number in records["symbol"].tolist()]
