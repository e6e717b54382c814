"""Private upstreams for end-to-end tests: docker-registry behind a password file and behind a token service, and
machines whose containerd pulls on the kubelet's orders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cri import Cri, Secret
from tests.lab import Blob, Containerd, Front, Image, Node, Registry, Tracker, Warehouse, write_hosts
from tests.lab.nodes import Answer
from tests.lab.process import wait_until
from tests.upstream.conftest import HTPASSWD
from tests.upstream.token_service import ISSUER, SERVICE, USERS, TokenService

BASIC, TOKEN = "basic.test:5000", "token.test:5000"  # as references name them
ALICE = Secret("alice", USERS["alice"])
BOB = Secret("bob", USERS["bob"])  # may pull "bobs/..." only; the password file does not know him


@dataclass(slots=True)
class Machine:
    """p2pd, and a containerd that takes the kubelet's orders."""

    node: Node
    containerd: Containerd
    cri: Cri

    def ask(self, upstream: str, repository: str, blob: Blob, authorization: str | None = None) -> Answer:
        """A blob, asked of the mirror by a process on this machine."""
        headers = {"Authorization": authorization} if authorization else {}
        return self.node.mirror(f"/v2/{repository}/blobs/{blob.digest}?ns={upstream}", headers=headers)

    def holds(self, image: Image) -> bool:
        return self.containerd.lacks(image) == []

    def forget(self) -> None:
        """Its containerd drops all that it holds; its p2pd does not."""
        self.containerd.reset()
        wait_until(self.cri.is_ready, "the CRI plugin")


@dataclass(slots=True)
class Private:
    """`fronts` count what each upstream was asked, by its name in references."""

    fronts: dict[str, Front]
    service: TokenService
    machines: list[Machine]

    def copies(self, upstream: str, image: Image, client: str) -> float:
        """Bytes of the image that one kind of client got from upstream, over its size."""
        traffic = self.fronts[upstream].traffic()
        return sum(traffic.body_bytes(name=blob.digest, client=client) for blob in image.blobs) / image.size


def auth_parts(directory: Path, service: TokenService) -> tuple[str, str]:
    """Of docker-registry's configuration: with a password file, and with a token service."""
    (directory / "htpasswd").write_text(HTPASSWD)
    service.write_bundle(directory / "bundle.pem")
    return (
        f"auth: {{htpasswd: {{realm: a realm, path: {directory}/htpasswd}}}}\n",
        f"auth: {{token: {{realm: '{service.realm}', service: {SERVICE}, issuer: {ISSUER}, "
        f"rootcertbundle: {directory}/bundle.pem}}}}\n",
    )


@contextlib.contextmanager
def private_lab(warehouse: Warehouse, machines: int) -> Iterator[Private]:
    """Two private upstreams over one storage, a tracker, and machines that know nothing of any secret."""
    directory = warehouse.lab_directory()
    with contextlib.ExitStack() as stack:
        service = TokenService()
        stack.callback(service.close)
        fronts = {}
        for name, auth in zip((BASIC, TOKEN), auth_parts(directory, service), strict=True):
            registry = Registry(directory / name[:5], warehouse.storage, auth=auth)
            stack.enter_context(registry)
            fronts[name] = stack.enter_context(Front(directory / f"{name[:5]}-front", registry.address))
        tracker = Tracker(directory, "tracker")
        stack.callback(tracker.stop)
        tracker.start()
        made = [_machine(stack, directory / f"node{number}", fronts, tracker) for number in range(machines)]
        yield Private(fronts, service, made)


def _machine(stack: contextlib.ExitStack, directory: Path, fronts: dict[str, Front], tracker: Tracker) -> Machine:
    upstreams = {name: front.url for name, front in fronts.items()}
    node = Node(directory, directory.name, upstreams=upstreams, trackers=[tracker.address])
    stack.callback(node.stop)
    node.start()
    hosts = directory / "hosts"
    for name, front in fronts.items():
        write_hosts(hosts, name, front.url, [node.mirror_url])
    containerd = stack.enter_context(Containerd(directory / "c", cri_hosts=hosts))
    cri = Cri(containerd.socket)
    wait_until(cri.is_ready, "the CRI plugin")
    return Machine(node, containerd, cri)
