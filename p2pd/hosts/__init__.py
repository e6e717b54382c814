"""The configuration of this node's image clients, with p2pd put in as the mirror and taken out again.

Each client has a module that plans the change; nothing is written before the whole plan stands. Not a judge of whether
the mirror works. Knows `p2pd.config.place` and `p2pd.toml` only.
"""

from p2pd.hosts import containerd, containerd_config, containers, docker
from p2pd.hosts.distributions import refuse_generated
from p2pd.hosts.files import Change, HostsError, Plan, apply, difference

__all__ = [
    "Change",
    "HostsError",
    "Plan",
    "apply",
    "containerd",
    "containerd_config",
    "containers",
    "difference",
    "docker",
    "refuse_generated",
]
