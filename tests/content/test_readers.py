"""A client that reads an arriving blob: when the pieces that it needs next are asked for first."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.arrival import Arrival, raw
from p2pd.content.readers import ArrivingReader, Patience
from p2pd.swarm import events as ev
from tests.content.conftest import PATIENCE

DIGEST = "sha256:" + "ab" * 32
PIECE = 1 << 20
COUNT = 100


class Client:
    """Reads a blob of which a piece comes each second, the last one first; `helped_at`: seconds from its start."""

    def __init__(self, patience: Patience = PATIENCE) -> None:
        self.arrival = Arrival(DIGEST, "blob", "registry.example", "app")
        self.arrival.opened(SimpleNamespace(size=COUNT * PIECE, piece_size=PIECE))  # type: ignore[arg-type]
        self.arrival.size_is_sure = True
        self.began = trio.current_time()
        self.helped_at: list[tuple[float, int]] = []
        core: Any = SimpleNamespace(post=self._post)
        self.reader = ArrivingReader(
            self.arrival, None, core, Metrics("test"), patience, Random(1), patient=False
        )  # type: ignore[arg-type]  # fmt: skip

    def _post(self, event: ev.Reading) -> None:
        assert event.digest == raw(DIGEST)
        self.helped_at.append((trio.current_time() - self.began, event.index))

    async def pieces_come(self, first: int, count: int) -> None:
        for index in range(first, first - count, -1):
            await trio.sleep(1)
            self.arrival.present |= 1 << index
            self.arrival.progress()


async def test_whose_beginning_does_not_come_is_helped_after_half_of_its_patience() -> None:
    client = Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.pieces_come, COUNT - 1, 15)
        await trio.sleep(0.5)
        with trio.move_on_after(14):
            await client.reader.wait(0)
    assert client.helped_at
    assert all(at > 10 and index == 0 for at, index in client.helped_at)


async def test_who_reads_and_stands_still_is_helped_while_other_pieces_come() -> None:
    client = Client()
    client.arrival.present = 0b11
    await trio.sleep(6)  # longer than hold_back
    assert await client.reader.wait(0) == 2 * PIECE
    begun = trio.current_time() - client.began
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.pieces_come, COUNT - 1, 15)
        with trio.move_on_after(14):
            await client.reader.wait(2 * PIECE)
    assert client.helped_at
    assert all(at > begun + 10 and index == 2 for at, index in client.helped_at)


async def test_where_nothing_comes_at_all_it_is_helped_soon() -> None:
    client = Client()
    with trio.move_on_after(4):
        await client.reader.wait(0)
    assert 2 < client.helped_at[0][0] < 4


async def test_where_only_proven_bytes_go_out_the_order_of_the_pieces_is_no_matter() -> None:
    client = Client(Patience(hold_back=5.0, header_wait=20.0, streams_early=False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.pieces_come, COUNT - 1, 40)
        with trio.move_on_after(39):
            await client.reader.wait(0)
    assert client.helped_at == []
