"""What an operator should know of, as a value: shown by ``/readyz`` and counted in ``/metrics``."""

from __future__ import annotations

from typing import NamedTuple


class Condition(NamedTuple):
    """Something that is not as it should be, now."""

    kind: str  # one of health.KINDS
    subject: str  # the feed's name, the worker's number; "" where there is only one
    text: str
