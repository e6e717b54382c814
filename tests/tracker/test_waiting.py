"""Who waits at a tracker's door, and who is hung up on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from tracker import waiting as waiting_module
from tracker.waiting import WAIT_S, WaitingRoom

Call = Callable[..., socket.socket]


@pytest.fixture
def call() -> Iterator[Call]:
    """Puts one more caller into a room; the caller's end."""
    with contextlib.ExitStack() as stack:

        def add(room: WaitingRoom, now: float = 0.0) -> socket.socket:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            ours.setblocking(False)
            room.add(theirs, now)
            return ours

        yield add


def is_hung_up_on(caller: socket.socket) -> bool:
    try:
        return caller.recv(1) == b""
    except BlockingIOError:
        return False


async def let_in(room: WaitingRoom, *callers: socket.socket) -> int:
    """The place, among these, of the one that comes next."""
    with trio.fail_after(1):
        sock = await room.newest()
    with sock:
        await sock.send(b"x")
        for place, caller in enumerate(callers):
            try:
                if caller.recv(1):
                    return place
            except BlockingIOError:
                pass
    raise AssertionError("none of them")


async def test_who_came_last_goes_first(call: Call) -> None:
    room = WaitingRoom()
    now = trio.current_time()
    callers = [call(room, now) for _ in range(3)]
    assert [await let_in(room, *callers) for _ in range(3)] == [2, 1, 0]
    assert len(room) == 0


async def test_one_that_comes_while_nobody_waits_goes_at_once(call: Call) -> None:
    room = WaitingRoom()
    found: list[int] = []

    async def take() -> None:
        (await room.newest()).close()
        found.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        call(room, trio.current_time())
    assert found


async def test_who_has_waited_too_long_is_hung_up_on(call: Call, autojump_clock: MockClock) -> None:
    room = WaitingRoom()
    old = call(room, trio.current_time())
    await trio.sleep(WAIT_S + 0.1)
    new = call(room, trio.current_time())
    assert is_hung_up_on(old)
    assert len(room) == 1
    await trio.sleep(WAIT_S + 0.1)  # nobody came since: it is found when its turn comes
    newer = call(room, trio.current_time() - WAIT_S - 0.1)
    with trio.move_on_after(1):
        await room.newest()
    assert is_hung_up_on(new) and is_hung_up_on(newer)


def test_one_too_many_sends_away_who_waits_the_longest(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "CALLERS_MAX", 3)
    room = WaitingRoom()
    callers = [call(room, 0.0) for _ in range(5)]
    assert [is_hung_up_on(caller) for caller in callers] == [True, True, False, False, False]
    room.close()
    assert all(is_hung_up_on(caller) for caller in callers)


async def test_callers_are_gathered_while_nobody_is_let_in() -> None:
    room = WaitingRoom()
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    address = listener.socket.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.gather, listener)
        callers = [await trio.open_tcp_stream(*address) for _ in range(200)]
        with trio.fail_after(5):
            while len(room) < len(callers):  # noqa: ASYNC110  (it tells nobody)
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    room.close()
    for caller in callers:
        await caller.aclose()
