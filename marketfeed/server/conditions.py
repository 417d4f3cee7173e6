"""Conditions that operators should act on, as shown by ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from typing import NamedTuple


class Condition(NamedTuple):
    """A problem or a warning at this moment."""

    kind: str  # one of health.KINDS
    subject: str  # the feed's name, the worker's number; "" if there is only one
    text: str
