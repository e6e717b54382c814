"""Who is avoided, how long, and how many."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from p2pd.peers.avoided import AVOIDED_MAX, AVOIDED_S, Avoided


async def test_it_ends_after_a_while(autojump_clock: MockClock) -> None:
    avoided: Avoided[bytes] = Avoided()
    avoided.add(b"a")
    await trio.sleep(AVOIDED_S / 2)
    avoided.add(b"b")
    assert b"a" in avoided
    assert b"c" not in avoided
    await trio.sleep(AVOIDED_S / 2)
    assert b"a" not in avoided
    assert b"b" in avoided


async def test_who_was_added_first_makes_room() -> None:
    avoided: Avoided[tuple[str, int]] = Avoided()
    for port in range(AVOIDED_MAX):
        avoided.add(("10.0.0.1", port))
    avoided.add(("10.0.0.1", 0))  # anew
    avoided.add(("10.0.0.2", 0))
    assert ("10.0.0.1", 0) in avoided
    assert ("10.0.0.1", 1) not in avoided
    assert ("10.0.0.1", 2) in avoided
