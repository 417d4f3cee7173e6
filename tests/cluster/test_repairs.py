import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.cluster.frames import header_of, names_of
from marketfeed.cluster.repairs import (
    End,
    Gone,
    NamesRequest,
    TicksRequest,
    parse_outcome,
    parse_request,
)
from marketfeed.core.records import QUOTES
from marketfeed.errors import FrameError
from tests.support.cluster import EPOCH, MAX_PAYLOAD, Origin


@given(st.from_regex(r"[0-9a-zA-Z]{1,16}", fullmatch=True), st.integers(1, 2**62), st.integers(0, 2**61))
def test_a_request_is_read_as_it_was_written(epoch, first, more):
    for request in (TicksRequest(epoch, first, first + more), NamesRequest(epoch, first % 65537)):
        assert parse_request(request.encode()) == request


@pytest.mark.parametrize(
    "text",
    ["", "e", "e 1", "e 0 1", "e 2 1", "e 1 9223372036854775808", "e 01 2", "e 1 2 ", "e  1 2", "e -1 2",
     "é 1 2", "e names", "e names 65537", "e names x", f"{'e' * 17} 1 2"],
)  # fmt: skip
def test_an_invalid_request_is_refused(text):
    with pytest.raises(FrameError, match=r"request for|not a request"):
        parse_request(text.encode())


def test_the_end_of_an_answer():
    assert parse_outcome(b"end 5 9") == End(5, 9)
    assert parse_outcome(b"gone 5") == Gone(5)
    for text in (b"", b"end", b"end 5", b"gone", b"gone x", b"gone 5 6"):
        with pytest.raises(FrameError, match="not the end of an answer"):
            parse_outcome(text)


def test_ticks_are_answered_from_the_log():
    origin = Origin()
    origin.write(*[(QUOTES, 0)] * 20)
    *frames, end = origin.answerer.answer(TicksRequest(EPOCH, 9, 18).encode())
    headers = [header_of(frame) for frame in frames]
    assert [(h.first_g, h.last_g, h.is_repair) for h in headers] == [(9, 16, True)]
    assert end == b"end 9 16"  # the rest is not sealed
    assert list(origin.answerer.answer(TicksRequest(EPOCH, 17, 18).encode())) == [b"end 17 16"]


def test_an_answer_says_what_is_gone():
    origin = Origin(log_bytes=1000)
    assert list(origin.answerer.answer(TicksRequest(EPOCH, 1, 18).encode())) == [b"gone 0"]
    origin.write(*[(QUOTES, 0)] * 20)
    assert list(origin.answerer.answer(TicksRequest(EPOCH, 1, 18).encode())) == [b"gone 9"]


def test_names_are_answered_in_frames_of_the_payload():
    origin = Origin()
    origin.write((QUOTES, 3))
    (frame,) = origin.answerer.answer(NamesRequest(EPOCH, 1).encode())
    header = header_of(frame)
    assert names_of(header, frame) == ["S1", "S2", "S3"]
    assert header.is_repair
    assert len(frame) <= MAX_PAYLOAD
    assert list(origin.answerer.answer(NamesRequest(EPOCH, 4).encode())) == []
    assert list(origin.answerer.answer(NamesRequest(EPOCH, 9).encode())) == []


def test_another_epoch_gets_no_answer():
    origin = Origin()
    assert list(origin.answerer.answer(b"other 1 2")) == []
