"""A bound on how long OpenSSL may work on what one connection sent without data coming of it.

A read goes on inside OpenSSL, from record to record, until there is data. A member can send records without any: it
changes its keys (KeyUpdate, RFC 8446 section 4.6.3), which OpenSSL lets everybody do as often and as fast as he likes.
While they come as fast as they are worked off the read does not return, and the whole event loop stands still.

So a thread looks after the calls of the event loop's, and takes the descriptor away from one that does not end; and a
connection whose reads take too long for what they bring is told so. Both by the thread's own CPU time: a machine that
is busy or was paused accuses nobody. That clock costs a system call, so only who has been slow is measured by it.

May know p2pd.ratelimit.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

from p2pd.ratelimit import RateLimit

CALL_S = 0.25  # of CPU, for one call: a turn's bytes take a thousandth of that
LOOK_S = 0.1  # between two looks at the call under way
READ_S = 0.002  # that a read may take, whatever it brings: many small records on a slow board
BYTE_S = 100e-9  # ... and beside that for each byte: AES in software on a slow board takes a third of that
OVERTIME_S = 0.2  # of CPU, that a connection's reads may take beyond that: less than CALL_S,
OVERTIME_EACH_S = 20.0  # in so long
MEASURED = 1000  # reads, after one that took too long by the clock on the wall: of those the next may be judged


class Calls:
    """Those that one thread makes, one at a time: `begin` before, `end` after it."""

    def __init__(self) -> None:
        """In the thread whose calls they are."""
        self._number = 0
        self._fd = -1  # of the call under way; -1 without one
        self._was_cut = False  # the call under way
        self._lock = threading.Lock()
        ended, other = socket.socketpair()
        other.close()
        clock = time.pthread_getcpuclockid(threading.get_ident())
        threading.Thread(target=self._watch, args=(clock, ended), name="overtime", daemon=True).start()

    def begin(self, fd: int) -> None:
        """A call that reads from a socket's descriptor begins."""
        self._number += 1
        self._was_cut = False
        self._fd = fd

    def end(self) -> bool:
        """It has returned. Whether it would not end: then it found the end of file here, and its connection is over."""
        with self._lock:  # once it is held, the descriptor may be closed: nobody is about to replace it
            self._fd = -1
        return self._was_cut

    def _watch(self, clock: int, ended: socket.socket) -> None:
        """Until the other thread is gone. `ended`: to read from it finds the end."""
        number, since = 0, 0.0
        with ended, contextlib.suppress(OSError):
            while True:
                time.sleep(LOOK_S)
                now = time.clock_gettime(clock)
                with self._lock:
                    if self._number != number or self._fd < 0:
                        number, since = self._number, now
                    elif now - since >= CALL_S:
                        # Not shutdown(): what has come already, megabytes of it, would still be read.
                        os.dup2(ended.fileno(), self._fd, inheritable=False)
                        self._was_cut = True


_threads = threading.local()


def calls_of_this_thread() -> Calls:
    """What all connections of an event loop share."""
    found: Calls | None = getattr(_threads, "calls", None)
    if found is None:
        found = _threads.calls = Calls()
    return found


class Overtime:
    """Of one connection's reads: `begin` before, `end` after each."""

    def __init__(self) -> None:
        self._calls = calls_of_this_thread()
        self._spent = RateLimit(OVERTIME_S * 1e6 / OVERTIME_EACH_S, time.monotonic)  # microseconds
        self._measured = 0  # reads yet to be measured by CPU time
        self._began = 0.0

    def begin(self, fd: int) -> None:
        self._began = time.thread_time() if self._measured else time.perf_counter()
        self._calls.begin(fd)

    def end(self, count: int) -> bool:
        """It brought so many bytes. Whether the connection has had too much overtime by now."""
        if self._calls.end():
            return True
        measured = self._measured
        over = (time.thread_time() if measured else time.perf_counter()) - self._began - READ_S - count * BYTE_S
        if over <= 0:
            self._measured = max(0, measured - 1)
            return False
        self._measured = MEASURED
        if measured:
            self._spent.spend(int(over * 1e6))
        return self._spent.debt() >= OVERTIME_EACH_S
