"""Worker threads whose work may wait a moment. Imports nothing of p2pd."""

from __future__ import annotations

import contextlib
import os
import threading

_thread = threading.local()


def give_way() -> None:
    """From now on this thread does not interrupt a running one when its work comes (SCHED_BATCH, sched(7)); it gets as
    much time as before.

    For hashing and writing: such a thread is woken by the event loop for each chunk, and would take the core that the
    loop is running on at that moment, with another core idle. Where it is not allowed nothing changes.
    """
    if getattr(_thread, "gives_way", False):
        return
    _thread.gives_way = True
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
