"""Runs of a file to a socket: exact bytes, cold pages off the event loop, and each way to fail."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from p2pd import filesend
from p2pd.filesend import ReceiverGone, ReceiverStalled, SourceFailed, send_file_range, warm

SIZE = 3 * filesend.WINDOW + 12345
STALL_S = 30.0


@pytest.fixture(scope="module")
def content() -> bytes:
    return Random(2).randbytes(SIZE)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Path:
    path = tmp_path_factory.mktemp("filesend") / "file"
    path.write_bytes(content)
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


async def receive_all(sock: trio.socket.SocketType, limit: int = 1 << 20) -> bytes:
    received = bytearray()
    while data := await sock.recv(limit):
        received += data
    return bytes(received)


async def sent_and_received(fd: int, offset: int, count: int) -> bytes:
    ours, theirs = trio.socket.socketpair()
    received = b""

    async def receive() -> None:
        nonlocal received
        received = await receive_all(theirs)

    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await send_file_range(ours, fd, offset, count, stall_timeout=STALL_S)
            ours.shutdown(trio.socket.SHUT_WR)
    return received


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, SIZE), (0, 0), (0, 1), (SIZE - 1, 1), (filesend.WINDOW - 1, 2), (12345, 2 * filesend.WINDOW + 1)],
)
async def test_exactly_the_run(fd: int, content: bytes, offset: int, count: int) -> None:
    assert await sent_and_received(fd, offset, count) == content[offset : offset + count]


async def test_cold_pages(fd: int, content: bytes) -> None:
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert await sent_and_received(fd, 0, SIZE) == content


async def test_warm_makes_pages_resident(fd: int) -> None:
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if filesend._is_resident(fd, 0, filesend.WINDOW):
        pytest.skip("this file system keeps its pages")
    await warm(fd, 0, filesend.WINDOW)
    if not filesend._is_resident(fd, 0, filesend.WINDOW):
        pytest.skip("this file system can't tell")
    with trio.testing.assert_no_checkpoints():
        await warm(fd, 0, filesend.WINDOW)


async def test_a_slow_disk_does_not_hold_up_the_loop(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(loan: list[int], offset: int, count: int) -> None:
        time.sleep(0.2)

    monkeypatch.setattr(filesend, "_is_resident", lambda *_: False)
    monkeypatch.setattr(filesend, "_read_through", slow)
    ticks = 0
    async with trio.open_nursery() as nursery:

        async def tick() -> None:
            nonlocal ticks
            while True:
                await trio.sleep(0.01)
                ticks += 1

        nursery.start_soon(tick)
        await sent_and_received(fd, 0, 1000)
        nursery.cancel_scope.cancel()
    assert ticks >= 5


async def test_an_abandoned_read_leaves_no_descriptor(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = filesend._read_through

    def slow(loan: list[int], offset: int, count: int) -> None:
        time.sleep(0.1)
        real(loan, offset, count)

    monkeypatch.setattr(filesend, "_is_resident", lambda *_: False)
    monkeypatch.setattr(filesend, "_read_through", slow)
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        for _ in range(3 * filesend.READERS_MAX):
            nursery.start_soon(warm, fd, 0, 1000)
        await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_receiver_that_goes_away(fd: int) -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        async with trio.open_nursery() as nursery:

            async def read_a_bit() -> None:
                await theirs.recv(100_000)
                theirs.close()

            nursery.start_soon(read_a_bit)
            with pytest.raises(ReceiverGone) as caught:
                await send_file_range(ours, fd, 0, SIZE, stall_timeout=STALL_S)
    assert 0 < caught.value.sent < SIZE


async def test_a_receiver_that_takes_nothing(fd: int) -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        with pytest.raises(ReceiverStalled) as caught:
            await send_file_range(ours, fd, 0, SIZE, stall_timeout=0.05)
        ours.shutdown(trio.socket.SHUT_WR)
        assert len(await receive_all(theirs)) == caught.value.sent


async def test_a_receiver_that_takes_a_little_now_and_then_has_not_stalled(fd: int) -> None:
    ours, theirs = trio.socket.socketpair()
    count = 2 << 20
    with ours, theirs:
        async with trio.open_nursery() as nursery:

            async def read_slowly() -> None:
                received = 0
                while received < count:
                    await trio.sleep(0.05)
                    for _ in range(4):
                        received += len(await theirs.recv(64 << 10))

            nursery.start_soon(read_slowly)
            await send_file_range(ours, fd, 0, count, stall_timeout=0.3)


async def test_a_socket_that_another_task_closes(fd: int) -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await trio.sleep(0.02)
                ours.close()

            nursery.start_soon(close)
            with pytest.raises(ReceiverGone):
                await send_file_range(ours, fd, 0, SIZE, stall_timeout=STALL_S)
    with pytest.raises(ReceiverGone):
        await send_file_range(ours, fd, 0, SIZE, stall_timeout=STALL_S)


async def test_a_file_that_is_too_short(fd: int) -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs, pytest.raises(SourceFailed, match=f"ends at byte {SIZE}") as caught:
        await send_file_range(ours, fd, SIZE - 1000, 2000, stall_timeout=STALL_S)
    assert caught.value.sent == 1000


async def test_a_disk_error(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(loan: list[int], offset: int, count: int) -> None:
        os.close(loan.pop())
        raise SourceFailed("reading at byte 0: Input/output error")

    monkeypatch.setattr(filesend, "_is_resident", lambda *_: False)
    monkeypatch.setattr(filesend, "_read_through", fail)
    ours, theirs = trio.socket.socketpair()
    with ours, theirs, pytest.raises(SourceFailed, match="Input/output error"):
        await send_file_range(ours, fd, 0, 1000, stall_timeout=STALL_S)


async def test_a_checkpoint_in_each_call(fd: int) -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        for count in (0, 1):
            with trio.testing.assert_checkpoints():
                await send_file_range(ours, fd, 0, count, stall_timeout=STALL_S)


# Long runs go out from a worker thread


@pytest.fixture
def pumps(monkeypatch: pytest.MonkeyPatch) -> list[filesend._Pump]:
    """All that were used, in their order."""
    made = []

    class Noted(filesend._Pump):
        def __init__(self, *descriptors: int) -> None:
            super().__init__(*descriptors)
            made.append(self)

    monkeypatch.setattr(filesend, "_Pump", Noted)
    return made


async def test_a_long_run_goes_out_from_a_thread(
    fd: int, content: bytes, pumps: list[filesend._Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesend, "PUMP_PATIENCE_S", STALL_S)  # also on a machine that is busy with other things
    assert await sent_and_received(fd, 0, SIZE) == content
    assert sum(pump.sent for pump in pumps) > SIZE // 2


async def test_segments_are_held_back_for_the_event_loop_alone(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread's call ends when the socket is full: its last segment must not wait for the next one."""
    corked: dict[bool, set[int]] = {True: set(), False: set()}
    send = filesend._send_some

    def look(sock: int, *rest: int) -> int:
        with socket.socket(fileno=os.dup(sock)) as same:
            in_thread = threading.current_thread() is not threading.main_thread()
            corked[in_thread].add(same.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))
        return send(sock, *rest)

    monkeypatch.setattr(filesend, "_send_some", look)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        theirs = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        ours = await listener.accept()
        nursery.start_soon(receive_all, theirs.socket)
        await send_file_range(ours.socket, fd, 0, SIZE, stall_timeout=STALL_S)
        assert not ours.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)
        for stream in (ours, listener):
            await stream.aclose()
    await theirs.aclose()
    assert corked == {True: {0}, False: {1}}


async def test_a_short_run_does_not(fd: int, content: bytes, pumps: list[filesend._Pump]) -> None:
    count = filesend.PUMP_MIN
    assert await sent_and_received(fd, 0, count) == content[:count]
    assert not pumps


async def test_no_thread_is_free(fd: int, content: bytes, pumps: list[filesend._Pump]) -> None:
    limiter = filesend._limiter(filesend._pumps, filesend.PUMPS_MAX)
    for number in range(filesend.PUMPS_MAX):
        limiter.acquire_on_behalf_of_nowait(number)
    assert await sent_and_received(fd, 0, SIZE) == content
    assert not pumps


async def test_no_descriptor_is_free(
    fd: int, content: bytes, pumps: list[filesend._Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "dup", fail)
    assert await sent_and_received(fd, 0, SIZE) == content
    assert pumps and not any(pump.sent for pump in pumps)
    monkeypatch.setattr(filesend, "_is_resident", lambda *_: False)
    with pytest.raises(SourceFailed, match="Too many open files"):
        await warm(fd, 0, 1000)


async def test_a_receiver_that_does_not_keep_up_holds_no_thread(fd: int, pumps: list[filesend._Pump]) -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: send_file_range(ours, fd, 0, SIZE, stall_timeout=STALL_S))
            with trio.fail_after(5):
                while not (pumps and pumps[0].is_slow):  # noqa: ASYNC110  (a thread's field is nobody's event)
                    await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked()
            assert filesend._limiter(filesend._pumps, filesend.PUMPS_MAX).borrowed_tokens == 0
            nursery.cancel_scope.cancel()


async def test_a_cold_file_in_a_thread_does_not_hold_up_the_loop(
    fd: int, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ticks = os.sendfile, 0
    loop = threading.get_ident()

    def slow(out: int, source: int, offset: int, count: int) -> int:
        if threading.get_ident() != loop:
            time.sleep(0.05)
        return real(out, source, offset, count)

    monkeypatch.setattr(os, "sendfile", slow)

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(0.005)
            ticks += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        assert await sent_and_received(fd, 0, SIZE) == content
        nursery.cancel_scope.cancel()
    assert ticks >= 5


async def test_a_cancelled_run_ends_with_fin_and_leaves_no_descriptor(fd: int, content: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = trio.socket.socketpair()
    received = b""
    with ours, theirs:
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                nonlocal received
                received = await receive_all(theirs)

            nursery.start_soon(receive)
            with trio.CancelScope() as scope:
                nursery.start_soon(lambda: _cancel_soon(scope))
                await send_file_range(ours, fd, 0, SIZE, stall_timeout=STALL_S)
            ours.shutdown(trio.socket.SHUT_WR)
    assert content.startswith(received)
    with trio.fail_after(5):
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110  (a thread that nobody waits for)
            await trio.sleep(0.01)


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await trio.sleep(0.005)
    scope.cancel()
