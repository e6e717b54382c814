"""Memory and disk behind a piece that comes in: bounds that hold, nothing left behind, one writer for each piece."""

from __future__ import annotations

import os
import threading

import pytest
import trio

from p2pd.peers.buffers import CHUNK_SIZE_MAX, CHUNK_SIZE_SMALL, LARGE_MAX, TOTAL_MAX, Buffers
from p2pd.peers.frames import FrameReader
from p2pd.peers.incoming import CHUNKS_MAX, STORERS, Incoming, Intake, Storing
from p2pd.swarm.messages import RUN_SIZE_MAX, Run
from tests.peers.fakes import DIGEST, DiskFull, Played, Sink, blob_bytes, link_of

MIB = 1024 * 1024
KEY = (DIGEST, 0)


class Way:
    """A piece's way through one connection's storing, which runs as long as the `with` block."""

    def __init__(self, piece: Incoming, intake: Intake) -> None:
        self.piece = piece
        self.overtaken = self.is_whole = False
        self.storing = Storing(intake, self._whole, self._overtaken)
        self.is_working = False

    def _whole(self, piece: Incoming) -> None:
        self.is_whole = True

    def _overtaken(self, piece: Incoming) -> None:
        self.overtaken = True
        piece.give_up()

    async def bring(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        """The runs of data[start:end]; `start` is where a run begins. Returns when they are stored."""
        end = len(data) if end is None else end
        async with trio.open_nursery() as nursery:
            for _ in range(STORERS):
                nursery.start_soon(self.storing.run)
            for offset in range(start, end, RUN_SIZE_MAX):
                part = data[offset : min(offset + RUN_SIZE_MAX, end)]
                run = Run(self.piece.rid, offset, len(part))
                await self.piece.take_run(run, FrameReader(Played([part])), self.storing)
                if self.piece.is_given_up:
                    break
            while self.storing._chunks:
                await self.storing._moved.park()
            nursery.cancel_scope.cancel()


def way(rid: int, true: bytes, sink: Sink, intake: Intake) -> Way:
    made = Incoming(rid, KEY, sink, 0, len(true), True, intake)
    made.begin(link_of(true))
    return Way(made, intake)


async def test_hashing_and_writing_give_way_to_the_event_loop() -> None:
    class Watched(Sink):
        def write(self, offset: int, data: memoryview) -> None:
            policies.append(os.sched_getscheduler(0))
            super().write(offset, data)

    policies: list[int] = []
    data = blob_bytes(1_000_000)
    one = way(1, data, Watched(len(data)), Intake())
    await one.bring(data)
    assert one.is_whole
    assert set(policies) == {os.SCHED_BATCH}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


# -- memory -----------------------------------------------------------------------------------------------------------


async def test_the_bound_holds_and_nobody_is_shut_out_by_large_pieces() -> None:
    buffers = Buffers()
    lent = [await buffers.take(16 * MIB) for _ in range(LARGE_MAX // CHUNK_SIZE_MAX)]
    assert {len(one) for one in lent} == {CHUNK_SIZE_MAX}
    with trio.fail_after(5):  # the others get small ones, and do not wait
        small = [await buffers.take(16 * MIB) for _ in range((TOTAL_MAX - LARGE_MAX) // CHUNK_SIZE_SMALL)]
    assert {len(one) for one in small} == {CHUNK_SIZE_SMALL}
    assert buffers.lent == TOTAL_MAX
    with trio.move_on_after(0.01) as waiting:
        await buffers.take(1)
    assert waiting.cancelled_caught
    assert buffers.lent == TOTAL_MAX
    for one in lent + small:
        buffers.give_back(one)
    assert (buffers.lent, buffers.lent_large) == (0, 0)


async def test_who_waits_gets_its_buffer_when_one_comes_back() -> None:
    buffers = Buffers(total_max=2 * CHUNK_SIZE_SMALL)
    first, second = await buffers.take(CHUNK_SIZE_SMALL), await buffers.take(CHUNK_SIZE_SMALL)
    got = []

    async def wait() -> None:
        got.append(await buffers.take(CHUNK_SIZE_SMALL))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not got
        buffers.give_back(first)
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked()
        assert len(got) == 1
    buffers.give_back(second)
    buffers.give_back(got[0])


async def test_what_is_kept_for_the_next_is_bounded_whatever_the_sizes_were() -> None:
    buffers = Buffers()
    for size in range(1000, 600_000, 1777):  # the last pieces of many blobs
        buffers.give_back(await buffers.take(size))
        assert buffers.idle <= TOTAL_MAX // 2
    several = [await buffers.take(CHUNK_SIZE_MAX) for _ in range(3)]
    for one in several:
        buffers.give_back(one)
    assert buffers.idle <= TOTAL_MAX // 2
    assert buffers.idle == sum(len(one) for free in buffers._free.values() for one in free)


async def test_a_buffer_is_used_again() -> None:
    buffers = Buffers()
    one = await buffers.take(MIB)
    buffers.give_back(one)
    assert await buffers.take(MIB) is one
    assert buffers.idle == 0


async def test_an_error_a_cancel_and_an_abandoned_piece_give_their_memory_back() -> None:
    true, intake = blob_bytes(3 * MIB), Intake()
    failing = way(1, true, Sink(3 * MIB, fails_at=MIB), intake)
    with pytest.RaisesGroup(DiskFull):
        await failing.bring(true)
    assert failing.storing.failing is failing.piece
    failing.piece.give_up()  # as the core does, when it hears of it
    failing.storing.close()
    assert (intake.buffers.lent, intake.writers) == (0, {})

    cancelled = way(2, true, Sink(3 * MIB), intake)
    await cancelled.bring(true, 0, MIB + RUN_SIZE_MAX)
    with trio.CancelScope() as scope:
        scope.cancel()
        await cancelled.bring(true, MIB + RUN_SIZE_MAX)
    assert intake.buffers.lent >= MIB
    cancelled.piece.close()
    cancelled.storing.close()
    assert (intake.buffers.lent, intake.writers) == (0, {})

    abandoned = way(3, true, Sink(3 * MIB), intake)
    await abandoned.bring(true, 0, MIB + RUN_SIZE_MAX)
    abandoned.piece.give_up()
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_one_connection_holds_a_few_chunks_however_fast_it_is() -> None:
    true, intake = blob_bytes(16 * MIB), Intake()
    entered, leave = threading.Event(), threading.Event()
    sink, most = Held(16 * MIB, entered, leave), 0
    one = way(1, true, sink, intake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.bring, true)
        await trio.to_thread.run_sync(entered.wait)
        await trio.testing.wait_all_tasks_blocked(0.01)
        most = intake.buffers.lent
        leave.set()
    assert most == CHUNKS_MAX * CHUNK_SIZE_MAX
    assert one.piece.held


async def test_a_pieces_chunks_are_stored_in_their_order_and_another_pieces_beside_them() -> None:
    """One thread hashes and writes more slowly than a fast peer sends."""
    first, second, intake = blob_bytes(3 * MIB, 1), blob_bytes(MIB, 2), Intake()
    entered, leave = threading.Event(), threading.Event()
    held, sink = Held(3 * MIB, entered, leave), Sink(MIB)
    one = way(1, first, held, intake)
    two = Incoming(2, (DIGEST, 1), sink, 0, MIB, True, intake)
    two.begin(link_of(second))

    async def bring(piece: Incoming, data: bytes, start: int, end: int | None = None) -> None:
        for offset in range(start, end or len(data), RUN_SIZE_MAX):
            part = data[offset : offset + RUN_SIZE_MAX]
            await piece.take_run(Run(piece.rid, offset, len(part)), FrameReader(Played([part])), one.storing)

    async with trio.open_nursery() as nursery:
        for _ in range(STORERS):
            nursery.start_soon(one.storing.run)
        await bring(one.piece, first, 0, 2 * MIB)
        await trio.to_thread.run_sync(entered.wait)
        await bring(two, second, 0)
        with trio.fail_after(5):
            while not two.held:
                await one.storing._moved.park()
        assert held.writes == []  # its second chunk waits for its first, though a thread is free
        leave.set()
        await bring(one.piece, first, 2 * MIB)
        with trio.fail_after(5):
            while one.storing._chunks:
                await one.storing._moved.park()
        nursery.cancel_scope.cancel()
    assert one.piece.held
    assert held.writes == [(place * MIB, MIB) for place in range(3)]
    assert bytes(held.data) == first
    assert bytes(sink.data) == second


# -- one writer -------------------------------------------------------------------------------------------------------


class Held(Sink):
    """A disk that hangs until it is let go."""

    def __init__(self, size: int, entered: threading.Event, leave: threading.Event) -> None:
        super().__init__(size)
        self.entered, self.leave = entered, leave

    def write(self, offset: int, data: memoryview) -> None:
        self.entered.set()
        self.leave.wait(10)
        super().write(offset, data)


async def test_a_large_piece_is_written_as_it_comes_in_bounded_memory() -> None:
    true, sink, intake = blob_bytes(10 * MIB + 5), Sink(10 * MIB + 5), Intake()
    one = way(1, true, sink, intake)
    await one.bring(true, 0, 5 * MIB + RUN_SIZE_MAX)
    assert intake.buffers.lent == CHUNK_SIZE_MAX
    await one.bring(true, 5 * MIB + RUN_SIZE_MAX)
    assert one.is_whole
    assert one.piece.held
    assert bytes(sink.data) == true
    assert sink.writes == [*((place * MIB, MIB) for place in range(10)), (10 * MIB, 5)]
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_a_wrong_byte_anywhere_is_found() -> None:
    true, intake = blob_bytes(3 * MIB), Intake()
    for place in (0, MIB - 1, MIB, 3 * MIB - 1):
        wrong = bytearray(true)
        wrong[place] ^= 1
        one = way(1, true, Sink(3 * MIB), intake)
        await one.bring(bytes(wrong))
        assert one.is_whole
        assert not one.piece.held


async def test_of_two_that_bring_a_piece_the_second_writes_nothing() -> None:
    """Else a liar's bytes could follow the right ones of the other into the file, after those were checked."""
    true, sink, intake = blob_bytes(10 * MIB), Sink(10 * MIB), Intake()
    good, bad = way(1, true, sink, intake), way(2, true, sink, intake)
    await good.bring(true, 0, 4 * MIB)
    await bad.bring(bytes(10 * MIB))
    assert bad.overtaken
    await good.bring(true, 4 * MIB)
    assert good.piece.held
    assert bytes(sink.data) == true
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_a_writer_that_stands_still_is_overtaken_by_one_that_moves() -> None:
    true, sink, intake = blob_bytes(10 * MIB), Sink(10 * MIB), Intake()
    slow = way(1, true, sink, intake)
    await slow.bring(bytes(10 * MIB), 0, 4 * MIB)
    quick = way(2, true, sink, intake)
    await quick.bring(true, 0, 4 * MIB)
    await slow.bring(bytes(10 * MIB), 4 * MIB)
    assert slow.overtaken
    await quick.bring(true, 4 * MIB)
    assert quick.piece.held
    assert bytes(sink.data) == true
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_nobody_writes_a_piece_while_another_is_writing_it() -> None:
    true, intake = blob_bytes(MIB), Intake()
    entered, leave = threading.Event(), threading.Event()
    quick = Sink(MIB)
    first, second = way(1, true, Held(MIB, entered, leave), intake), way(2, true, quick, intake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.bring, true)
        await trio.to_thread.run_sync(entered.wait)
        await second.bring(true)
        assert second.overtaken
        assert quick.writes == []
        leave.set()
    assert first.piece.held
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_a_piece_abandoned_while_it_is_written_keeps_its_right_until_the_write_is_over() -> None:
    true, intake = blob_bytes(MIB), Intake()
    entered, leave = threading.Event(), threading.Event()
    first = way(1, true, Held(MIB, entered, leave), intake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.bring, true)
        await trio.to_thread.run_sync(entered.wait)
        first.piece.give_up()
        assert intake.writers == {KEY: first.piece}
        assert intake.buffers.lent == MIB
        leave.set()
    assert not first.is_whole
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_after_a_failure_the_next_one_may_write() -> None:
    true, sink, intake = blob_bytes(10 * MIB), Sink(10 * MIB), Intake()
    gone, next_one = way(1, true, sink, intake), way(2, true, sink, intake)
    await gone.bring(bytes(10 * MIB), 0, 4 * MIB)
    gone.piece.close()
    await next_one.bring(true)
    assert next_one.piece.held
    assert bytes(sink.data) == true
