"""The rate limit, on a virtual clock."""

from __future__ import annotations

import trio
import trio.testing

from p2pd.ratelimit import BURST_S, RateLimit


async def test_the_rate_is_kept_over_several_streams(autojump_clock: trio.testing.MockClock) -> None:
    limit = RateLimit(1000.0)
    moved = 0

    async def stream() -> None:
        nonlocal moved
        while True:
            await limit.ready()
            limit.spend(100)
            moved += 100
            await trio.lowlevel.checkpoint()

    await trio.sleep(5)  # an idle time is made up for by a tenth of a second, not more
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(stream)
    assert 10_000 <= moved <= 10_000 + 1000 * BURST_S + 3 * 100


async def test_no_limit_never_waits(autojump_clock: trio.testing.MockClock) -> None:
    limit = RateLimit(None)
    began = trio.current_time()
    for _ in range(100):
        await limit.ready()
        limit.spend(10**9)
    assert trio.current_time() == began
