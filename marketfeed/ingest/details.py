"""Validation of the kind and the conditions of published trades."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marketfeed.core.details import valid_conditions
from marketfeed.core.records import KIND_TRADE, Batch

if TYPE_CHECKING:
    from collections.abc import Callable


def with_valid_details(batch: Batch, count: Callable[[str, int], None]) -> Batch:
    """Return ``batch`` with valid conditions, and without cancels and corrections; count both with ``count``.

    Protocol v1 has no message for cancels and corrections; subscribers would mistake them for trades.
    """
    trades = batch.trades
    conditions = valid_conditions(trades)
    invalid = conditions != trades["cond"]
    if invalid.any():
        count("condition_invalid", int(np.count_nonzero(invalid)))
    trades["cond"] = conditions
    trades["unused"] = b""
    kept = trades["kind"] == KIND_TRADE
    if kept.all():
        return batch
    count("not_a_trade", int(np.count_nonzero(~kept)))
    return batch.only(np.ones(len(batch.quotes), bool), kept)
