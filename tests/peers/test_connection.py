"""A connection over real sockets: pieces in runs, and every way in which the other side can be wrong, slow or gone."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pd.peers import connection
from p2pd.peers import connection as connection_module
from p2pd.peers.connection import (
    ABANDONED_MAX,
    MESSAGES_PER_S,
    QUEUE_BYTES_MAX,
    RUN_PAID,
    SILENCE_S,
    WATCH_S,
    Outgoing,
)
from p2pd.ratelimit import RateLimit
from p2pd.swarm.messages import FRAME_HEADER, RUN_SIZE_MAX, Cancel, Have, Holdings, Leave, Ping, Run, encode
from tests.peers.fakes import FileSource, Sink, Wire, blob_bytes, hello, link_of, talk

SIZE = 700_000  # of a piece: three runs


def runs_of(rid: int, data: bytes) -> bytes:
    """A piece on the wire."""
    wire = b""
    for offset in range(0, len(data), RUN_SIZE_MAX):
        part = data[offset : offset + RUN_SIZE_MAX]
        wire += encode(Run(rid, offset, len(part))) + part
    return wire


async def read_piece(wire: Wire, size: int) -> tuple[bytes, list[object]]:
    """A piece's bytes as the other side gets them, and the frames around its runs."""
    got, others = bytearray(), []
    while len(got) < size:
        message = await wire.message()
        if not isinstance(message, Run):
            others.append(message)
            continue
        assert message.offset == len(got)
        raw = bytearray(message.length)
        filled = 0
        while filled < len(raw):
            filled += await wire.frames.raw_into(memoryview(raw)[filled:])
        got += raw
    return bytes(got), others


# -- in ---------------------------------------------------------------------------------------------------------------


async def test_a_piece_goes_through_and_is_checked() -> None:
    data, sink = blob_bytes(SIZE), Sink(SIZE)
    async with talk() as it:
        it.expect(1, data, sink)
        await it.wire.send(Cancel(5), runs_of(1, data), Have(b"d" * 32, (1,), 1, 0, 0, 0))
        await it.handler.until("piece", 1, True)
        assert it.handler.told[:2] == [("message", Cancel(5)), ("started", 1)]  # frames need not wait for the disk
        assert bytes(sink.data) == data
        assert it.handler.received == {1: SIZE}
        assert it.connection.bytes_in == SIZE
        await it.handler.until("message", Have(b"d" * 32, (1,), 1, 0, 0, 0))


async def test_a_wrong_byte_is_found_and_not_even_written() -> None:
    data, sink = blob_bytes(SIZE), Sink(SIZE)
    wrong = bytearray(data)
    wrong[SIZE - 1] ^= 1
    async with talk() as it:
        it.expect(1, data, sink)
        await it.wire.send(runs_of(1, bytes(wrong)))
        await it.handler.until("piece", 1, False)
        assert sink.writes == []


async def test_a_piece_in_the_middle_is_checked_from_its_own_state() -> None:
    first, second = blob_bytes(262_144, 1), blob_bytes(262_144, 2)
    middle = link_of(first, last=False)[1]
    sink = Sink(524_288)
    async with talk() as it:
        incoming = it.expect(1, second, sink)
        incoming._offset, incoming._last = 262_144, False
        it.handler.links[1] = link_of(second, middle, 262_144, last=False)
        await it.wire.send(runs_of(1, second))
        await it.handler.until("piece", 1, True)
        assert sink.data[262_144:] == second


async def test_two_pieces_may_come_in_turns() -> None:
    one, two = blob_bytes(SIZE, 1), blob_bytes(SIZE, 2)
    sinks = Sink(SIZE), Sink(SIZE)
    async with talk() as it:
        it.expect(1, one, sinks[0])
        it.expect(2, two, sinks[1])
        for offset in range(0, SIZE, 100_000):
            for rid, data in ((1, one), (2, two)):
                part = data[offset : offset + 100_000]
                await it.wire.send(Run(rid, offset, len(part)), part)
        await it.handler.until("piece", 1, True)
        await it.handler.until("piece", 2, True)
        assert [bytes(sink.data) for sink in sinks] == [one, two]
        assert it.handler.received == {1: SIZE, 2: SIZE}


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([Run(1, 100, 100)], "does not follow"),
        ([Run(1, 0, 100), b"x" * 100, Run(1, 0, 100)], "does not follow"),
        ([Run(1, 0, 100), b"x" * 100, Run(1, 300, 100)], "does not follow"),
        ([Run(1, 0, 2000)], "does not follow"),
        ([Run(2, 0, 100)], "nobody asked for"),
        ([hello()], "Hello twice"),
        ([FRAME_HEADER.pack(1 << 31)], "a frame of"),
        ([FRAME_HEADER.pack(3) + b"\xff\xfe\xfd"], "not msgpack|no known kind"),
    ],
)
async def test_what_the_protocol_does_not_allow_ends_the_connection(runs: list, reason: str) -> None:
    async with talk() as it:
        it.expect(1, blob_bytes(1000), Sink(1000))
        await it.wire.send(*runs)
        await it.ended.wait()
        assert reason.split("|")[0] in it.why or reason.split("|")[-1] in it.why


async def test_a_piece_without_a_link_ends_the_connection() -> None:
    data = blob_bytes(1000)
    async with talk() as it:
        it.expect(1, data, Sink(1000))
        it.handler.links.clear()
        await it.wire.send(runs_of(1, data))
        await it.ended.wait()
        assert "no voucher" in it.why


async def test_what_was_abandoned_is_thrown_away_and_no_more_than_that() -> None:
    data, other, sink = blob_bytes(SIZE, 1), blob_bytes(SIZE, 2), Sink(SIZE)
    async with talk() as it:
        it.expect(1, data, Sink(SIZE))
        it.expect(2, other, sink)
        it.connection.abandon(1)
        await it.wire.send(runs_of(1, data), runs_of(2, other))
        await it.handler.until("piece", 2, True)
        assert ("started", 1) not in it.handler.told
        await it.wire.send(Run(1, 0, 1), b"x")
        await it.ended.wait()
        assert "nobody asked for" in it.why


async def test_a_piece_abandoned_in_mid_run_gives_its_memory_back_at_once() -> None:
    data, other, sink = blob_bytes(SIZE, 1), blob_bytes(SIZE, 2), Sink(SIZE)
    async with talk() as it:
        it.expect(1, data, Sink(SIZE))
        it.expect(2, other, sink)
        await it.wire.send(Run(1, 0, 250_000), data[:10])
        await it.handler.until("started", 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert it.intake.buffers.lent > 0
        it.connection.abandon(1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert it.intake.buffers.lent == 0
        await it.wire.send(data[10:250_000], runs_of(2, other))
        await it.handler.until("piece", 2, True)
        assert bytes(sink.data) == other


async def test_requests_that_came_to_nothing_never_cost_an_honest_peer_its_connection() -> None:
    data, sink = blob_bytes(SIZE), Sink(SIZE)
    async with talk() as it:
        for rid in range(1, 3 * ABANDONED_MAX):
            it.expect(rid, b"x" * 1000, Sink(1000))
            it.connection.abandon(rid)
        it.expect(99_999, data, sink)
        await it.wire.send(Run(3 * ABANDONED_MAX - 1, 0, 1000), b"x" * 1000, runs_of(99_999, data))
        await it.handler.until("piece", 99_999, True)
        assert len(it.connection._abandoned) <= ABANDONED_MAX


async def test_a_full_disk_is_told_and_ends_the_connection() -> None:
    data = blob_bytes(SIZE)
    async with talk() as it:
        it.expect(1, data, Sink(SIZE, fails_at=0))
        it.handler.react = lambda told: it.connection.abandon(1) if told[0] == "sink failed" else None
        await it.wire.send(runs_of(1, data))
        await it.ended.wait()
        assert ("sink failed", 1, "no space left") in it.handler.told
        assert "can't store" in it.why
        assert it.intake.buffers.lent == 0


async def test_a_connection_that_breaks_in_mid_piece_gives_everything_back() -> None:
    data = blob_bytes(SIZE)
    async with talk() as it:
        it.expect(1, data, Sink(SIZE))
        await it.wire.send(runs_of(1, data)[:300_000])
        await it.handler.until("started", 1)
        it.wire.close()
        await it.ended.wait()
        assert it.intake.buffers.lent == 0
        assert it.why


# -- out --------------------------------------------------------------------------------------------------------------


async def test_an_upload_goes_out_in_runs_with_frames_between() -> None:
    data = blob_bytes(3 * RUN_SIZE_MAX + 5)
    source = FileSource(b"before" + data)
    async with talk() as it:
        it.connection.upload(Outgoing(4, source, 6, len(data)))
        it.connection.send(Cancel(1))
        got, others = await read_piece(it.wire, len(data))
        assert got == data
        assert others == [Cancel(1)]
        await it.handler.until("sent", 4, True)
        assert source.closed == 1
        assert it.connection.bytes_out == len(data)


async def test_a_piece_is_sent_when_it_has_left_not_when_the_kernel_has_it() -> None:
    size = 60_000  # the kernel takes it at once
    on_its_way = [0.01]
    async with talk() as it:
        it.connection._transport.leaves_in = lambda: on_its_way[0]  # type: ignore[method-assign]
        it.connection.upload(Outgoing(1, FileSource(bytes(size)), 0, size))
        assert await read_piece(it.wire, size)
        await trio.sleep(0.1)
        it.connection.send(Cancel(9))  # frames do not wait for it
        assert await it.wire.message() == Cancel(9)
        assert it.handler.told == []
        on_its_way[0] = 0.0
        await it.handler.until("sent", 1, True)


async def test_who_lets_a_piece_lie_in_the_kernel_is_cut_too(autojump_clock: MockClock) -> None:
    """Else it would keep an upload place for ever."""
    async with talk() as it:
        it.connection._transport.leaves_in = lambda: 0.01  # type: ignore[method-assign]
        it.connection.upload(Outgoing(1, FileSource(bytes(60_000)), 0, 60_000))
        with trio.fail_after(3 * WATCH_S):
            await it.ended.wait()
        assert it.why == "took less than 64 KiB in 5 s"


async def test_a_cancelled_upload_stops_at_the_next_run() -> None:
    data = blob_bytes(64 * RUN_SIZE_MAX)  # more than the kernel's buffers swallow
    source = FileSource(data)
    async with talk() as it:
        it.connection.upload(Outgoing(4, source, 0, len(data)))
        first = await it.wire.message()
        assert first == Run(4, 0, RUN_SIZE_MAX)
        it.connection.stop_upload(4)
        await it.wire.frames.skip(RUN_SIZE_MAX)
        it.connection.send(Cancel(9))
        runs = 1
        while isinstance(message := await it.wire.message(), Run):
            await it.wire.frames.skip(message.length)
            runs += 1
        assert message == Cancel(9)
        assert runs < 64
        await it.handler.until("sent", 4, False)
        assert source.closed == 1


async def test_every_upload_is_told_of_when_the_connection_ends_even_those_that_come_then() -> None:
    sources = [FileSource(b"x" * 1_000_000) for _ in range(4)]
    async with talk() as it:

        def next_one(told: tuple) -> None:
            if told == ("sent", 1, False):  # as the core does: a place is free, the next request in the queue begins
                it.connection.upload(Outgoing(3, sources[2], 0, 1_000_000))

        it.handler.react = next_one
        for rid in (1, 2):
            it.connection.upload(Outgoing(rid, sources[rid - 1], 0, 1_000_000))
        it.connection.close("enough")
        await it.ended.wait()
        it.connection.upload(Outgoing(4, sources[3], 0, 1_000_000))
        assert [told for told in it.handler.told if told[0] == "sent"] == [("sent", rid, False) for rid in (1, 2, 3, 4)]
        assert [source.closed for source in sources] == [1, 1, 1, 1]


async def test_a_file_that_is_too_short_ends_the_connection_not_the_daemon() -> None:
    source = FileSource(b"x" * 100)
    async with talk() as it:
        it.connection.upload(Outgoing(1, source, 0, 1000))
        await it.ended.wait()
        assert "ends at byte 100" in it.why
        assert source.closed == 1


async def test_more_messages_than_anybody_needs_have_to_wait(autojump_clock: MockClock) -> None:
    async with talk() as it:
        began = trio.current_time()
        for _ in range(10):
            await it.wire.send(*[Cancel(1)] * (MESSAGES_PER_S // 5))
        await it.wire.send(Cancel(2))
        await it.handler.until("message", Cancel(2))
        assert 1.8 <= trio.current_time() - began <= 3


@pytest.mark.parametrize(("length", "counted"), [(RUN_SIZE_MAX, 0), (RUN_PAID, 0), (RUN_PAID - 1, 1), (1, 1)])
async def test_a_run_counts_for_that_if_it_brings_little(
    monkeypatch: pytest.MonkeyPatch, length: int, counted: int
) -> None:
    """Else 2000 runs a second were all that one node could get from another."""
    spent = []

    class Counted(RateLimit):
        def spend(self, count: int) -> None:
            spent.append(count)

    monkeypatch.setattr(connection, "RateLimit", Counted)
    async with talk() as it:
        it.connection.abandon(1, 20 * length)
        for number in range(20):
            await it.wire.send(Run(1, number * length, length), bytes(length))
        await it.wire.send(Cancel(2))
        await it.handler.until("message", Cancel(2))
        assert sum(spent) == 20 * counted + 1


# -- time -------------------------------------------------------------------------------------------------------------


async def test_a_peer_that_says_nothing_is_cut(autojump_clock: MockClock) -> None:
    async with talk() as it:
        began = trio.current_time()
        await it.ended.wait()
        assert it.why == "silent for 20 s"
        assert SILENCE_S <= trio.current_time() - began <= SILENCE_S + WATCH_S


async def test_a_ping_now_and_then_keeps_a_connection(autojump_clock: MockClock) -> None:
    async with talk() as it:
        for _ in range(20):
            await trio.sleep(SILENCE_S - 1)
            await it.wire.send(Ping())
        assert not it.ended.is_set()
        heard = [await it.wire.message() for _ in range(20)]
        assert heard == [Ping()] * 20  # and it says something itself


async def test_a_peer_that_reads_nothing_is_cut_in_mid_piece(autojump_clock: MockClock) -> None:
    source = FileSource(bytes(64 * RUN_SIZE_MAX))
    async with talk() as it:
        began = trio.current_time()
        it.connection.upload(Outgoing(1, source, 0, 64 * RUN_SIZE_MAX))

        async def say_something() -> None:
            while not it.ended.is_set():
                await it.wire.send(Ping())
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say_something)
            await it.ended.wait()
            nursery.cancel_scope.cancel()
        assert it.why == "took less than 64 KiB in 5 s"
        assert trio.current_time() - began <= 3 * WATCH_S
        assert source.closed == 1


async def test_a_peer_that_reads_a_trickle_is_cut(autojump_clock: MockClock) -> None:
    source = FileSource(bytes(256 * RUN_SIZE_MAX))
    async with talk() as it:
        it.connection.upload(Outgoing(1, source, 0, 256 * RUN_SIZE_MAX))

        async def trickle() -> None:
            while not it.ended.is_set():
                await it.wire.frames.skip(2000)
                await it.wire.send(Ping())
                await trio.sleep(1)

        with trio.move_on_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trickle)
                await it.ended.wait()
                nursery.cancel_scope.cancel()
        assert it.why == "took less than 64 KiB in 5 s"


async def test_a_slow_peer_is_not_cut(autojump_clock: MockClock) -> None:
    """A fifth of a megabyte a second, through kernel buffers that hold megabytes: it moves all the time."""
    size = 40 * RUN_SIZE_MAX
    source = FileSource(bytes(size))
    async with talk() as it:
        it.connection.upload(Outgoing(1, source, 0, size))
        read = 0
        while read < size:
            message = await it.wire.message()
            if isinstance(message, Run):
                for place in range(0, message.length, 32_768):
                    await it.wire.frames.skip(min(32_768, message.length - place))
                    await trio.sleep(0.15)
                read += message.length
            await it.wire.send(Ping())
        assert not it.ended.is_set()
        await it.handler.until("sent", 1, True)


async def test_the_nodes_own_download_limit_is_not_the_peers_silence(autojump_clock: MockClock) -> None:
    data = blob_bytes(SIZE)
    async with talk(down=RateLimit(5_000.0)) as it:  # a run takes 52 s
        for rid in (1, 2):
            it.expect(rid, data, Sink(SIZE))
        it.connection.abandon(1)
        it.connection.abandon(2)  # so that no thread is involved
        await it.wire.send(runs_of(1, data), runs_of(2, data), Cancel(3))

        async def say_something() -> None:
            while True:
                await trio.sleep(5)
                await it.wire.send(Ping())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say_something)
            await it.handler.until("message", Cancel(3))
            nursery.cancel_scope.cancel()
        assert trio.current_time() > 200
        assert not it.ended.is_set()


async def test_frames_do_not_wait_for_the_upload_limit(autojump_clock: MockClock) -> None:
    source = FileSource(bytes(4 * RUN_SIZE_MAX))
    async with talk(up=RateLimit(5_000.0)) as it:
        it.connection.upload(Outgoing(1, source, 0, 4 * RUN_SIZE_MAX))
        first = await it.wire.message()
        assert isinstance(first, Run)
        await it.wire.frames.skip(first.length)
        await trio.sleep(0.5)
        asked = trio.current_time()
        it.connection.send(Cancel(7))
        assert await it.wire.message() == Cancel(7)
        assert trio.current_time() - asked <= 2 * connection_module.FRAMES_WAIT_S


async def test_what_a_peer_does_not_read_is_bounded() -> None:
    holdings = Holdings(tuple(b"d" * 32 for _ in range(1000)))
    frames = (QUEUE_BYTES_MAX + 8 * 1024 * 1024) // len(encode(holdings))
    async with talk() as it:
        for _ in range(frames):
            it.connection.send(holdings)
        await it.ended.wait()
        assert it.why == "does not read what it is sent"


async def test_cancelling_a_connection_lets_go_of_everything() -> None:
    data, source = blob_bytes(SIZE), FileSource(bytes(64 * RUN_SIZE_MAX))
    async with trio.open_nursery() as nursery:
        async with talk() as it:
            it.expect(1, data, Sink(SIZE))
            it.connection.upload(Outgoing(1, source, 0, 64 * RUN_SIZE_MAX))
            await it.wire.send(runs_of(1, data)[:300_000])
            await it.handler.until("started", 1)
            it.connection._scope.cancel()
            await it.ended.wait()
            assert it.intake.buffers.lent == 0
            assert source.closed == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("behind", [[], [Ping()], [Cancel(7), Ping()], [Run(1, 0, RUN_SIZE_MAX), b"x" * 1000]])
async def test_an_answer_goes_out_whatever_comes_behind_the_question(behind: list) -> None:
    """In the same packet: the next frame, nothing, or the beginning of a piece that then does not go on."""
    async with talk() as it:
        it.expect(1, blob_bytes(SIZE), Sink(SIZE))
        it.handler.react = lambda told: it.connection.send(Leave(b"a" * 32)) if told[1] == Cancel(6) else None
        together = [part if isinstance(part, bytes) else encode(part) for part in (Cancel(6), *behind)]
        await it.wire.send(b"".join(together))
        with trio.fail_after(2):
            assert await it.wire.message() == Leave(b"a" * 32)


async def test_answers_that_the_socket_does_not_take_go_out_later_in_order() -> None:
    async with talk() as it:
        news = [Have(bytes([n]) * 32, tuple(range(1000)), 1000, 0, 0, 0) for n in range(200)]
        size = sum(len(encode(message)) for message in news)
        assert size < QUEUE_BYTES_MAX

        def answer(told: tuple) -> None:
            for message in news if told[1] == Cancel(6) else ():
                it.connection.send(message)

        it.handler.react = answer
        await it.wire.send(Cancel(6))
        await it.handler.until("message", Cancel(6))
        it.connection.send(Leave(b"z" * 32))
        with trio.fail_after(10):
            assert [await it.wire.message() for _ in news] == news
            assert await it.wire.message() == Leave(b"z" * 32)
