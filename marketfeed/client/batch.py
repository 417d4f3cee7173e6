"""A batch: what one message of the WebSocket held, as arrays of ticks and a list of other messages."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.client.messages import Quote, Trade
from marketfeed.core.fixed import SCALE
from marketfeed.core.records import FLAG_SNAPSHOT, NO_QUOTES, NO_TRADES, Records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from marketfeed.client.messages import Message

_NO_NAMES: Final = np.empty(0, object)
_NO_SYMBOLS: Final[Mapping[str, int]] = MappingProxyType({})


class Batch:
    """Ticks and other messages in order of arrival.

    On a binary session ``quotes``, shape ``(k,)`` and dtype QUOTE, and ``trades``, shape ``(m,)`` and dtype
    TRADE, are read-only views of the received ``data``, and ``messages`` holds everything else. The messages
    precede the ticks. On a JSON session the arrays are empty, and ``messages`` holds the ticks too.

    ``arrived_ns`` is this machine's Unix time of the read; ``sent_ns`` the engine's time of sending, 0 if
    unknown. ``data`` is the message as received, but decompressed; it is empty if the client made the batch,
    for example to tell that the connection was lost. ``symbols`` are the ids by name that ``data`` announces.
    """

    __slots__ = ("_names", "arrived_ns", "data", "messages", "quotes", "sent_ns", "symbols", "trades")

    def __init__(
        self,
        messages: list[Message],
        arrived_ns: int,
        data: bytes | str = b"",
        quotes: Records = NO_QUOTES,
        trades: Records = NO_TRADES,
        names: NDArray[np.object_] = _NO_NAMES,
        sent_ns: int = 0,
        symbols: Mapping[str, int] = _NO_SYMBOLS,
    ) -> None:
        self.messages = messages
        self.arrived_ns, self.sent_ns = arrived_ns, sent_ns
        self.data = data
        self.quotes, self.trades = quotes, trades
        self.symbols = symbols
        self._names = names

    def __repr__(self) -> str:
        counts = f"{len(self.quotes)} quotes, {len(self.trades)} trades, {len(self.messages)} messages"
        return f"<Batch: {counts}>"

    def names(self, ids: NDArray[np.integer[Any]] | Sequence[int]) -> NDArray[np.object_]:
        """Return the names of symbol ids, such as ``batch.quotes["symbol"]``: strings, in the same shape."""
        found: NDArray[np.object_] = self._names[ids]
        return found

    def in_order(self) -> list[Message]:
        """Return all messages, ticks of the arrays included, as structs and in order of ``g``.

        On a JSON session these are ``messages``. Else it costs 2 µs a tick.
        """
        if not len(self.quotes) and not len(self.trades):
            return self.messages
        ticks = [*map(_quote, self.names(self.quotes["symbol"]), self.quotes.tolist())]
        ticks += map(_trade, self.names(self.trades["symbol"]), self.trades.tolist())
        if len(self.quotes) and len(self.trades):
            ticks.sort(key=_g)
        return [*self.messages, *ticks]

    def to_pandas(self, channel: str = "quotes") -> Any:
        """Return the `quotes` or the `trades` as a pandas DataFrame.

        Its columns are those of exported recordings. Times are UTC; a missing price is NaN. Raises
        ImportError if pandas is not installed.
        """
        from marketfeed.client.frames import frame_of, records_of

        records, names = (self.quotes if channel == "quotes" else self.trades), self._names
        if not len(records):
            records, names = records_of(self.messages, channel)
        return frame_of(records, names, channel)


def _g(tick: Any) -> int:
    g: int = tick.g
    return g


def _quote(name: str, row: tuple[Any, ...]) -> Any:
    """Return the quote in ``row``, the fields of a QUOTE record, as in JSON."""
    event_ns, recv_ns, g, bid_px, ask_px, bid_sz, ask_sz, n, _, _, flags = row
    return Quote(
        t=event_ns // 1000,
        r=recv_ns // 1000,
        n=n,
        g=g,
        S=name,
        bp=bid_px / SCALE if bid_sz else None,
        bs=bid_sz,
        ap=ask_px / SCALE if ask_sz else None,
        as_=ask_sz,
        **_SNAP[flags & FLAG_SNAPSHOT],
    )


_SNAP: Final[tuple[dict[str, Any], dict[str, Any]]] = ({}, {"snap": 1})


def _trade(name: str, row: tuple[Any, ...]) -> Any:
    """Return the trade in ``row``, the fields of a TRADE record, as in JSON."""
    event_ns, recv_ns, g, price, trade_id, size, side, _, cond, _, n, _, _, flags = row
    more = dict(_SNAP[flags & FLAG_SNAPSHOT])
    if cond:
        more["c"] = list(cond.replace(b"\0", b"").decode("latin-1"))
    return Trade(
        t=event_ns // 1000,
        r=recv_ns // 1000,
        n=n,
        g=g,
        S=name,
        p=price / SCALE,
        s=size,
        d=chr(side),
        i=trade_id,
        **more,
    )
