"""Messages of a WebSocket client come out as they were sent, however cut, and whoever sends beside it."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.errors import CloseCode
from marketfeed.gateway.scan import FrameScanner
from marketfeed.gateway.ws_reader import (
    MAX_SPARE,
    Parsers,
    WebSocketClosedError,
    WebSocketReader,
    close_frame,
)
from tests.support.ws_frames import masked

MOST = 500


class Pieces:
    """What the reader reads from and answers to: received bytes in given pieces."""

    def __init__(self, scanner: FrameScanner, pieces: list[bytes]) -> None:
        self._scanner, self._pieces = scanner, pieces
        self.sent = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while self._pieces:
            piece = self._pieces.pop(0)
            if not self._scanner.feed(piece, 0.0):  # as the outbox does: nothing but pongs is dropped
                return piece
        return b""

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [piece for piece in [*pieces, data[at:]] if piece]


def reader_of(data: bytes, sizes: list[int], parsers: Parsers) -> tuple[WebSocketReader, Pieces]:
    scanner = FrameScanner()
    outbox = Pieces(scanner, cut(data, sizes))
    return WebSocketReader(outbox, scanner, parsers, MOST), outbox  # type: ignore[arg-type]


async def all_of(reader: WebSocketReader, found: list[str | bytes]) -> WebSocketClosedError:
    while True:
        try:
            found.append(await reader.message())
        except WebSocketClosedError as closed:
            return closed


def frames_of(message: str | bytes, parts: int, beside: bytes) -> bytes:
    """Return ``message`` in so many frames, with ``beside`` between them."""
    data = message.encode() if isinstance(message, str) else message
    first = 1 if isinstance(message, str) else 2
    edges = [len(data) * part // parts for part in range(parts + 1)]
    frames = []
    for part in range(parts):
        opcode = (first if part == 0 else 0) | (0x80 if part == parts - 1 else 0)
        frames.append(masked(opcode, data[edges[part] : edges[part + 1]]))
    return beside.join(frames)


messages = st.one_of(st.text(max_size=100), st.binary(max_size=300))
sent = st.lists(st.tuples(messages, st.integers(1, 4), st.sampled_from([b"", b"ping", b"pong"])), max_size=6)


@given(st.lists(sent, min_size=1, max_size=3), st.lists(st.integers(1, 40), max_size=60))
def test_every_message_comes_out_as_sent_beside_other_clients(clients, sizes):
    async def run() -> None:
        parsers = Parsers()
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(check, client, parsers)

    async def check(client, parsers) -> None:
        beside = {b"": b"", b"ping": masked(0x89, b"hello"), b"pong": masked(0x8A, b"12345678")}
        data = b"".join(frames_of(message, parts, beside[extra]) for message, parts, extra in client)
        reader, outbox = reader_of(data + masked(0x88, b"\x03\xe8"), sizes, parsers)
        found: list[str | bytes] = []
        closed = await all_of(reader, found)
        assert found == [message for message, _, _ in client]
        assert (closed.code, closed.farewell) == (CloseCode.NORMAL, b"\x88\x02\x03\xe8")
        assert reader.closed
        pings = sum(parts - 1 for _, parts, extra in client if extra == b"ping")
        assert outbox.sent == b"\x8a\x05hello" * pings

    trio.run(run)


BREACHES = [
    (masked(0x81, b"\xff"), CloseCode.INVALID_DATA),
    (masked(0x01, b"\xc3") + masked(0x80, b"x"), CloseCode.INVALID_DATA),
    (masked(0x80, b"no first part"), CloseCode.PROTOCOL),
    (masked(0x01, b"a") + masked(0x81, b"b"), CloseCode.PROTOCOL),
    (masked(0xC1, b"a reserved bit"), CloseCode.PROTOCOL),
    (masked(0x83, b"a reserved opcode"), CloseCode.PROTOCOL),
    (masked(0x09, b"a ping in pieces"), CloseCode.PROTOCOL),
    (masked(0x89, b"x" * 126), CloseCode.PROTOCOL),
    (b"\x81\x01a", CloseCode.PROTOCOL),  # not masked
    (masked(0x88, b"x"), CloseCode.PROTOCOL),
    (masked(0x88, b"\x03\xec"), CloseCode.PROTOCOL),  # 1004, reserved
    (masked(0x88, b"\x03\xe8\xff"), CloseCode.INVALID_DATA),
    (masked(0x82, b"x" * (MOST + 1)), CloseCode.TOO_BIG),
    (masked(0x81, "é".encode() * (MOST // 2 + 1)), CloseCode.TOO_BIG),
    (masked(0x01, b"x" * MOST) + masked(0x80, b"x"), CloseCode.TOO_BIG),
]


@pytest.mark.parametrize(("data", "code"), BREACHES)
@pytest.mark.parametrize("sizes", [[], [1] * 40], ids=["whole", "bytes"])
async def test_a_breach_ends_with_its_close_frame_and_its_parser_is_not_used_again(data, code, sizes):
    parsers = Parsers()
    reader, _ = reader_of(masked(0x81, b"{}") + data + masked(0x81, b"never"), sizes, parsers)
    found: list[str | bytes] = []
    closed = await all_of(reader, found)
    assert found == ["{}"]
    assert (closed.code, closed.farewell) == (code, close_frame(code))
    following, _ = reader_of(masked(0x81, b"next") + masked(0x88, b""), [], parsers)
    found = []
    closed = await all_of(following, found)
    assert (found, closed.code) == (["next"], CloseCode.NORMAL)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x03\xe9bye",  # 1001: a page that is left
        b"\x0f\xa0",  # 4000, of the client's own
        *(code.to_bytes(2, "big") for code in CloseCode if code is not CloseCode.ABNORMAL),
    ],
)
async def test_a_close_frame_is_answered_with_its_code_and_counts_as_closed_by_the_client(payload):
    reader, _ = reader_of(masked(0x88, payload), [1], Parsers())
    closed = await all_of(reader, [])
    assert closed.code is CloseCode.NORMAL
    assert closed.farewell == b"\x88" + bytes([len(payload)]) + payload


async def test_a_lost_connection_has_no_farewell():
    reader, _ = reader_of(masked(0x81, b"half of it")[:-3], [], Parsers())
    closed = await all_of(reader, [])
    assert (closed.code, closed.farewell, reader.closed) == (CloseCode.ABNORMAL, b"", False)


def test_the_pool_is_bounded():
    parsers = Parsers()
    taken = [parsers.take() for _ in range(MAX_SPARE + 5)]
    for parser in taken:
        parsers.give(parser)
    again = [parsers.take() for _ in range(MAX_SPARE + 5)]
    assert len({id(parser) for parser in again} & {id(parser) for parser in taken}) == MAX_SPARE
