"""Worker threads that hash and write give way to the event loop, and nobody else does."""

from __future__ import annotations

import os
import threading

import pytest

from p2pd import background
from p2pd.background import give_way


def in_a_thread(*work) -> list:
    """What each returned, one after the other in a thread of its own."""
    found: list = []
    thread = threading.Thread(target=lambda: found.extend([one() for one in work]))
    thread.start()
    thread.join()
    return found


def policy() -> int:
    return os.sched_getscheduler(0)


def test_a_thread_that_gives_way_is_alone_in_that():
    assert in_a_thread(policy, give_way, policy) == [os.SCHED_OTHER, None, os.SCHED_BATCH]
    assert policy() == os.SCHED_OTHER
    assert in_a_thread(policy) == [os.SCHED_OTHER]


def test_who_is_idle_stays_so():
    idle = lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # noqa: E731
    assert in_a_thread(idle, give_way, policy) == [None, None, os.SCHED_IDLE]


def test_where_it_is_not_allowed_nothing_changes_and_it_is_not_tried_again(monkeypatch: pytest.MonkeyPatch):
    tried = []

    def refuse(*_) -> None:
        tried.append(1)
        raise PermissionError

    monkeypatch.setattr(background.os, "sched_setscheduler", refuse)
    assert in_a_thread(give_way, give_way, policy) == [None, None, os.SCHED_OTHER]
    assert tried == [1]
