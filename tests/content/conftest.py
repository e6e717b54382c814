"""One node without a network: real store, real core, scripted registries, virtual time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from p2pd.admin.metrics import Metrics
from p2pd.content import pulling
from p2pd.content.access import Access
from p2pd.content.arrival import raw
from p2pd.content.arrivals import Arrivals
from p2pd.content.catalogue import Catalogue
from p2pd.content.images import Images
from p2pd.content.library import Library
from p2pd.content.pulling import Puller
from p2pd.content.readers import Patience
from p2pd.content.tags import Tags
from p2pd.engine import Engine
from p2pd.fleet.keys import NodeKey, verify
from p2pd.patterns import RepositoryPattern
from p2pd.store import Store
from p2pd.swarm import commands as cmd
from p2pd.swarm.messages import Contact
from p2pd.swarm.node import Node
from p2pd.swarm.voucher import node_id
from tests.content.fakes import Blob, Registry, Threads, Upstreams


def in_virtual_time(main: Callable[..., Any], **options: Any) -> Any:
    """`trio.run`, with a clock that jumps to the next deadline when all tasks wait."""
    return trio.run(main, **options | {"clock": trio.testing.MockClock(autojump_threshold=0)})


def pytest_itemcollected(item: pytest.Item) -> None:
    if inspect.iscoroutinefunction(getattr(item, "obj", None)):
        item.add_marker(pytest.mark.trio(run=in_virtual_time))


STORE_LIMIT = 100_000_000  # bytes
STARTED_S_AGO = 60.0  # its own directory grants nothing for the first two seconds
PATIENCE = Patience(hold_back=5.0, header_wait=20.0, streams_early=True)


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    threads = Threads()
    monkeypatch.setattr(trio.to_thread, "run_sync", threads.run_sync)
    monkeypatch.setattr(pulling, "give_way", lambda: None)  # it would be this thread, for good
    return threads


@dataclass
class World:
    """A node, and what its core wants of a network that is not there (`sent`)."""

    store: Store
    engine: Engine
    metrics: Metrics
    registry: Registry
    arrivals: Arrivals
    puller: Puller
    catalogue: Catalogue
    library: Library
    images: Images
    scope: trio.CancelScope
    sent: list[cmd.Command] = field(default_factory=list)

    def holds(self, blob: Blob) -> bool:
        """Whether the store has the blob, with the right bytes."""
        opened = self.store.open_blob(blob.digest)
        if opened is None:
            return False
        with opened, open(opened.fileno(), "rb", closefd=False) as file:
            file.seek(0)
            assert file.read() == blob.body
        return True

    def core(self, blob: Blob) -> Any:
        """What the core knows of it."""
        return self.engine.node.blob(raw(blob.digest))


@dataclass
class Maker:
    nursery: trio.Nursery
    root: Path
    running: list[World] = field(default_factory=list)

    def __call__(
        self, registry: Registry | None = None, *, limit: int = STORE_LIMIT, share_private: bool = False,
        private: tuple[RepositoryPattern, ...] = (), patience: Patience = PATIENCE,
        prepare: Callable[[World], None] = lambda world: None,
    ) -> World:  # fmt: skip
        """A node on this test's disk; the one before must have been stopped. `prepare` runs before its tasks."""
        registry = registry or Registry()
        key = NodeKey.generate()
        me = Contact(node_id(key.public), "node", "", "", 0)
        now = trio.current_time()
        node = Node(me, key.public, key.sign, verify, Random(1), now - STARTED_S_AGO)
        store = Store.open(self.root, limit)
        engine, metrics, upstreams = Engine(node), Metrics("test"), Upstreams(registry)
        scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()
        arrivals = Arrivals(store, engine, metrics, self.nursery)
        puller = Puller(upstreams, arrivals, engine, metrics, self.nursery)  # type: ignore[arg-type]
        tags, catalogue = Tags(upstreams, as_node=share_private), Catalogue()  # type: ignore[arg-type]
        access = Access(upstreams, tags, private=private, share_private=share_private)  # type: ignore[arg-type]
        library = Library(
            store, upstreams, tags, arrivals, catalogue, engine, metrics, patience, Random(1), access
        )  # type: ignore[arg-type]  # fmt: skip
        images = Images(library, arrivals, store)
        world = World(
            store, engine, metrics, registry, arrivals, puller, catalogue, library, images, scope
        )  # fmt: skip
        store.on_evict = lambda digest: token.run_sync_soon(arrivals.evicted, digest)
        arrivals.can_pull = puller.can_pull
        arrivals.on_hold = lambda upstream, seconds: upstreams.get(upstream).hold(seconds)
        nobody = dict.fromkeys(cmd.Command.__args__, world.sent.append)
        engine.carry_out(nobody | arrivals.commands() | puller.commands())
        prepare(world)
        arrivals.load()
        self.nursery.start_soon(self._run, world)
        self.running.append(world)
        return world

    async def _run(self, world: World) -> None:
        with world.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.engine.run)
                nursery.start_soon(world.arrivals.sweep)

    def kill(self, world: World) -> None:
        """As `kill -9`: nothing is flushed. What is under way in this process goes on, but without the lock."""
        world.scope.cancel()
        world.store.close()
        self.running.remove(world)


@pytest.fixture
async def make_world(nursery: trio.Nursery, tmp_path: Path) -> Maker:
    return Maker(nursery, tmp_path / "blobs")


@pytest.fixture
async def world(make_world: Maker) -> World:
    return make_world()
