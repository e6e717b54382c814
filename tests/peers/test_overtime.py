"""Who keeps the event loop's thread busy is cut off; who only takes long is not."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from p2pd.peers.overtime import CALL_S, LOOK_S, OVERTIME_S, READ_S, Overtime

DATA = b"x" * 10_000
WORK = bytes(2 << 20)  # to hash: a millisecond or two without Python's lock, as OpenSSL works


def spin(seconds: float) -> None:
    """Of this thread's CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.send(DATA)
    with ours, theirs:
        yield ours, theirs


def one_read(overtime: Overtime, sock: socket.socket, work: Callable[[float], None], seconds: float) -> bool:
    overtime.begin(sock.fileno())
    work(seconds)
    return overtime.end(1)


def test_a_call_that_does_not_end_finds_the_end_of_the_file_with_bytes_still_there(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    overtime = Overtime()
    overtime.begin(pair[0].fileno())
    while pair[0].recv(1):  # the end comes with most of the bytes still there
        hashlib.sha256(WORK)
    assert overtime.end(1)


def test_a_call_that_waits_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    overtime = Overtime()
    for _ in range(3):
        assert not one_read(overtime, pair[0], time.sleep, CALL_S + 3 * LOOK_S)
    assert pair[0].recv(len(DATA)) == DATA


def test_one_call_after_the_other_is_no_long_one(pair: tuple[socket.socket, socket.socket]) -> None:
    overtime = Overtime()
    for _ in range(1000):
        assert not one_read(overtime, pair[0], spin, READ_S / 2)
    assert pair[0].recv(len(DATA)) == DATA


def test_many_reads_that_take_too_long_are_too_much(pair: tuple[socket.socket, socket.socket]) -> None:
    overtime, reads = Overtime(), 0
    while not one_read(overtime, pair[0], spin, 20 * READ_S):
        reads += 1
    assert OVERTIME_S / (19 * READ_S) - 1 <= reads <= OVERTIME_S / (19 * READ_S) + 3
