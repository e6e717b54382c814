"""Frames: any split of the bytes gives the same messages; all else is a ProtocolError, and never another error."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pd.peers.frames import BUFFER_SIZE, FrameReader
from p2pd.peers.transport import ConnectionLost
from p2pd.swarm.messages import (
    FRAME_HEADER,
    FRAME_SIZE_MAX,
    Cancel,
    Have,
    Holdings,
    Join,
    Message,
    Ping,
    ProtocolError,
    Run,
    Vouch,
    encode,
)
from tests.peers.fakes import Played

MESSAGES = st.one_of(
    st.just(Ping()),
    st.builds(Cancel, st.integers(0, 1 << 40)),
    st.builds(
        Have,
        st.binary(min_size=32, max_size=32),
        st.lists(st.integers(0, 65535), max_size=40).map(tuple),
        st.integers(0, 1 << 16),
        st.integers(0, 200),
        st.integers(0, 1 << 30),
        st.integers(0, 9),
    ),
    st.builds(Holdings, st.lists(st.binary(min_size=32, max_size=32), max_size=300).map(tuple)),
    st.builds(
        Join,
        st.binary(min_size=32, max_size=32),
        st.integers(0, 1 << 40),
        st.binary(min_size=1, max_size=8192),
        st.booleans(),
        *(st.integers(0, 99) for _ in range(3)),
    ),
)
RUNS = st.binary(min_size=1, max_size=20_000)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Message | bytes], list[bytes]]:
    """What is sent, and the parts in which its bytes arrive."""
    sent: list[Message | bytes] = []
    wire = b""
    for item in draw(st.lists(st.one_of(MESSAGES, RUNS), max_size=12)):
        if isinstance(item, bytes):
            run = Run(1, 0, len(item))
            sent += [run, item]
            wire += encode(run) + item
        else:
            sent.append(item)
            wire += encode(item)
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=30)))
    return sent, [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


async def read_all(frames: FrameReader) -> list[Message | bytes]:
    got: list[Message | bytes] = []
    while True:
        try:
            message = await frames.message()
        except ConnectionLost:
            return got
        got.append(message)
        if isinstance(message, Run):
            raw = bytearray(message.length)
            filled = 0
            while filled < len(raw):
                filled += await frames.raw_into(memoryview(raw)[filled:])
            got.append(bytes(raw))


@settings(max_examples=150, deadline=None)
@given(streams())
def test_any_split_of_the_bytes_gives_the_same_messages(stream: tuple[list[Message | bytes], list[bytes]]) -> None:
    sent, parts = stream
    assert trio.run(read_all, FrameReader(Played(parts))) == sent


@settings(max_examples=60, deadline=None)
@given(streams(), st.integers(0, 1 << 30))
def test_skipped_bytes_are_exactly_the_run(stream: tuple[list[Message | bytes], list[bytes]], seed: int) -> None:
    sent, parts = stream

    async def read() -> list[Message]:
        frames, got = FrameReader(Played(parts)), []
        while True:
            try:
                message = await frames.message()
            except ConnectionLost:
                return got
            got.append(message)
            if isinstance(message, Run):
                await frames.skip(message.length)

    assert trio.run(read) == [item for item in sent if not isinstance(item, bytes)]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_and_no_other_error(body: bytes) -> None:
    async def read() -> None:
        await FrameReader(Played([FRAME_HEADER.pack(max(1, len(body))) + (body or b"\xc1")])).message()

    try:
        trio.run(read)
    except ProtocolError:
        return


@pytest.mark.parametrize("length", [0, FRAME_SIZE_MAX + 1, 1 << 31, (1 << 32) - 1])
async def test_a_length_that_no_frame_has_is_refused_before_memory_is_taken(length: int) -> None:
    frames = FrameReader(Played([FRAME_HEADER.pack(length), b"x" * 100]))
    with pytest.raises(ProtocolError, match="a frame of"):
        await frames.message()
    assert len(frames._buffer) == BUFFER_SIZE


@pytest.mark.parametrize(
    "body",
    [
        b"\x90",  # an empty array
        b"\x91\xcc\xff",  # no such message
        b"\x91\xc0",  # no number
        b"\x92\x06\xcf\xff\xff\xff\xff\xff\xff\xff\xff",  # Cancel with a rid of 64 bits
        b"\x91\xc3",  # true is not 1
        b"\x81\x01\x02",  # a map
        b"\xd9\x02\xff\xff",  # a text that is not UTF-8
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\x91\x01\x00",  # something behind the message
        b"\x91" * 1000,  # deep
        b"\xc7\x00\x01",  # an extension type
    ],
)
async def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        await FrameReader(Played([FRAME_HEADER.pack(len(body)) + body])).message()


async def test_the_buffer_shrinks_again_behind_a_large_frame() -> None:
    large = Holdings(tuple(bytes([i % 256]) * 32 for i in range(1000)))
    frames = FrameReader(Played([encode(large) + encode(Ping()), encode(Cancel(7)), encode(Cancel(8))]))
    assert await frames.message() == large
    assert await frames.message() == Ping()
    assert [await frames.message(), await frames.message()] == [Cancel(7), Cancel(8)]
    assert len(frames._buffer) == BUFFER_SIZE


async def test_a_voucher_of_the_largest_size_fits_a_frame() -> None:
    voucher = Vouch(b"k" * 32, "u" * 256, b"d" * 32, 1 << 40, 1, 0, tuple(b"s" * 32 for _ in range(65)), b"x" * 64)
    assert await FrameReader(Played([encode(voucher)])).message() == voucher
