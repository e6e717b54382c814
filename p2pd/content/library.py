"""What the mirror serves from: blobs that are here, blobs that are made to arrive, and upstream's word for names.

May know the store, the upstreams, `arrivals` and the mirror's protocols.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.arrivals import Arrival, Arrivals
from p2pd.content.catalogue import Catalogue
from p2pd.content.readers import ArrivingReader, Patience, StoredReader
from p2pd.content.tags import Tags
from p2pd.engine import Engine
from p2pd.mirror import NotAvailable, Reader, Refused
from p2pd.oci import BLOB_TYPE, MANIFEST_SIZE_MAX, Descriptor, Kind, media_type_of
from p2pd.store import OpenBlob, Store, StoreError
from p2pd.upstream import Denied, NotFound, Registry, Response, UnknownUpstream, UpstreamError, Upstreams

log = logging.getLogger(__name__)

EMPTY_BLOB = "sha256:" + hashlib.sha256(b"").hexdigest()  # nothing to fetch, and no piece to ask for
PATIENT_WAIT_S = 300.0  # for clients without another host


class Library:
    """`share_private`: repositories that refuse anonymous access are served too."""

    def __init__(
        self,
        store: Store,
        upstreams: Upstreams,
        tags: Tags,
        arrivals: Arrivals,
        catalogue: Catalogue,
        engine: Engine,
        metrics: Metrics,
        patience: Patience,
        random: Random,
        *,
        share_private: bool,
        credentialed: frozenset[str],
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self._arrivals = arrivals
        self._catalogue = catalogue
        self._engine = engine
        self._metrics = metrics
        self._patience = patience
        self._random = random
        self._share_private = share_private
        self._credentialed = credentialed
        self._tags = tags

    # -- the mirror's protocol --------------------------------------------------------------------------------------

    def is_allowed(self, upstream: str) -> bool:
        return self._upstreams.is_known(upstream)

    async def resolve(self, upstream: str, repository: str, tag: str) -> Descriptor:
        registry = await self._entitled(upstream, repository)
        try:
            descriptor = await self._tags.resolve(upstream, repository, tag)
        except UpstreamError as error:
            raise NotAvailable("MANIFEST_UNKNOWN", f"{registry.name}/{repository}:{tag}: {error}") from None
        self._catalogue.learn_size(descriptor.digest, descriptor.size)
        return descriptor

    async def head(self, kind: Kind, upstream: str, repository: str, digest: str) -> Descriptor:
        if kind == "manifest":
            # Small: have it, and then say so.
            async with self.open(kind, upstream, repository, digest, patient=False) as reader:
                return Descriptor(digest, reader.size, reader.media_type or BLOB_TYPE)
        registry = await self._entitled(upstream, repository)
        size = self._store.proven(digest)
        if size is None:
            try:
                size = (await registry.head("blob", repository, digest)).size
            except UpstreamError as error:
                raise NotAvailable("BLOB_UNKNOWN", str(error)) from None
            self._catalogue.learn_size(digest, size)
        return Descriptor(digest, size, BLOB_TYPE)

    @asynccontextmanager
    async def open(
        self, kind: Kind, upstream: str, repository: str, digest: str, *, patient: bool
    ) -> AsyncIterator[Reader]:
        await self._entitled(upstream, repository)
        stored = self._stored(digest)
        if stored is None:
            arrival = await self.arrive(kind, upstream, repository, digest)
            if arrival is not None:
                with self._arrivals.client(arrival):
                    if kind == "blob":
                        self._prefetch(arrival)
                        await self._size_of(arrival, patient)
                        yield self._arriving(arrival, patient)
                        return
                    await self._proven(arrival, patient)
            stored = await self._stored_soon(digest)
        with stored:
            media_type = None
            if kind == "manifest":
                media_type = self._learn(stored, upstream, repository, digest)
            yield StoredReader(stored, media_type, self._metrics)

    async def passthrough(self, upstream: str, path_and_query: str) -> Response:
        try:
            registry = self._upstreams.get(upstream)
            repository = path_and_query.split("/tags/list")[0].split("/referrers/")[0]
            await self._entitled(upstream, repository)
            return await registry.passthrough(path_and_query)
        except UpstreamError as error:
            raise NotAvailable("NAME_UNKNOWN", str(error)) from None

    async def manifest(self, upstream: str, repository: str, digest: str) -> tuple[bytes, str]:
        """A manifest's bytes and media type. NotAvailable."""
        async with self.open("manifest", upstream, repository, digest, patient=False) as reader:
            return os.pread(reader.fileno(), reader.size, 0), reader.media_type or ""

    # -- making it arrive -------------------------------------------------------------------------------------------

    async def arrive(self, kind: Kind, upstream: str, repository: str, digest: str) -> Arrival | None:
        """Make a blob arrive; None if it is here meanwhile. Its size may still be unknown. NotAvailable."""
        if digest == EMPTY_BLOB:
            await trio.to_thread.run_sync(self._store.put, digest, b"")
            return None
        size = self._catalogue.size(digest)
        known = self._arrivals.get(digest)
        if size < 0 and kind == "blob" and not (known and known.size_is_sure):
            try:
                size = (await self._upstreams.get(upstream).head("blob", repository, digest)).size
                self._catalogue.learn_size(digest, size)
            except (NotFound, Denied) as error:
                raise NotAvailable("BLOB_UNKNOWN", str(error)) from None
            except UpstreamError as error:
                log.info("%s: its size is not known here, peers may tell: %s", digest, error)
        if self._store.proven(digest) is not None:
            return None
        arrival = self._arrivals.want(kind, upstream, repository, digest, size)
        if arrival is None:
            raise NotAvailable("BLOB_UNKNOWN", "too many blobs are arriving at this node")
        return arrival

    def _prefetch(self, arrival: Arrival) -> None:
        """The client has asked for the first of a manifest's blobs: it will want the others."""
        content = self._catalogue.siblings(arrival.digest)
        if content is None or content.upstream != arrival.upstream:
            return
        for blob in content.blobs:
            if blob.digest != arrival.digest and self._store.proven(blob.digest) is None:
                other = self._arrivals.get(blob.digest)
                if other is None or not other.started_at:
                    self._arrivals.want("blob", content.upstream, content.repository, blob.digest, blob.size)
                else:
                    other.keep_until = max(other.keep_until, arrival.keep_until)

    def _arriving(self, arrival: Arrival, patient: bool) -> ArrivingReader:
        return ArrivingReader(
            arrival, self._arrivals, self._engine, self._metrics, self._patience, self._random, patient=patient
        )

    async def _size_of(self, arrival: Arrival, patient: bool) -> None:
        await self._until(arrival, lambda: arrival.size >= 0 and arrival.partial is not None, patient)

    async def _proven(self, arrival: Arrival, patient: bool) -> None:
        await self._until(arrival, lambda: arrival.proven, patient)
        if arrival.size > MANIFEST_SIZE_MAX:
            raise NotAvailable("MANIFEST_UNKNOWN", f"{arrival.digest} is larger than a manifest may be")

    async def _until(self, arrival: Arrival, done, patient: bool) -> None:
        """Wait for something about an arrival, at most `header_wait`; then a patient client's node goes upstream."""
        for wait in (self._patience.header_wait, PATIENT_WAIT_S if patient else 0.0):
            with trio.move_on_after(wait):
                while not done():
                    if arrival.failure:
                        await self._failed(arrival)
                    await arrival.changed.wait()
            if done():
                return
            if patient:
                self._arrivals.pull_alone(arrival)
        raise NotAvailable("MANIFEST_UNKNOWN", f"{arrival.digest} did not come in time")

    async def _failed(self, arrival: Arrival) -> None:
        if arrival.failure == "limited":
            await trio.sleep(self._patience.header_wait / 2 * self._random.random())
        code = "MANIFEST_UNKNOWN" if arrival.kind == "manifest" else "BLOB_UNKNOWN"
        raise NotAvailable(code, f"no node can get {arrival.digest}: {arrival.failure}")

    # -- what is here -----------------------------------------------------------------------------------------------

    def _stored(self, digest: str) -> OpenBlob | None:
        try:
            return self._store.open_blob(digest)
        except StoreError as error:
            raise NotAvailable("BLOB_UNKNOWN", f"this node's disk: {error}") from None

    async def _stored_soon(self, digest: str) -> OpenBlob:
        """A blob that was proven a moment ago: its file gets its name in a worker thread."""
        for _ in range(200):
            stored = self._stored(digest)
            if stored:
                return stored
            await trio.sleep(0.025)
        raise NotAvailable("BLOB_UNKNOWN", f"{digest} is whole, but could not be put into the store")

    def _learn(self, stored: OpenBlob, upstream: str, repository: str, digest: str) -> str | None:
        """A manifest's bytes tell its type, and the sizes of what it refers to."""
        if stored.size > MANIFEST_SIZE_MAX:
            raise NotAvailable("MANIFEST_UNKNOWN", f"{digest} is larger than a manifest may be")
        body = os.pread(stored.fileno(), stored.size, 0)
        media_type = media_type_of(body)
        if media_type is None:
            raise NotAvailable("MANIFEST_UNKNOWN", f"{digest} is not a manifest")
        self._catalogue.learn_manifest(upstream, repository, digest, body)
        return media_type

    # -- who may have it --------------------------------------------------------------------------------------------

    async def may_share(self, registry: Registry, repository: str) -> bool:
        """Whether what this node gets from a repository may be handed to others. UpstreamError if it can't be told.

        Only credentials make a node see what is private: without them upstream itself refuses.
        """
        if self._share_private or registry.name not in self._credentialed:
            return True
        return not await registry.is_private(repository)

    async def _entitled(self, upstream: str, repository: str) -> Registry:
        try:
            registry = self._upstreams.get(upstream)
        except UnknownUpstream as error:
            raise NotAvailable("NAME_UNKNOWN", str(error)) from None
        try:
            allowed = await self.may_share(registry, repository)
        except UpstreamError as error:
            raise Refused("DENIED", f"{upstream}/{repository}: whether it is private can't be told: {error}") from None
        if not allowed:
            raise Refused("DENIED", f"{upstream}/{repository} is private, and share_private is off")
        return registry
