"""Random sequences of what a client and its operator do, against an obvious model of what may be seen.

A sequence has one holder with several tokens. Each step is one of connect, auth, subscribe, unsubscribe, tier
change, renewal, resume, publish, a new symbol, revoke and expiry, on a random transport. The model keeps the
claims of the token that the session holds, and compares each tick that arrives with them, symbol by symbol.
"""

from __future__ import annotations

import itertools
import json
import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trio
import trio_websocket

from tests.support.entitled_clients import Held, Lines, Stream, head, matched, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LETTERS = "ABC"
SYMBOLS = [f"{letter}{number}" for letter in LETTERS for number in range(4)]
TRANSPORTS = ("auth", "header", "ticket", "events", "events by ticket", "poll", "short poll", "binary")
TIERS = ("vip", "premium")
_numbers = itertools.count()


class World(Protocol):
    """An engine, and what its operator can do."""

    port: int

    def token(self, symbols: list[str], **claims: Any) -> str:
        """Return a token; ``ttl_s`` among the claims is how long it is good for."""
        ...

    async def publish(self, channel: str, *symbols: str) -> None:
        """Publish a tick of each symbol."""
        ...

    async def revoke(self, sub: str) -> None:
        """Revoke what was issued to ``sub``."""
        ...

    async def expire(self) -> None:
        """Let tokens that are good for EXPIRING_S expire, with the grace."""
        ...


EXPIRING_S = 60.0


@dataclass
class Seen:
    """What a sequence has seen, for the check that it saw something."""

    ticks: int = 0
    refused: int = 0
    sessions: int = 0
    ended: int = 0
    by_transport: dict[str, int] = field(default_factory=dict)

    def add(self, other: Seen) -> None:
        self.ticks += other.ticks
        self.refused += other.refused
        self.sessions += other.sessions
        self.ended += other.ended
        for name, count in other.by_transport.items():
            self.by_transport[name] = self.by_transport.get(name, 0) + count


class Leak(AssertionError):
    """Something arrived that is not entitled."""


class Sequence:
    """One sequence; deterministic for its ``seed`` but for what the engine does."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.sub = f"user-{next(_numbers)}"
        self.seen = Seen()
        self.steps: list[str] = [f"seed {seed}"]
        self.symbols = list(SYMBOLS)

    async def run(self) -> Seen:
        """Run a few sessions; raises Leak."""
        cursor = None
        for _ in range(self.random.randint(1, 3)):
            transport = self.random.choice(TRANSPORTS)
            self.seen.sessions += 1
            self.seen.by_transport[transport] = self.seen.by_transport.get(transport, 0) + 1
            try:
                with trio.fail_after(30):
                    cursor = await self._session(transport, cursor if self.random.random() < 0.6 else None)
            except trio.TooSlowError:
                raise AssertionError(f"stuck: {self.steps}") from None
        return self.seen

    # The model.

    def new_token(self, ttl_s: float = 3600.0) -> Held:
        kinds = ["*", *(f"{letter}*" for letter in LETTERS), *SYMBOLS, "N*"]
        symbols = self.random.sample(kinds, self.random.randint(0, 4))
        channels = self.random.choice([["quotes"], ["trades"], ["quotes", "trades"], ["quotes", "trades"]])
        tier = self.random.choice(TIERS)
        text = self.world.token(symbols, sub=self.sub, channels=channels, tier=tier, ttl_s=ttl_s)
        return Held(text, symbols, channels, tier)

    def check(self, held: Held | None, channel: str | None, symbol: str) -> None:
        """Raise Leak if a tick of ``symbol`` is not entitled (None: on neither channel)."""
        self.seen.ticks += 1
        channels = ["quotes", "trades"] if channel is None else [channel]
        if held is None or not any(held.shows(one, symbol) for one in channels):
            raise Leak(f"{symbol} on {channel or 'any channel'} arrived; held {held}; {self.steps}")

    def check_tier(self, held: Held | None, tier: str) -> None:
        if held is None or TIERS.index(tier) < TIERS.index(held.tier):
            raise Leak(f"tier {tier}; held {held}; {self.steps}")

    def names(self) -> dict[str, list[str]]:
        """Return what to subscribe to."""
        kinds = ["*", *(f"{letter}*" for letter in LETTERS), *self.symbols, "N*"]
        picked = {
            channel: self.random.sample(kinds, self.random.randint(0, 3)) for channel in ("quotes", "trades")
        }
        return picked if any(picked.values()) else {"quotes": ["*"], "trades": []}

    def forbidden(self, held: Held, names: dict[str, list[str]]) -> bool:
        """Return whether a plain name is not entitled."""
        return any(
            not name.endswith("*") and not held.shows(channel, name)
            for channel, listed in names.items()
            for name in listed
        )

    # The steps.

    async def _session(self, transport: str, cursor: str | None) -> str | None:
        held = self.new_token()
        self.steps.append(f"{transport} with {held.symbols} {held.channels} {held.tier} after {cursor}")
        if transport in ("poll", "short poll"):
            await self._polls(transport, held, cursor)
            return None
        if transport.startswith("events"):
            await self._events(transport, held, cursor)
            return None
        async with self._connected(transport, held) as stream:
            if stream is None:
                return None
            try:
                return await self._steps(stream, transport, cursor)
            except trio_websocket.ConnectionClosed:
                self.seen.ended += 1
                return stream.cursor

    async def _steps(self, stream: Stream, transport: str, cursor: str | None) -> str | None:
        binary = transport == "binary"
        await self._subscribe(stream, cursor, binary)
        for _ in range(self.random.randint(2, 8)):
            step = self.random.choice(
                [
                    "publish",
                    "publish",
                    "new symbol",
                    "subscribe",
                    "unsubscribe",
                    "tier",
                    "renew",
                    "renew",
                    "end",
                ]
            )
            self.steps.append(step)
            match step:
                case "publish":
                    await self._publish(stream)
                case "new symbol":
                    self.symbols.append(f"{self.random.choice([*LETTERS, 'N'])}x{next(_numbers)}")
                    await self.world.publish("quotes", self.symbols[-1])
                    await self._publish(stream)
                case "subscribe":
                    await self._subscribe(stream, None, binary)
                case "unsubscribe":
                    await stream.send(action="unsubscribe", **self.names(), id="u")
                    await stream.until("subscription", id_="u")
                case "tier":
                    await self._tier(stream)
                case "renew":
                    await self._renew(stream)
                case "end":
                    await self._end(stream)
        return stream.cursor

    async def _subscribe(self, stream: Stream, cursor: str | None, binary: bool) -> None:
        assert stream.held is not None
        names = self.names()
        self.steps.append(f"subscribe {names}")
        more = {"after": cursor} if cursor else {}
        encoding = {"encoding": "binary"} if binary else {}
        await stream.send(action="subscribe", **names, **more, **encoding, id="s")
        answer = await stream.until("subscription", "error", id_="s")
        forbidden = self.forbidden(stream.held, names)
        assert (answer["T"] == "error") == forbidden, (answer, stream.held, self.steps)
        self.seen.refused += forbidden
        if not forbidden:
            await stream.until("synced", id_="s")

    async def _publish(self, stream: Stream) -> None:
        """Publish ticks, and read until the last one that is to come, if one is."""
        held = stream.held
        assert held is not None
        for channel in ("quotes", "trades"):
            await self.world.publish(channel, *self.random.sample(self.symbols, 6))
        await stream.send(action="subscribe", quotes=[], id="what")
        subscribed = await stream.until("subscription", id_="what")
        await stream.until("synced", id_="what")
        last = next(
            (
                name
                for name in self.symbols
                if held.shows("quotes", name) and matched(subscribed["quotes"], name)
            ),
            None,
        )
        if last is None:
            return
        await self.world.publish("quotes", last)
        while True:
            message = await stream.next()
            if message["T"] == "q" and message["S"] == last:
                return

    async def _tier(self, stream: Stream) -> None:
        assert stream.held is not None
        tier = self.random.choice(TIERS)
        await stream.send(action="subscribe", tier=tier, id="t")
        answer = await stream.until("subscription", "error", id_="t")
        allowed = TIERS.index(tier) >= TIERS.index(stream.held.tier)
        assert (answer["T"] == "error") == (not allowed), (answer, stream.held, self.steps)

    async def _renew(self, stream: Stream) -> None:
        renewed = self.new_token()
        number = f"r{next(_numbers)}"
        stream.presented[number] = renewed
        self.steps.append(f"renew with {renewed.symbols} {renewed.channels} {renewed.tier}")
        await self.world.publish("quotes", *self.symbols)
        await stream.send(action="auth", token=renewed.text, id=number)
        await self.world.publish("trades", *self.symbols)
        answer = await stream.until("success", "error", id_=number)
        assert answer["T"] == "success", (answer, self.steps)

    async def _end(self, stream: Stream) -> None:
        """Revoke, or let the token expire; read to the close."""
        if self.random.random() < 0.5:
            await self.world.revoke(self.sub)
            expected = 4502
        else:
            expiring = self.new_token(EXPIRING_S)
            stream.presented["x"] = expiring
            await stream.send(action="auth", token=expiring.text, id="x")
            await stream.until("success", id_="x")
            await self.world.expire()
            expected = 4004
        await self.world.publish("quotes", *self.symbols)
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await stream.until("nothing")
        reason = closed.value.reason
        assert reason is not None
        assert reason.code == expected, (reason, self.steps)
        self.sub = f"user-{next(_numbers)}"
        raise closed.value

    async def _polls(self, transport: str, held: Held, cursor: str | None) -> None:
        for _ in range(3):
            names = self.names()
            channel = self.random.choice(["quotes", "trades"])
            if transport == "poll":
                query = "&".join(f"{key}={','.join(listed)}" for key, listed in names.items() if listed)
                target = f"/v1/poll?{query}&timeout_s=0.05" + (f"&after={cursor}" if cursor else "")
            else:
                listed = names[channel] or ["*"]
                names = {channel: listed}
                target = f"/v1/{channel}?symbols={','.join(listed)}"
            await self.world.publish("quotes", *self.random.sample(self.symbols, 4))
            status, body = await request(self.world.port, "GET", target, held.text)
            assert (status == 403) == self.forbidden(held, names), (status, held, names)
            self.seen.refused += status == 403
            if status == 200:
                for message in body["messages"] if transport == "poll" else body:
                    if message["T"] in ("q", "t"):
                        self.check(held, "quotes" if message["T"] == "q" else "trades", message["S"])
        _, body = await request(self.world.port, "GET", "/v1/symbols", held.text)
        for row in body["symbols"]:
            self.check(held, None, row["S"])

    async def _events(self, transport: str, held: Held, cursor: str | None) -> None:
        names = self.names()
        query = "&".join(f"{key}={','.join(listed)}" for key, listed in names.items() if listed)
        target, token = f"/v1/events?{query}" + (f"&after={cursor}" if cursor else ""), held.text
        if transport == "events by ticket":
            _, body = await request(self.world.port, "POST", "/v1/tickets", held.text)
            target, token = f"{target}&ticket={body['ticket']}", ""
        stream = await trio.open_tcp_stream("127.0.0.1", self.world.port)
        async with stream:
            await stream.send_all(head("GET", target, token))
            lines = Lines(stream)
            status = int((await lines.next()).split()[1])
            assert (status == 403) == self.forbidden(held, names), (status, held, names)
            if status != 200:
                self.seen.refused += 1
                return
            await self.world.publish("quotes", *self.symbols)
            revoked = self.random.random() < 0.5
            while (line := await lines.next()) is not None:
                if not line.startswith(b"data: "):
                    continue
                for message in json.loads(line[6:]):
                    if message["T"] in ("q", "t"):
                        self.check(held, "quotes" if message["T"] == "q" else "trades", message["S"])
                    elif message["T"] == "synced":
                        if not revoked:
                            return
                        await self.world.revoke(self.sub)
                        self.sub = f"user-{next(_numbers)}"
                        await self.world.publish("quotes", *self.symbols)
                    elif message["T"] == "closing":
                        assert message["code"] == 4502
                        self.seen.ended += 1

    @asynccontextmanager
    async def _connected(self, transport: str, held: Held) -> AsyncIterator[Stream | None]:
        """Open a session and have it authenticated."""
        path, headers = "/v1/stream", []
        if transport == "header":
            headers = [(b"Authorization", f"Bearer {held.text}".encode())]
        elif transport == "ticket":
            _, body = await request(self.world.port, "POST", "/v1/tickets", held.text)
            path = f"/v1/stream?ticket={body['ticket']}"
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            sock = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", self.world.port))
            ws = await trio_websocket.wrap_client_stream(
                nursery, sock, "127.0.0.1", path, extra_headers=headers
            )
            stream = Stream(ws, self)
            if transport in ("header", "ticket"):
                stream.presented[None] = held
            else:
                await stream.send(action="subscribe", quotes=["*"], id="early")
                assert (await stream.until("error", id_="early"))["code"] == 401
                stream.presented["a"] = held
                await stream.send(action="auth", token=held.text, id="a")
            while stream.held is None:
                await stream.until("success")
            try:
                yield stream
            finally:
                with trio.move_on_after(1):
                    await ws.aclose()
                nursery.cancel_scope.cancel()
