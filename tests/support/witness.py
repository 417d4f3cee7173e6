"""Checks what a client of an engine saw: no tick twice, none out of order, and no hole that was not told.

A client, in whatever language, reports each message in its place in the stream as an object: ticks, `gap`,
`lag` and `subscription` of the engine, and what clients add: `connected` (or the engine's `success` with the
epoch), `disconnected`, `resumed` and `reset`. The numbers ``n`` of the ticks tell the rest.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

Key = tuple[str, str]  # "q" or "t", symbol
CHANNELS = {"quotes": "q", "trades": "t"}


class Witness:
    """The state of one client's stream. :meth:`see` raises AssertionError at the first breach.

    ``every``: whether the tier sends every tick, unless `connected` says so of all tiers. ``ordered``:
    whether the order of ``g`` over all symbols is checked too, which a broken proxy can change.
    """

    def __init__(self, *, every: bool = True, ordered: bool = True) -> None:
        self.every, self.ordered = every, ordered
        self.seen: Counter[str] = Counter()
        self.last: dict[Key, int] = {}
        self.epoch: str | None = None
        self._tiers: dict[str, str] = {}
        self.lagging = False
        self.silent = 0  # gaps that the engine did not announce
        self._g = 0  # of the newest live tick of this connection
        self._excused: set[Key] = set()
        self._lenient: set[str] = set()  # kinds whose first tick of a symbol may have any number
        self._told: dict[Key, tuple[int, int]] = {}  # ticks told to be lost, number of the next one
        self._due: set[Key] = set()  # after a restart: a reset is to come before a tick of these

    def see(self, message: dict[str, Any]) -> None:
        """Take the next message."""
        kind = message["T"]
        self.seen[kind] += 1
        handle = getattr(self, f"_{kind}", None)
        if handle is not None:
            handle(message)

    def forget(self, key: Key) -> None:
        """The client has left this symbol: it begins anew when it comes again."""
        self.last.pop(key, None)
        self._due.discard(key)

    def _success(self, message: dict[str, Any]) -> None:
        if message["msg"] == "connected":
            self._connected(message)

    def _connected(self, message: dict[str, Any]) -> None:
        if message["epoch"] != self.epoch:
            self._due = set(self.last)
            self.last.clear()
            self._excused.clear()
            self._lenient.clear()
            self._told.clear()
        self.epoch = message["epoch"]
        self._tiers = message.get("tiers", {})
        self._g = 0

    def _disconnected(self, message: dict[str, Any]) -> None:
        left_out = "" if self.every and not self.lagging else "q" if self.every else "qt"
        for kind in left_out:  # what was left out before the cut is not sent again
            self._excused.update(key for key in self.last if key[0] == kind)
            self._lenient.add(kind)
        self.lagging = False
        self._g = 0

    def _subscription(self, message: dict[str, Any]) -> None:
        if "tier" in message and self._tiers:  # marketfeed.js has none on polls
            self.every = self._tiers[message["tier"]] == "every"
        self._g = 0  # what an added request resumes from may be older

    def _lag(self, message: dict[str, Any]) -> None:
        self.lagging = message["on"]

    def _reset(self, message: dict[str, Any]) -> None:
        names = message["symbols"]
        exact, prefixes = set(names), tuple(name[:-1] for name in names if name.endswith("*"))
        for key in [*self.last, *self._due]:
            if key[1] in exact or key[1].startswith(prefixes):
                self._excused.add(key)
                self._due.discard(key)

    def _gap(self, message: dict[str, Any]) -> None:
        self.silent += message.get("announced") is False
        key = (CHANNELS[message["channel"]], message["S"])
        lost, _ = self._told.get(key, (0, 0))
        self._told[key] = (lost + message["lost"], message["n"])

    def _q(self, message: dict[str, Any]) -> None:
        self._tick("q", message)

    def _t(self, message: dict[str, Any]) -> None:
        self._tick("t", message)

    def _tick(self, kind: str, message: dict[str, Any]) -> None:
        key, n = (kind, message["S"]), message["n"]
        last, told = self.last.get(key), self._told.pop(key, None)
        assert key not in self._due, f"a tick of another epoch without a reset: {message}"
        excused = key in self._excused or (last is None and kind in self._lenient)
        self._excused.discard(key)
        snap = message.get("snap") == 1
        if last is not None and not (snap and n == last):  # a snapshot repeats the newest tick
            assert n > last, f"{key}: {n} after {last}"
        if not snap:
            assert message["g"] > self._g or not self.ordered, f"{key}: g {message['g']} after {self._g}"
            self._g = message["g"]
        if self.every and not excused and not (self.lagging and kind == "q"):
            before = last if last is not None else (n - 1 if snap else 0)
            missing = max(n - before - 1, 0)
            lost = told[0] if told is not None and told[1] == n else 0
            if last is not None or not told:  # a gap before the first tick may have any number
                assert missing == lost, f"{key}: {last} → {n}, told {told}"
        self.last[key] = n
