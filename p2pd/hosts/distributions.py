"""Kubernetes distributions that write containerd's registry configuration themselves, from a file of their own.

p2pd's lines in what they write would be lost at their next start, so it says what to put into their file instead.
Source: k3s's and RKE2's "Private Registry Configuration".
"""

from __future__ import annotations

from pathlib import Path

from p2pd.hosts.files import HostsError


def refuse_generated(mirror: str, root: Path = Path("/")) -> None:
    """HostsError with the remedy if k3s or RKE2 run this machine's containerd. `root` is where its files are."""
    for name in ("k3s", "rke2"):
        if any(
            (root / place).exists() for place in (f"etc/rancher/{name}", f"var/lib/rancher/{name}/agent/containerd")
        ):
            raise HostsError(
                f"{name} writes containerd's registry configuration itself. Put this into /etc/rancher/{name}/"
                f'registries.yaml, then restart {name}:\n    mirrors:\n      "*":\n        endpoint:\n'
                f'          - "{mirror}"\n'
                "If containerd runs beside it on its own, name its directory with --certs-dir."
            )
