"""Memory and disk behind a piece that comes in: bounds that hold, nothing left behind, one writer for each piece."""

from __future__ import annotations

import threading

import pytest
import trio

from p2pd.peers.buffers import CHUNK_SIZE_MAX, CHUNK_SIZE_SMALL, LARGE_MAX, TOTAL_MAX, Buffers
from p2pd.peers.frames import FrameReader
from p2pd.peers.incoming import Incoming, Intake
from p2pd.swarm.messages import RUN_SIZE_MAX, Run
from tests.peers.fakes import DIGEST, DiskFull, Played, Sink, blob_bytes, link_of

MIB = 1024 * 1024
KEY = (DIGEST, 0)


async def bring(incoming: Incoming, data: bytes, start: int = 0, end: int | None = None) -> None:
    """The runs of data[start:end]; `start` is where a run begins."""
    end = len(data) if end is None else end
    for offset in range(start, end, RUN_SIZE_MAX):
        part = data[offset : min(offset + RUN_SIZE_MAX, end)]
        await incoming.take_run(Run(incoming.rid, offset, len(part)), FrameReader(Played([part])))
        if incoming.is_overtaken or incoming.is_abandoned:
            return


def incoming(rid: int, true: bytes, sink: Sink, intake: Intake) -> Incoming:
    made = Incoming(rid, KEY, sink, 0, len(true), True, intake)
    made.begin(link_of(true))
    return made


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
    true, intake = blob_bytes(MIB), Intake()
    failing = incoming(1, true, Sink(MIB, fails_at=0), intake)
    with pytest.raises(DiskFull):
        await bring(failing, true)
    failing.abandon()  # as the core does, when it hears of it
    assert intake.buffers.lent == 0

    cancelled = incoming(2, true, Sink(MIB), intake)
    await bring(cancelled, true, 0, RUN_SIZE_MAX)
    with trio.CancelScope() as scope:
        scope.cancel()
        await bring(cancelled, true, RUN_SIZE_MAX)
    assert intake.buffers.lent == MIB
    cancelled.close()

    abandoned = incoming(3, true, Sink(MIB), intake)
    await bring(abandoned, true, 0, RUN_SIZE_MAX)
    abandoned.abandon()
    assert (intake.buffers.lent, intake.writers) == (0, {})


# -- one writer -------------------------------------------------------------------------------------------------------


async def test_a_large_piece_is_written_as_it_comes_in_bounded_memory() -> None:
    true, sink, intake = blob_bytes(10 * MIB), Sink(10 * MIB), Intake()
    one = incoming(1, true, sink, intake)
    await bring(one, true, 0, 5 * MIB)
    assert intake.buffers.lent == CHUNK_SIZE_MAX
    await bring(one, true, 5 * MIB)
    assert one.held
    assert bytes(sink.data) == true
    assert sink.writes == [(0, 4 * MIB), (4 * MIB, 4 * MIB), (8 * MIB, 2 * MIB)]
    one.close()
    assert intake.writers == {}


async def test_of_two_that_bring_a_large_piece_the_second_writes_nothing() -> None:
    """Else a liar's bytes could follow the right ones of the other into the file, after those were checked."""
    true, sink, intake = blob_bytes(10 * MIB), Sink(10 * MIB), Intake()
    false = bytes(10 * MIB)
    good, bad = incoming(1, true, sink, intake), incoming(2, true, sink, intake)
    await bring(good, true, 0, 4 * MIB)
    await bring(bad, false)
    assert bad.is_overtaken
    await bring(good, true, 4 * MIB)
    assert good.held
    assert bytes(sink.data) == true
    bad.close()
    good.close()
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_a_writer_that_stands_still_is_overtaken_by_one_that_moves(autojump_clock: object) -> None:
    true, sink, intake = blob_bytes(10 * MIB), Sink(10 * MIB), Intake()
    slow = incoming(1, true, sink, intake)
    intake.threads = trio.CapacityLimiter(1)
    await _inline(bring, slow, bytes(10 * MIB), 0, 4 * MIB)
    await trio.sleep(1)
    quick = incoming(2, true, sink, intake)
    await _inline(bring, quick, true, 0, 4 * MIB)
    await _inline(bring, slow, bytes(10 * MIB), 4 * MIB)
    assert slow.is_overtaken
    await _inline(bring, quick, true, 4 * MIB)
    assert quick.held
    assert bytes(sink.data) == true
    slow.close()
    quick.close()
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def _inline(call: object, *arguments: object) -> None:
    """Thread work in the loop's own thread: an autojump clock does not see threads."""

    async def run_sync(function: object, *args: object, **_: object) -> object:
        return function(*args)  # type: ignore[operator]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", run_sync)
        await call(*arguments)  # type: ignore[operator]


async def test_nobody_writes_a_piece_while_another_is_writing_it() -> None:
    true, intake = blob_bytes(2 * MIB), Intake()
    entered, leave = threading.Event(), threading.Event()

    class Slow(Sink):
        def write(self, offset: int, data: memoryview) -> None:
            entered.set()
            leave.wait(10)
            super().write(offset, data)

    slow, quick = Slow(2 * MIB), Sink(2 * MIB)
    first, second = incoming(1, true, slow, intake), incoming(2, true, quick, intake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring, first, true)
        await trio.to_thread.run_sync(entered.wait)
        await bring(second, true)
        assert second.is_overtaken
        assert quick.writes == []
        leave.set()
    assert first.held
    first.close()
    second.close()
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_a_piece_abandoned_while_it_is_written_keeps_its_right_until_the_write_is_over() -> None:
    true, intake = blob_bytes(2 * MIB), Intake()
    entered, leave = threading.Event(), threading.Event()

    class Slow(Sink):
        def write(self, offset: int, data: memoryview) -> None:
            entered.set()
            leave.wait(10)
            super().write(offset, data)

    first = incoming(1, true, Slow(2 * MIB), intake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring, first, true)
        await trio.to_thread.run_sync(entered.wait)
        first.abandon()
        assert intake.writers == {KEY: first}
        assert intake.buffers.lent == 2 * MIB
        leave.set()
    assert (intake.buffers.lent, intake.writers) == (0, {})


async def test_after_a_failure_the_next_one_may_write() -> None:
    true, sink, intake = blob_bytes(10 * MIB), Sink(10 * MIB), Intake()
    gone, next_one = incoming(1, true, sink, intake), incoming(2, true, sink, intake)
    await bring(gone, bytes(10 * MIB), 0, 4 * MIB)
    gone.close()
    await bring(next_one, true)
    assert next_one.held
    assert bytes(sink.data) == true
    next_one.close()
