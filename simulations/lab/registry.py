"""A real docker-registry (distribution 2.8) on a random port, with its storage in a directory of the caller's.

Several may serve the same storage: what was pushed to one outside a network namespace is there in one inside. Knows
nothing of p2pd.
"""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from simulations.lab.netns import socket_in
from simulations.lab.process import Process, free_port

_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}, maxthreads: 100}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Registry:
    """A context manager; `address` is host:port, on loopback of `namespace` if one is given.

    `auth`: the part of its configuration of that name, as YAML; without it, everybody may all.
    """

    def __init__(
        self,
        directory: Path,
        storage: Path,
        *,
        namespace: str | None = None,
        prefix: Sequence[str] = (),
        auth: str = "",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        storage.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.storage = storage
        self._namespace = namespace
        config = directory / "registry.yml"
        config.write_text(_CONFIG.format(storage=storage, port=self.port) + auth)
        self.process = Process(
            "registry", ["docker-registry", "serve", config], directory / "registry.log", prefix=prefix
        )

    def __enter__(self) -> Registry:
        self.process.start()
        try:
            self.process.wait_ready(self._answers)
        except BaseException:
            self.process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def _answers(self) -> bool:
        try:
            with socket_in(self._namespace, ("127.0.0.1", self.port)) as connection:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n")
                answer = http.client.HTTPResponse(connection)
                answer.begin()
                answer.close()
                return answer.status in (200, 401)
        except OSError:
            return False
