"""A change of one session's subscription."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from marketfeed.core.cursor import Cursor
    from marketfeed.fanout.interest import Names
    from marketfeed.fanout.resume import Resumption
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.fanout.wire import Encoding


@dataclass(slots=True)
class SubscriptionChange:
    """A session's request, applied between flushes."""

    member: Subscriber
    names: Names  # of the subscription afterwards, all of them
    tier: Tier
    encoding: Encoding
    answer: Callable[[Resumption | None], bytes]  # returns the framed answer; b"": none
    synced: bool  # whether to send `synced` after it
    request_id: str | int | None = None
    after: Cursor | None = None  # the client's cursor, for names that are new
    # At application: names in place of ``names``; and what of names and a tier is entitled then.
    revise: Callable[[Names], Names] | None = None
    entitle: Callable[[Names, Tier], tuple[Names, Tier]] | None = None
    applied: trio.Event | None = None
