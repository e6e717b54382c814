"""Virtual time: order, lanes and limits."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from simulations.clock import Clock, LimitReached


def make(seconds: float = 10.0, events: int = 100_000) -> Clock:
    return Clock(100.0, seconds, events)


def test_events_come_in_order_of_time_and_then_of_planning() -> None:
    clock, seen = make(), []
    clock.at(103.0, lambda a, b: seen.append(a), "late")
    clock.after(2.0, lambda a, b: seen.append(a), "lane first")
    clock.at(102.0, lambda a, b: seen.append(a), "heap second")
    clock.after(2.0, lambda a, b: seen.append(a), "lane third")
    clock.soon(lambda a, b: seen.append(a), "now")
    clock.at(104.0, lambda a, b: clock.stop())
    clock.run()
    assert seen == ["now", "lane first", "heap second", "lane third", "late"]
    assert clock.now == 104.0


@pytest.mark.parametrize("seed", range(5))
def test_heap_and_lanes_together_are_one_order(seed: int) -> None:
    random, clock = Random(seed), make(1000.0)
    seen: list[tuple[float, int]] = []
    planned = 0

    def happen(number: int, _: None) -> None:
        nonlocal planned
        seen.append((clock.now, number))
        for _ in range(random.randint(1, 3)):
            if planned < 3000:
                planned += 1
                if random.random() < 0.5:
                    clock.after(random.choice((0.0, 0.0004, 0.5, 3.0)), happen, planned)
                else:
                    clock.at(clock.now + random.choice((0.0, 0.0004, 0.5, random.random() / 100)), happen, planned)

    clock.at(100.0, happen, 0)
    clock.at(1000.0, lambda a, b: clock.stop())
    clock.run()
    assert len(seen) == 3001
    times = [when for when, _ in seen]
    assert times == sorted(times)
    for (when, number), (later, next_number) in pairwise(seen):
        assert when < later or number < next_number


def test_a_livelock_ends_by_its_events() -> None:
    clock = make(events=1000)

    def again(_: None, __: None) -> None:
        clock.soon(again)

    clock.soon(again)
    with pytest.raises(LimitReached, match="not done after 1000 events"):
        clock.run()


def test_time_is_bounded() -> None:
    clock = make(seconds=5.0)
    clock.at(104.0, lambda a, b: None)
    clock.at(106.0, lambda a, b: None)
    with pytest.raises(LimitReached, match="not done after"):
        clock.run()
    assert clock.now == 104.0


def test_an_empty_heap_is_an_error_and_not_an_end() -> None:
    with pytest.raises(LimitReached, match="nothing is left to happen"):
        make().run()
