"""Pulling a whole image into this node, for a command: its manifests, its config, its layers.

May know `library` and `arrivals`.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import trio

from p2pd.admin import CommandFailed
from p2pd.content.access import OPERATOR
from p2pd.content.arrival import Arrival
from p2pd.content.arrivals import Arrivals
from p2pd.content.library import Library
from p2pd.mirror import NotAvailable
from p2pd.oci import INDEX_TYPES, Descriptor, Reference, descriptors_of, platform_manifests
from p2pd.store import Store

REPORT_S = 0.25
STALL_S = 300.0  # without a byte of a blob: the command ends with an error
INDEXES_MAX = 8  # from the reference to the image; real ones have one
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass
class _Blob:
    descriptor: Descriptor
    arrival: Arrival | None = None
    error: str = ""
    done: bool = False


@dataclass
class ImagePull:
    """One image on its way; `report` is what the control socket sends."""

    reference: Reference
    digest: str = ""
    blobs: list[_Blob] = field(default_factory=list)
    began: float = 0.0

    def report(self, event: str) -> dict[str, Any]:
        arrivals = [b.arrival for b in self.blobs if b.arrival]
        from_peers = sum(a.from_peers for a in arrivals)
        from_upstream = sum(a.from_upstream for a in arrivals)
        done = sum(b.descriptor.size if b.done else self._there(b) for b in self.blobs)
        return {
            "event": event,
            "digest": self.digest,
            "total": sum(b.descriptor.size for b in self.blobs) or None,
            "done_bytes": done,
            "from_peers": from_peers,
            "from_upstream": from_upstream,
            "seconds": trio.current_time() - self.began,
            "blobs": [
                {"digest": b.descriptor.digest, "size": b.descriptor.size, "done_bytes": self._there(b)}
                for b in self.blobs
            ],
        }

    @staticmethod
    def _there(blob: _Blob) -> int:
        if blob.done:
            return blob.descriptor.size
        arrival = blob.arrival
        return min(blob.descriptor.size, arrival.present.bit_count() * arrival.piece_size) if arrival else 0


class Images:
    """`pull` is an async generator of reports; CommandFailed says what could not be had."""

    def __init__(self, library: Library, arrivals: Arrivals, store: Store) -> None:
        self._library = library
        self._arrivals = arrivals
        self._store = store

    async def pull(self, reference: Reference) -> AsyncGenerator[dict[str, Any], None]:
        if not self._library.is_allowed(reference.upstream):
            raise CommandFailed(
                f'{reference.upstream} is not among the upstreams: add [upstreams."{reference.upstream}"]'
            )
        pull = ImagePull(reference, began=trio.current_time())
        try:
            await self._manifests(pull)
        except NotAvailable as error:
            names_it = str(error).startswith(f"{reference}:")  # as errors about a tag do
            raise CommandFailed(str(error) if names_it else f"{reference}: {error}") from None
        yield pull.report("progress")
        with ExitStack() as wishes:
            for blob in pull.blobs:
                await self._begin(pull, blob, wishes)
            while not all(b.done or b.error for b in pull.blobs):
                yield pull.report("progress")
                await trio.sleep(REPORT_S)
                for blob in pull.blobs:
                    self._look(blob)
        failed = [b for b in pull.blobs if b.error]
        if failed:
            raise CommandFailed(f"{reference}: {failed[0].error}")
        yield pull.report("finished")

    async def _manifests(self, pull: ImagePull) -> None:
        """The image's manifest for this machine, through the index if there is one; and what it refers to."""
        r = pull.reference
        digest = r.digest
        if digest is None:
            tagged = await self._library.resolve(r.upstream, r.repository, r.tag or "latest", presented=OPERATOR)
            digest = tagged.digest
        pull.digest = digest
        machine = ARCHITECTURES.get(platform.machine(), platform.machine())
        for _ in range(INDEXES_MAX):
            body, media_type = await self._library.manifest(r.upstream, r.repository, digest)
            if media_type not in INDEX_TYPES:
                break
            found = platform_manifests(body, "linux", machine)
            if not found:
                raise CommandFailed(f"{r} has no image for linux/{machine}")
            digest = found[0].digest
        else:
            raise CommandFailed(f"{r}: more than {INDEXES_MAX} indexes, one within the other")
        blobs = {d.digest: d for kind, d in descriptors_of(body) if kind == "blob"}
        pull.blobs = [_Blob(descriptor) for descriptor in blobs.values()]

    async def _begin(self, pull: ImagePull, blob: _Blob, wishes: ExitStack) -> None:
        r = pull.reference
        try:
            if self._store.proven(blob.descriptor.digest) is None:
                blob.arrival = await self._library.arrive("blob", r.upstream, r.repository, blob.descriptor.digest)
            if blob.arrival:
                wishes.enter_context(self._arrivals.client(blob.arrival))
            else:
                blob.done = True
        except NotAvailable as error:
            blob.error = str(error)

    def _look(self, blob: _Blob) -> None:
        arrival, digest = blob.arrival, blob.descriptor.digest
        if arrival is None or blob.done:
            return
        if arrival.failure:
            blob.error = f"{digest}: {arrival.failure}"
        elif arrival.proven:
            blob.done = self._arrivals.get(digest) is not arrival  # then it has its place in the store
        elif trio.current_time() - max(arrival.progress_at, arrival.started_at or 0.0) > STALL_S:
            blob.error = f"{digest}: no byte came for {STALL_S:g} s"
