"""`simulations.lab.containerd`, under the name that tests use."""

from simulations.lab.containerd import PULL_TIMEOUT_S, Containerd, Pull, RunningPull, write_hosts

__all__ = ["PULL_TIMEOUT_S", "Containerd", "Pull", "RunningPull", "write_hosts"]
