"""One flight and the cache: the small machines that the rest leans on."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from p2pd.upstream import BadAnswer, Denied
from p2pd.upstream.flights import Cache, Flights


async def test_one_flight_for_each_key(autojump_clock: trio.testing.MockClock) -> None:
    flights: Flights[str, int] = Flights()
    calls: list[str] = []
    got: list[int] = []

    async def work(key: str) -> int:
        calls.append(key)
        await trio.sleep(1)
        return len(calls)

    async def ask(key: str) -> None:
        got.append(await flights.run(key, lambda: work(key)))

    async with trio.open_nursery() as nursery:
        for key in "aabbba":
            nursery.start_soon(ask, key)
    assert sorted(calls) == ["a", "b"]
    assert got == [2] * 6
    await ask("a")
    assert sorted(calls) == ["a", "a", "b"]


async def test_an_error_is_shared_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    flights: Flights[str, int] = Flights()
    caught: list[Denied] = []

    async def work() -> int:
        await trio.sleep(1)
        raise Denied("no", 403)

    async def ask() -> None:
        with pytest.raises(Denied) as info:
            await flights.run("a", work)
        caught.append(info.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert [(str(error), error.status) for error in caught] == [("no", 403)] * 3
    assert len(set(map(id, caught))) == 3  # each task its own traceback


async def test_none_is_a_value(autojump_clock: trio.testing.MockClock) -> None:
    flights: Flights[str, None] = Flights()
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flights.run, "a", work)
        nursery.start_soon(flights.run, "a", work)
    assert calls == 1


async def test_our_own_bugs_are_not_shared(autojump_clock: trio.testing.MockClock) -> None:
    flights: Flights[str, int] = Flights()
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        await trio.sleep(1)
        if calls == 1:
            raise KeyError("bug")
        return calls

    async def first() -> None:
        with pytest.raises(KeyError):
            await flights.run("a", work)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(0.5)
        assert await flights.run("a", work) == 2


def test_cache() -> None:
    now = 0.0
    cache: Cache[str, int] = Cache(2, lambda: now)
    cache.put("a", 1, 10)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (1, None, 3, 2)
    now = 10.0
    assert (cache.get("a"), len(cache)) == (None, 1)
    cache.drop("c")
    cache.drop("c")
    assert len(cache) == 0


def test_errors_can_be_copied() -> None:
    import copy

    from p2pd.upstream import RateLimited, Unreachable

    assert copy.copy(RateLimited("x", 7)).retry_after == 7
    assert copy.copy(Unreachable("x", passing=False)).passing is False
    assert str(copy.copy(BadAnswer("x"))) == "x"
