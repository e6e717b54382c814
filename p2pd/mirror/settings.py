"""The mirror's settings and bounds, each with its unit and its reason. Imports nothing of p2pd but names."""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.oci import DOCKER_HUB

HEADER_WAIT_SLACK = 2.0  # s on top of header_wait, so that the library's own, more exact 404 comes first


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """Durations in seconds, sizes in bytes."""

    default_upstream: str = DOCKER_HUB
    """For requests that name none, as Docker Engine's do: its registry-mirrors are for Docker Hub only."""

    header_wait: float = 20.0
    """No request goes unanswered for longer than this and HEADER_WAIT_SLACK: containerd 2.3 gives up at 30 s."""

    patience: float = 300.0
    """The same bound for clients that have no other host to go to (CRI-O, Podman, skopeo)."""

    idle_timeout: float = 180.0
    """An idle connection is kept this long: more than the clients keep theirs (containerd 30 s, BuildKit 120 s)."""

    header_timeout: float = 10.0
    """From a request's first byte to its last header: local clients send it in one piece."""

    stall_timeout: float = 300.0
    """A client that takes nothing for so long is gone; containerd's own progress timeout is at most 300 s."""

    connections_max: int = 512
    """Each costs a task and a descriptor. A node pulls with 10 to 50. When one more comes, the one that has idled the
    longest makes room; without an idle one, one whose client has left bytes unread for `unread_max`; else the new one
    is closed at once, which clients take as "next host"."""

    unread_max: float = 0.5
    """A client that reads nothing for so long may lose its place to one that does. Short, since the one that has read
    nothing for the longest goes first, and comes back for the rest; who is not let in goes upstream."""

    requests_max: int = 1000
    """Of one connection; then the answer says that it is the last. As nginx's keepalive_requests."""

    header_size_max: int = 16 << 10
    """Request line and headers; containerd's are below 1 KiB."""
