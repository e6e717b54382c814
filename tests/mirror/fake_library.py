"""A Library over real files, whose availability the test controls byte by byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pd.mirror import Challenged, NotAvailable, Presented
from p2pd.oci import Descriptor, Kind

UPSTREAMS = frozenset({"docker.io", "registry.example:5000", "ghcr.io"})


@dataclass
class FakeBlob:
    """One file. Bytes below `ready` may be sent; `failure` is raised to whoever waits for others."""

    path: Path
    digest: str
    size: int
    media_type: str | None
    ready: int
    failure: Exception | None = None
    changed: trio.Event = field(default_factory=trio.Event)
    waits: list[int] = field(default_factory=list)
    sent: int = 0
    open_readers: int = 0

    def make_ready(self, ready: int) -> None:
        self.ready = ready
        self._wake()

    def fail(self, failure: Exception) -> None:
        self.failure = failure
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class FakeReader:
    def __init__(self, blob: FakeBlob, fd: int) -> None:
        self._blob, self._fd = blob, fd
        self.size, self.media_type = blob.size, blob.media_type

    async def wait(self, offset: int) -> int:
        self._blob.waits.append(offset)
        await trio.lowlevel.checkpoint()
        while self._blob.ready <= offset:
            if self._blob.failure is not None:
                raise self._blob.failure
            await self._blob.changed.wait()
        return self._blob.ready

    def fileno(self) -> int:
        return self._fd

    def sent(self, count: int) -> None:
        self._blob.sent += count


@dataclass(frozen=True)
class FakeAnswer:
    status: int
    headers: dict[str, str]
    body: bytes


class FakeLibrary:
    """Blobs by digest, in any repository; tags by (upstream, repository, tag). `calls` says what the mirror asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.blobs: dict[str, FakeBlob] = {}
        self.tags: dict[tuple[str, str, str], Descriptor] = {}
        self.relayed: dict[str, FakeAnswer] = {}
        self.calls: list[tuple[str, ...]] = []
        self.patient: list[bool] = []
        self.bug: Exception | None = None
        self.hangs = False
        self.presented: list[Presented | None] = []
        self.challenge: Challenged | None = None  # raised unless `password` is presented
        self.password = ""

    def add(self, body: bytes, *, media_type: str | None = None, ready: int | None = None) -> FakeBlob:
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        path = self._folder / digest.removeprefix("sha256:")
        path.write_bytes(body)
        return self.add_file(path, digest, media_type=media_type, ready=ready)

    def add_file(self, path: Path, digest: str, *, media_type: str | None = None, ready: int | None = None) -> FakeBlob:
        size = path.stat().st_size
        self.blobs[digest] = FakeBlob(path, digest, size, media_type, size if ready is None else ready)
        return self.blobs[digest]

    def tag(self, upstream: str, repository: str, tag: str, blob: FakeBlob) -> None:
        self.tags[upstream, repository, tag] = Descriptor(blob.digest, blob.size, blob.media_type or "")

    def is_allowed(self, upstream: str) -> bool:
        return upstream in UPSTREAMS

    async def resolve(
        self, upstream: str, repository: str, tag: str, *, presented: Presented | None = None
    ) -> Descriptor:
        self._ask_for(presented)
        await self._called("resolve", upstream, repository, tag)
        try:
            return self.tags[upstream, repository, tag]
        except KeyError:
            raise NotAvailable("MANIFEST_UNKNOWN", f"{repository}:{tag} is not known") from None

    async def head(
        self, kind: Kind, upstream: str, repository: str, digest: str, *, presented: Presented | None = None
    ) -> Descriptor:
        self._ask_for(presented)
        await self._called("head", kind, upstream, repository, digest)
        blob = self._find(kind, digest)
        return Descriptor(blob.digest, blob.size, blob.media_type or "")

    @asynccontextmanager
    async def open(
        self,
        kind: Kind,
        upstream: str,
        repository: str,
        digest: str,
        *,
        patient: bool,
        presented: Presented | None = None,
    ) -> AsyncIterator[FakeReader]:
        self._ask_for(presented)
        self.patient.append(patient)
        await self._called("open", kind, upstream, repository, digest)
        blob = self._find(kind, digest)
        fd = os.open(blob.path, os.O_RDONLY)
        blob.open_readers += 1
        try:
            yield FakeReader(blob, fd)
        finally:
            blob.open_readers -= 1
            os.close(fd)

    async def passthrough(
        self, upstream: str, path_and_query: str, *, presented: Presented | None = None
    ) -> FakeAnswer:
        self._ask_for(presented)
        await self._called("passthrough", upstream, path_and_query)
        try:
            return self.relayed[path_and_query]
        except KeyError:
            raise NotAvailable("NAME_UNKNOWN", "upstream can't be reached") from None

    def _ask_for(self, presented: Presented | None) -> None:
        self.presented.append(presented)
        if self.challenge is not None and (presented is None or presented.header != self.password):
            raise self.challenge

    async def _called(self, *call: str) -> None:
        self.calls.append(call)
        await trio.lowlevel.checkpoint()
        if self.bug is not None:
            raise self.bug
        if self.hangs:
            await trio.sleep_forever()

    def _find(self, kind: Kind, digest: str) -> FakeBlob:
        blob = self.blobs.get(digest)
        if blob is None or (kind == "manifest" and blob.media_type is None):
            raise NotAvailable("BLOB_UNKNOWN" if kind == "blob" else "MANIFEST_UNKNOWN", f"{digest} is not here")
        return blob
