"""A laboratory for p2pd: real containerd, real registry, real daemons, on one machine.

Used by `p2pd-sim fleet`, the end-to-end tests, the benches and the demo. It starts and stops real programs and counts
at the registry's door; it replaces none of them. It sees the daemon as an operator does, and imports nothing of p2pd
but what makes a fleet's certificates.
"""

from simulations.lab.containerd import Containerd, Pull, RunningPull, write_hosts
from simulations.lab.cpu import Busy, anonymous_bytes, core_wait_seconds, cpu_seconds, resident_bytes
from simulations.lab.images import Blob, Image, Layer, build_image, build_index, push, read_layout
from simulations.lab.lab import REGISTRY_NAME, REGISTRY_NAME_PLAIN, Lab, Machine, Plan, reference
from simulations.lab.netns import Fabric, Link, Member, remove_leftovers, socket_in
from simulations.lab.nodes import Answer, Metrics, Node, Tracker, http_get
from simulations.lab.process import LabError, Process, free_port, wait_until
from simulations.lab.registry import Registry
from simulations.lab.upstream import Front, Traffic
from simulations.lab.warehouse import Warehouse

__all__ = [
    "REGISTRY_NAME",
    "REGISTRY_NAME_PLAIN",
    "Answer",
    "Blob",
    "Busy",
    "Containerd",
    "Fabric",
    "Front",
    "Image",
    "Lab",
    "LabError",
    "Layer",
    "Link",
    "Machine",
    "Member",
    "Metrics",
    "Node",
    "Plan",
    "Process",
    "Pull",
    "Registry",
    "RunningPull",
    "Tracker",
    "Traffic",
    "Warehouse",
    "anonymous_bytes",
    "build_image",
    "build_index",
    "core_wait_seconds",
    "cpu_seconds",
    "free_port",
    "http_get",
    "push",
    "read_layout",
    "reference",
    "remove_leftovers",
    "resident_bytes",
    "socket_in",
    "wait_until",
    "write_hosts",
]
