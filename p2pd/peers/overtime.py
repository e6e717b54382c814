"""A bound on how long OpenSSL may work on what one connection sent without data coming of it.

A read goes on inside OpenSSL, from record to record, until there is data. A member can send records without any: it
changes its keys (KeyUpdate, RFC 8446 section 4.6.3), which OpenSSL lets everybody do as often and as fast as he likes.
While they come as fast as they are worked off the read does not return, and the whole event loop stands still.

So a thread looks after the calls of the event loop's, and takes the descriptor away from one that does not end.
Time is the thread's own CPU time: a machine that is busy or was paused accuses nobody. Imports nothing of p2pd.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

CALL_S = 0.25  # of CPU, for one call: a turn's bytes take a thousandth of that
LOOK_S = 0.1  # between two looks at the call under way


class Overtime:
    """Of the calls that one thread makes, one at a time: `begin` before, `end` after it."""

    def __init__(self) -> None:
        """In the thread whose calls they are."""
        self._began = 0.0
        self._fd = -1  # of the call under way; -1 without one
        self._lock = threading.Lock()
        ended, other = socket.socketpair()
        other.close()
        clock = time.pthread_getcpuclockid(threading.get_ident())
        threading.Thread(target=self._watch, args=(clock, ended), name="overtime", daemon=True).start()

    def begin(self, fd: int) -> None:
        """A call that reads from a socket's descriptor begins."""
        self._began = time.thread_time()
        self._fd = fd

    def end(self) -> float:
        """The call has returned; seconds of CPU that it took. With CALL_S and more it found an end of file, at last."""
        with self._lock:  # once it is held, the descriptor may be closed: nobody is about to replace it
            self._fd = -1
        return time.thread_time() - self._began

    def _watch(self, clock: int, ended: socket.socket) -> None:
        """Until the other thread is gone. `ended`: to read from it finds the end."""
        with ended, contextlib.suppress(OSError):
            while True:
                time.sleep(LOOK_S)
                now = time.clock_gettime(clock)
                with self._lock:
                    if self._fd >= 0 and now - self._began >= CALL_S:
                        # Not shutdown(): what has come already, megabytes of it, would still be read.
                        os.dup2(ended.fileno(), self._fd, inheritable=False)


_threads = threading.local()


def of_this_thread() -> Overtime:
    """The one that all connections of an event loop share."""
    found: Overtime | None = getattr(_threads, "overtime", None)
    if found is None:
        found = _threads.overtime = Overtime()
    return found
