"""When a tracker's process looks for garbage: as nodes leave, not as they come."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tracker import garbage as garbage_module
from tracker.garbage import Garbage


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    thresholds = gc.get_threshold()
    yield Garbage()
    gc.set_threshold(*thresholds)


def collections(generation: int = 2) -> int:
    return gc.get_stats()[generation]["collections"]


def test_a_memory_that_grows_is_not_searched_but_for_what_is_new(garbage: Garbage) -> None:
    before = [collections(generation) for generation in range(3)]
    kept = [[number] for number in range(500_000)]
    now = [collections(generation) for generation in range(3)]
    assert now[0] > before[0] and now[1:] == before[1:]
    assert len(kept) == 500_000


def test_it_is_searched_once_as_many_have_left_as_are_there(garbage: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_module, "LEFT_LEAST", 10)
    before = collections()
    for _ in range(99):
        garbage.node_left(100)
    assert collections() == before
    garbage.node_left(100)
    assert collections() == before + 1
    for _ in range(9):
        garbage.node_left(0)
    assert collections() == before + 1
    garbage.node_left(0)
    assert collections() == before + 2
