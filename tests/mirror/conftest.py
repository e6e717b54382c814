"""A mirror on a free port, over a fake library."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from p2pd.mirror import MirrorSettings, serve_mirror
from tests.mirror.fake_library import FakeBlob, FakeLibrary
from tests.mirror.wire import Answer, Wire

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
BLOB_SIZE = 300_000


@dataclass
class Mirror:
    port: int
    library: FakeLibrary
    scope: trio.CancelScope
    blob: FakeBlob
    manifest: FakeBlob
    body: bytes
    manifest_body: bytes

    async def connect(self) -> Wire:
        return Wire(await trio.open_tcp_stream("127.0.0.1", self.port))

    async def ask(self, target: str, *, method: str = "GET", headers: str = "", host: str = "127.0.0.1:9580") -> Answer:
        """One request on a connection of its own."""
        wire = await self.connect()
        async with wire.stream:
            await wire.ask(target, method=method, headers=headers, host=host)
            return await wire.answer(to_head=method == "HEAD")


@dataclass
class Starter:
    nursery: trio.Nursery
    folder: Path

    async def __call__(self, **changes: float) -> Mirror:
        """A mirror whose settings are the defaults but for `changes`, with one blob, and a manifest tagged v1."""
        library = FakeLibrary(self.folder)
        body = Random(1).randbytes(BLOB_SIZE)
        blob = library.add(body)
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob.digest, "size": blob.size}
        document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": layer, "layers": [layer]}
        manifest_body = json.dumps(document).encode()
        manifest = library.add(manifest_body, media_type=MANIFEST_TYPE)
        library.tag("docker.io", "library/test", "v1", manifest)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        scope = trio.CancelScope()
        settings = replace(MirrorSettings(), **changes)

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await serve_mirror(listeners, library, settings, task_status=task_status)

        await self.nursery.start(partial(serve))
        port = listeners[0].socket.getsockname()[1]
        return Mirror(port, library, scope, blob, manifest, body, manifest_body)


@pytest.fixture
async def start_mirror(nursery: trio.Nursery, tmp_path: Path) -> Starter:
    return Starter(nursery, tmp_path)


@pytest.fixture
async def mirror(start_mirror: Starter) -> AsyncIterator[Mirror]:
    yield await start_mirror()
