"""Network namespaces that stand for machines: one switch, and for each machine a link with a limited rate both ways.

    machine --[tbf: rate up]--> veth --> bridge in the switch's namespace --> veth <--[tbf: rate down]-- ...

Needs root. Everything is in namespaces of its own, so no address or name can collide with the machine's. Not a model of
a real network: no loss, no delay but the queue's, one switch. Knows nothing of p2pd.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from simulations.lab.process import LabError, run

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000

# Packets cross a veth in bundles of up to 64 KiB (GSO). A smaller bucket makes the kernel cut each of them in software.
BURST_MIN_BYTES = 96 * 1024
BURST_S = 0.004  # of the rate: what a real port sends between two ticks of a coarse clock
QUEUE_S = 0.05  # the queue in front of each link: a usual switch port, in time

CONGESTION_CONTROL = "cubic"  # named openly: results differ by it

SUBNET = "10.99.0.0/24"
_MEMBERS_MAX = 240
_NAME = re.compile(r"p2pdlab-(\d+)-")


def socket_in(namespace: str | None, address: tuple[str, int], timeout_s: float = 5.0) -> socket.socket:
    """A TCP connection made inside a namespace (None: here), usable from outside it."""
    if namespace is None:
        return socket.create_connection(address, timeout_s)
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def connect() -> None:
        try:
            handle = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"cannot enter network namespace {namespace}")
            finally:
                os.close(handle)
            made.append(socket.create_connection(address, timeout_s))
        except OSError as error:
            failed.append(error)

    # setns changes the calling thread only; this thread ends here, so nothing else is moved.
    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


@dataclass(frozen=True, slots=True)
class Link:
    """Rates of one machine's link in bytes a second; None is unlimited."""

    up: float | None = None
    down: float | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One machine of the fabric: its namespace, its address in it, and the words that run a command there."""

    name: str
    namespace: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace)


def remove_leftovers() -> None:
    """Removes the namespaces of labs whose process is gone (a lab that was killed can't clean up)."""
    for path in NAMESPACES.glob("p2pdlab-*"):
        owner = _NAME.match(path.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            run(["ip", "netns", "del", path.name])


class Fabric:
    """A context manager that makes the switch and one namespace for each name; `fabric[name]` is its Member."""

    def __init__(self, links: Mapping[str, Link], *, congestion_control: str = CONGESTION_CONTROL) -> None:
        if len(links) > _MEMBERS_MAX:
            raise LabError(f"a fabric has at most {_MEMBERS_MAX} machines, not {len(links)}")
        self._links = dict(links)
        self._congestion_control = congestion_control
        stem = f"p2pdlab-{os.getpid()}-{id(self) & 0xFFFF:x}"
        self._switch = f"{stem}-switch"
        self._members = {
            name: Member(name, f"{stem}-{name}", f"10.99.0.{place}") for place, name in enumerate(links, start=1)
        }

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __enter__(self) -> Fabric:
        remove_leftovers()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _build(self) -> None:
        lines = [f"netns add {self._switch}", *(f"netns add {m.namespace}" for m in self._members.values())]
        _ip_batch(lines)
        _ip_batch(
            ["link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set br0 up"], self._switch
        )
        for port, member in enumerate(self._members.values()):
            _ip_batch([f"link add port{port} type veth peer name eth0 netns {member.namespace}"], self._switch)
            _ip_batch([f"link set port{port} master br0", f"link set port{port} up"], self._switch)
            _ip_batch(
                [
                    "link set lo up",
                    f"addr add {member.address}/24 dev eth0",
                    "link set eth0 up",
                    # By the route, since the sysctl takes only the algorithms that the whole machine allows.
                    f"route change {SUBNET} dev eth0 src {member.address} congctl {self._congestion_control}",
                    "route add 224.0.0.0/4 dev eth0",  # mDNS has no route by itself without a default one
                ],
                member.namespace,
            )
            link = self._links[member.name]
            _limit(member.namespace, "eth0", link.up)
            _limit(self._switch, f"port{port}", link.down)

    def _remove(self) -> None:
        for namespace in (*(member.namespace for member in self._members.values()), self._switch):
            if (NAMESPACES / namespace).exists():
                run(["ip", "netns", "del", namespace])


def _ip_batch(lines: Sequence[str], namespace: str | None = None) -> None:
    within = ("-n", namespace) if namespace else ()
    for line in lines:
        run(["ip", *within, *line.split()])


def _limit(namespace: str, device: str, rate: float | None) -> None:
    if rate is None:
        return
    burst = int(max(BURST_MIN_BYTES, rate * BURST_S))
    queue = int(max(rate * QUEUE_S, BURST_MIN_BYTES))
    settings = f"rate {int(rate * 8)}bit burst {burst} limit {queue + burst}"
    run(["tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *settings.split()])
