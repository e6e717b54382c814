"""A whole fleet on one machine: an upstream, trackers, and machines that each run p2pd and containerd.

On loopback with random ports, or, if a link's rate is given, each in a network namespace of its own. A context manager;
whatever happens, everything it started is ended and its namespaces are gone.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from simulations.lab.certificates import Certificates
from simulations.lab.containerd import PULL_TIMEOUT_S, Containerd, Pull, RunningPull, write_hosts
from simulations.lab.images import Image
from simulations.lab.netns import Fabric, Link, Member
from simulations.lab.nodes import Node, Settings, Tracker
from simulations.lab.process import LabError, run
from simulations.lab.registry import Registry
from simulations.lab.upstream import Front

# What references say; no such host exists, so only the configured ways lead there. The plain one is for the path form
# of skopeo and CRI-O, whose references can't hold a port within a path.
REGISTRY_NAME = "registry.test:5000"
REGISTRY_NAME_PLAIN = "registry.test"


def reference(repository: str, tag: str = "latest") -> str:
    """The name under which a pushed image is pulled."""
    return f"{REGISTRY_NAME}/{repository}:{tag}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build. Rates in bytes a second.

    With `namespaces`, every machine gets a network namespace and a link of `link` both ways; upstream's is
    `upstream_link`; `slow_uplinks` gives nodes, by name, another rate for what they send. `rate` limits upstream's
    answers together, in the front itself. `settings` goes over each node's configuration. Without `tls` nodes and
    trackers are insecure. `small_disks` gives nodes, by name, a state directory on a disk of so many bytes. Without
    `containerd`, none is started: for tests that ask the mirrors themselves.
    """

    nodes: int = 4
    trackers: int = 1
    rate: float | None = None
    namespaces: bool = False
    link: float | None = None
    upstream_link: float | None = None
    slow_uplinks: Mapping[str, float] = field(default_factory=dict)
    mdns: bool = False
    tls: bool = True
    settings: Settings = field(default_factory=dict)
    small_disks: Mapping[str, int] = field(default_factory=dict)
    containerd: bool = True


@dataclass(slots=True)
class Machine:
    """One machine of the fleet: p2pd, containerd and its hosts.toml."""

    name: str
    node: Node
    containerd: Containerd
    hosts: Path
    pulling: RunningPull | None = None

    def start_pull(self, name: str, *, unpack: bool = True) -> RunningPull:
        """Begins a pull by containerd."""
        self.pulling = self.containerd.start_pull(name, self.hosts, unpack=unpack)
        return self.pulling

    def pull(self, name: str, *, unpack: bool = True, timeout_s: float = PULL_TIMEOUT_S) -> Pull:
        """Pulls by containerd and waits for the end."""
        return self.start_pull(name, unpack=unpack).wait(timeout_s)

    def crash(self) -> None:
        """The machine dies: its client and its p2pd at once, by SIGKILL. What is on its disk stays."""
        if self.pulling is not None:
            self.pulling.kill9()
        self.node.kill9()


class Lab:
    """`directory` should have a short path: unix sockets under it may not be longer than 107 bytes."""

    def __init__(self, directory: Path, storage: Path, plan: Plan) -> None:
        self.directory, self.plan = directory, plan
        self._storage = storage
        self._stack = contextlib.ExitStack()
        self._fabric: Fabric | None = None
        self.certificates: Certificates | None = None
        self.machines: list[Machine] = []
        self.trackers: list[Tracker] = []
        self.registry: Registry
        self.front: Front

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self._build()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in self.machines:  # all at once: each takes a moment to end
            machine.node.process.send_signal(signal.SIGTERM)
            machine.containerd.process.send_signal(signal.SIGTERM)
        self._stack.close()

    def _build(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.certificates = Certificates(self.directory / "fleet") if self.plan.tls else None
        names = [f"node{number}" for number in range(1, self.plan.nodes + 1)]
        trackers = [f"tracker{number}" for number in range(1, self.plan.trackers + 1)]
        if self.plan.namespaces:
            link, unlimited = Link(self.plan.link, self.plan.link), Link()
            upstream = Link(self.plan.upstream_link, self.plan.upstream_link)
            links = {"upstream": upstream} | dict.fromkeys(trackers, unlimited) | dict.fromkeys(names, link)
            links |= {name: Link(up, self.plan.link) for name, up in self.plan.slow_uplinks.items()}
            self._fabric = self._stack.enter_context(Fabric(links))
        for name in trackers:
            tracker = Tracker(self.directory, name, member=self._member(name), certificates=self.certificates)
            self._stack.callback(tracker.stop)
            tracker.start(wait=False)
            self.trackers.append(tracker)
        self._start_upstream()
        for tracker in self.trackers:
            tracker.wait_ready()
        self.machines = [self._make_machine(name) for name in names]
        started = [machine.containerd for machine in self.machines if self.plan.containerd]
        for containerd in started:
            containerd.process.start()
        self.start_nodes()
        for containerd in started:
            containerd.wait_ready()

    def _member(self, name: str) -> Member | None:
        return self._fabric[name] if self._fabric else None

    def _start_upstream(self) -> None:
        member = self._member("upstream")
        prefix = member.prefix if member else ()
        namespace = member.namespace if member else None
        self.registry = Registry(self.directory / "registry", self._storage, namespace=namespace, prefix=prefix)
        self._stack.enter_context(self.registry)
        host = member.address if member else "127.0.0.1"
        self.front = Front(
            self.directory / "front", self.registry.address, host=host, prefix=prefix, rate=self.plan.rate
        )
        self._stack.enter_context(self.front)

    def _make_machine(self, name: str) -> Machine:
        directory, member = self.directory / name, self._member(name)
        node = Node(
            directory,
            name,
            upstreams=dict.fromkeys((REGISTRY_NAME, REGISTRY_NAME_PLAIN), self.front.url),
            trackers=[tracker.address for tracker in self.trackers],
            member=member,
            mdns=self.plan.mdns,
            settings=self.plan.settings,
            papers=self.certificates.issue(name) if self.certificates else None,
        )
        if name in self.plan.small_disks:
            node.state.mkdir()
            run(["mount", "-t", "tmpfs", "-o", f"size={self.plan.small_disks[name]},mode=700", "lab", node.state])
            self._stack.callback(run, ["umount", "--lazy", node.state])
        self._stack.callback(node.stop)
        prefix = member.prefix if member else ()
        containerd = Containerd(directory / "c", name=f"{name}'s containerd", prefix=prefix)
        self._stack.callback(containerd.process.stop)
        write_hosts(directory / "hosts", REGISTRY_NAME, self.front.url, [node.mirror_url])
        return Machine(name, node, containerd, directory / "hosts")

    def start_nodes(self) -> None:
        """Starts all nodes that do not run, at the same moment, and waits until they are ready."""
        waiting = [machine.node for machine in self.machines if not machine.node.process.running]
        for node in waiting:
            node.start(wait=False)
        for node in waiting:
            node.wait_ready()

    def pull_all(
        self,
        name: str,
        machines: Iterable[Machine] | None = None,
        *,
        unpack: bool = True,
        timeout_s: float = PULL_TIMEOUT_S,
    ) -> list[Pull]:
        """All machines (or the given ones) pull at once; their results in the machines' order."""
        chosen = list(self.machines if machines is None else machines)
        return self.wait_all([machine.start_pull(name, unpack=unpack) for machine in chosen], timeout_s)

    @staticmethod
    def wait_all(pulls: Sequence[RunningPull], timeout_s: float = PULL_TIMEOUT_S) -> list[Pull]:
        """Waits for the end of pulls under way."""
        with ThreadPoolExecutor(max_workers=max(1, len(pulls))) as pool:
            return list(pool.map(lambda pull: pull.wait(timeout_s), pulls))

    def cut_off(self, machines: Iterable[Machine | Tracker]) -> None:
        """These lose their network without a word, as a rack does that loses its power. For labs with namespaces."""
        for machine in machines:
            member = self._member(machine.name)
            if member is None:
                raise LabError("only a machine with a namespace can be cut off")
            run(["ip", "-n", member.namespace, "link", "set", "eth0", "down"])

    def received(self, source: str) -> dict[str, int]:
        """Bytes received from "upstream" or "peer" by each node that runs, by name."""
        running = (machine for machine in self.machines if machine.node.process.running)
        return {machine.name: machine.node.metrics().received(source) for machine in running}

    def seeder(self, timeout_s: float = 20.0) -> Machine:
        """The machine that has pulled the most from upstream, as soon as one has pulled 256 KiB and holds a lease."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            found: list[tuple[int, Machine]] = []
            for machine in self.machines:
                if machine.node.process.running:
                    metrics = machine.node.metrics()
                    if metrics.total("p2pd_leases_held") > 0 and metrics.received("upstream") >= 256 * 1024:
                        found.append((metrics.received("upstream"), machine))
            if found:
                return max(found, key=lambda pair: pair[0])[1]
            time.sleep(0.05)
        raise LabError(f"no node had a lease and bytes from upstream within {timeout_s:.0f} s")

    def differences(self, image: Image, machines: Iterable[Machine] | None = None) -> dict[str, list[str]]:
        """The machines whose containerd does not hold the whole image byte for byte, with the digests they lack."""
        chosen = self.machines if machines is None else machines
        lacking = {machine.name: machine.containerd.lacks(image) for machine in chosen}
        return {name: digests for name, digests in lacking.items() if digests}

    def report(self) -> str:
        """What a reader of a failed test wants to see: upstream's requests and the end of each log."""
        parts = []
        with contextlib.suppress(Exception):  # the front may be what failed
            parts.append("upstream's requests:\n" + self.front.traffic().table())
        processes = [tracker.process for tracker in self.trackers] + [machine.node.process for machine in self.machines]
        parts += [f"{process.name}'s log:\n{process.tail()}" for process in processes]
        return "\n\n".join(parts)
