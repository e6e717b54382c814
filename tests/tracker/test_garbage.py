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


def full_collections() -> int:
    return gc.get_stats()[2]["collections"]


def test_a_memory_that_grows_is_not_searched(garbage: Garbage) -> None:
    before = full_collections()
    kept = [[number] for number in range(500_000)]
    assert full_collections() == before
    assert len(kept) == 500_000


def test_it_is_searched_once_as_many_have_left_as_are_there(garbage: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_module, "LEFT_LEAST", 10)
    before = full_collections()
    for _ in range(99):
        garbage.node_left(100)
    assert full_collections() == before
    garbage.node_left(100)
    assert full_collections() == before + 1
    for _ in range(9):
        garbage.node_left(0)
    assert full_collections() == before + 1
    garbage.node_left(0)
    assert full_collections() == before + 2
