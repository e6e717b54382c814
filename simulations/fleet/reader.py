"""The client of each node: pulls the image through the node's mirror, as containerd would, and notes when.

HEAD of the tag, then the manifest, then config and layers side by side. It keeps what it gets and compares it after the
clock has stopped, so that hashing does not weigh on what is measured. Knows of p2pd its mirror's port only.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from simulations.lab.netns import socket_in

ACCEPTED = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
ABREAST = 3  # blobs at a time: containerd's default
STEP = 1024 * 1024  # bytes: a receive call
TIMEOUT_S = 120.0  # without a byte
START_TIMEOUT_S = 60.0  # until all clients stand ready


class ReadError(Exception):
    """A client did not get its image. The message names the node and the request."""


@dataclass(slots=True)
class Reading:
    """How one client fared. Seconds on the monotonic clock; `first` of the first layer byte, `ended` of the last."""

    node: str
    started: float = 0.0
    manifest: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    bodies: dict[str, bytearray] = field(default_factory=dict, repr=False)

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    def identical(self) -> bool:
        """Whether each body is what its digest says. Frees the bodies."""
        held = all(f"sha256:{hashlib.sha256(body).hexdigest()}" == digest for digest, body in self.bodies.items())
        self.bodies.clear()
        return held


class Client:
    """One client, in its node's namespace."""

    def __init__(self, node: str, namespace: str, port: int, registry: str, repository: str) -> None:
        self._namespace, self._port = namespace, port
        self._registry, self._repository = registry, repository
        self.reading = Reading(node)

    def pull(self, tag: str, ready: threading.Barrier) -> Reading:
        """Waits for the others, then pulls. ReadError."""
        ready.wait(START_TIMEOUT_S)
        reading = self.reading
        reading.started = time.monotonic()
        digest = self._head(tag)
        manifest = json.loads(self._get("manifests", digest, ACCEPTED))
        reading.manifest = time.monotonic()
        digests = [entry["digest"] for entry in (manifest["config"], *manifest["layers"])]
        with ThreadPoolExecutor(ABREAST) as pool:
            list(pool.map(lambda digest: self._get("blobs", digest, "*/*"), digests))
        reading.ended = time.monotonic()
        return reading

    def _request(self, method: str, kind: str, name: str, accept: str) -> tuple[http.client.HTTPResponse, str]:
        path = f"/v2/{self._repository}/{kind}/{name}"
        connection = socket_in(self._namespace, ("127.0.0.1", self._port))
        connection.settimeout(TIMEOUT_S)
        lines = [
            f"{method} {path}?ns={self._registry} HTTP/1.1",
            f"Host: 127.0.0.1:{self._port}",
            f"Accept: {accept}",
            "User-Agent: containerd/2.0.0",
            "Connection: close",
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = http.client.HTTPResponse(connection, method=method)
        connection.close()  # the answer holds the descriptor
        answer.begin()
        if answer.status != 200:
            raise ReadError(f"{self.reading.node}: {method} {path} was answered {answer.status}")
        return answer, path

    def _head(self, tag: str) -> str:
        answer, path = self._request("HEAD", "manifests", tag, ACCEPTED)
        digest = answer.getheader("Docker-Content-Digest")
        answer.close()
        if not digest:
            raise ReadError(f"{self.reading.node}: HEAD {path} named no digest")
        return digest

    def _get(self, kind: str, digest: str, accept: str) -> bytearray:
        answer, path = self._request("GET", kind, digest, accept)
        length = int(answer.getheader("Content-Length") or 0)
        body = bytearray(length)
        got = 0
        with memoryview(body) as view:
            while got < length:
                count = answer.readinto(view[got : got + STEP])
                if not count:
                    raise ReadError(f"{self.reading.node}: GET {path} ended after {got} of {length} bytes")
                if kind == "blobs" and not self.reading.first:
                    self.reading.first = time.monotonic()
                got += count
        answer.close()
        self.reading.bodies[digest] = body
        return body


def pull_all(clients: Sequence[Client], tag: str) -> list[Reading]:
    """All clients pull at once; their readings in the clients' order. ReadError of the first that failed."""
    ready = threading.Barrier(len(clients))
    with ThreadPoolExecutor(len(clients)) as pool:
        waiting = [pool.submit(client.pull, tag, ready) for client in clients]
        return [one.result() for one in waiting]
