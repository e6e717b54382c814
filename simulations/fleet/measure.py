"""One measured run: builds the fleet, lets all clients pull at once, counts, and takes everything down again.

    upstream (docker-registry behind the counting front) -- link -- switch -- link each way -- node: p2pd, one client

Each machine is a network namespace, its link limited both ways by tbf; the tracker's is not limited.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from p2pd.swarm.pieces import Geometry
from simulations.fleet.links import LinkSampler, Timeline
from simulations.fleet.plan import FleetPlan, bound
from simulations.fleet.reader import Client, Reading, pull_all
from simulations.lab import (
    REGISTRY_NAME,
    Busy,
    Fabric,
    Front,
    Image,
    Link,
    Member,
    Node,
    Registry,
    Tracker,
    core_wait_seconds,
    cpu_seconds,
)

REPOSITORY = "measured/fleet"
BUSY_MAX = 0.85  # of all cores: above it a figure says more about the machine than about the program

# A directory and its nodes that have just started grant nothing for some seconds, since they can't know yet who holds
# what. A fleet in service has that behind it.
SETTLE_S = 4.0

# All daemons start at once, and a core starts about one of them in a second.
READY_S, READY_S_PER_NODE = 20.0, 3.0


@dataclass(frozen=True, slots=True)
class FleetRun:
    """One run's figures. Seconds, from each client's own start to its last byte, in ascending order; ratios."""

    seconds: tuple[float, ...]
    bound_s: float
    identical: int
    upstream_copies: float
    upstream_requests_max: int
    duplicate_ratio: float
    refused_ratio: float
    cpu_s: float  # of a node
    core_wait: float  # share of the time that a daemon's event loop was ready and had no core
    busy: float  # share of all cores, whoever used them
    manifest_s: float  # the median client's until it has read the manifest
    downlinks_use: float  # mean over all nodes until the slowest has ended
    uplinks_use: float
    timeline: Timeline

    @property
    def counts(self) -> bool:
        """Whether the machine had enough to spare for the figures to mean something."""
        return self.busy <= BUSY_MAX

    def quantile(self, share: float) -> float:
        """The time within which this share of the nodes has ended (nearest rank)."""
        place = max(1, -(-len(self.seconds) * share // 1))
        return self.seconds[int(place) - 1]

    @property
    def slowest(self) -> float:
        return self.seconds[-1]


@dataclass(frozen=True, slots=True)
class Spent:
    """What all daemons together used and waited for, and how busy the machine was."""

    cpu_s: float
    core_wait_s: float
    busy: float


class Fleet:
    """A context manager: upstream, tracker and nodes, running and settled. `directory` should have a short path."""

    def __init__(self, directory: Path, storage: Path, plan: FleetPlan) -> None:
        self._directory, self._storage, self.plan = directory, storage, plan
        self._stack = contextlib.ExitStack()
        self.nodes: list[Node] = []
        self.front: Front

    def __enter__(self) -> Fleet:
        with contextlib.ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self, stack: contextlib.ExitStack) -> None:
        plan, names = self.plan, [f"node{number}" for number in range(1, self.plan.nodes + 1)]
        links = {"upstream": Link(plan.upstream_link, plan.upstream_link), "tracker": Link()}
        links |= dict.fromkeys(names, Link(plan.link, plan.link))
        fabric = stack.enter_context(Fabric(links))
        upstream = fabric["upstream"]
        registry = stack.enter_context(
            Registry(self._directory / "registry", self._storage, namespace=upstream.namespace, prefix=upstream.prefix)
        )
        self.front = stack.enter_context(
            Front(self._directory / "front", registry.address, host=upstream.address, prefix=upstream.prefix)
        )
        tracker = Tracker(self._directory, "tracker", member=fabric["tracker"])
        stack.callback(tracker.stop)
        tracker.start()
        for name in names:
            node = self._node(name, tracker, fabric[name])
            stack.callback(node.stop)
            node.start(wait=False)
            self.nodes.append(node)
        for node in self.nodes:
            node.wait_ready(READY_S + READY_S_PER_NODE * plan.nodes)
        time.sleep(SETTLE_S)

    def _node(self, name: str, tracker: Tracker, member: Member) -> Node:
        return Node(
            self._directory / name,
            name,
            upstreams={REGISTRY_NAME: self.front.url},
            trackers=[tracker.address],
            member=member,
            settings=self.plan.settings,
        )

    def clients(self) -> list[Client]:
        """One client for each node."""
        return [
            Client(node.name, node.namespace or "", node.mirror_port, REGISTRY_NAME, REPOSITORY) for node in self.nodes
        ]


def measure(directory: Path, storage: Path, plan: FleetPlan, image: Image) -> FleetRun:
    """One run on a fresh fleet. LabError, ReadError."""
    with Fleet(directory, storage, plan) as fleet:
        pids = {node.name: node.process.pid for node in fleet.nodes}
        clients = fleet.clients()
        before = sum(map(cpu_seconds, pids.values())), sum(map(core_wait_seconds, pids.values()))
        with LinkSampler(pids) as sampler, Busy() as busy:
            readings = pull_all(clients, image.tag)
        spent = sum(map(cpu_seconds, pids.values())) - before[0]
        waited = sum(map(core_wait_seconds, pids.values())) - before[1]
        return _figures(fleet, image, readings, sampler.timeline, Spent(spent, waited, busy.share))


def _figures(fleet: Fleet, image: Image, readings: list[Reading], timeline: Timeline, spent: Spent) -> FleetRun:
    plan = fleet.plan
    traffic = fleet.front.traffic()
    digests = [blob.digest for blob in image.blobs]
    metrics = [node.metrics() for node in fleet.nodes]
    transfers = plan.nodes * sum(Geometry.of(layer.size).count for layer in image.layers)
    moved = plan.nodes * image.size
    seconds = tuple(sorted(reading.seconds for reading in readings))
    down, up = timeline.use(plan.link, seconds[-1])
    return FleetRun(
        seconds=seconds,
        bound_s=bound(plan),
        identical=sum(reading.identical() for reading in readings),
        upstream_copies=sum(traffic.body_bytes(name=digest) for digest in digests) / image.size,
        upstream_requests_max=max(traffic.requests_by_name(digests).values()),
        duplicate_ratio=sum(one.total("p2pd_duplicate_bytes_total") for one in metrics) / moved,
        refused_ratio=sum(one.total("p2pd_refused_requests_total") for one in metrics) / transfers,
        cpu_s=spent.cpu_s / plan.nodes,
        core_wait=spent.core_wait_s / plan.nodes / seconds[-1],
        busy=spent.busy,
        manifest_s=median(reading.manifest - reading.started for reading in readings),
        downlinks_use=down,
        uplinks_use=up,
        timeline=timeline,
    )
