"""What the mirror serves from: blobs that are here, blobs that are made to arrive, and upstream's word for names.

May know the store, the upstreams, `arrivals` and the mirror's protocols.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Protocol

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.access import OPERATOR, Access, Admission, Caller, Operator
from p2pd.content.arrival import Arrival
from p2pd.content.arrivals import Arrivals, is_possible
from p2pd.content.catalogue import Catalogue
from p2pd.content.readers import PATIENT_WAIT_S, ArrivingReader, Patience, StoredReader
from p2pd.content.tags import Tags
from p2pd.engine import Engine
from p2pd.mirror import NotAvailable, Reader
from p2pd.oci import BLOB_TYPE, MANIFEST_SIZE_MAX, Descriptor, Kind, held_with, media_type_of
from p2pd.store import OpenBlob, Store, StoreError
from p2pd.upstream import Denied, NotFound, Response, UpstreamError, Upstreams

log = logging.getLogger(__name__)

EMPTY_BLOB = "sha256:" + hashlib.sha256(b"").hexdigest()  # nothing to fetch, and no piece to ask for


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Library:
    """Serves to each caller what `access` admits it to. A caller is a client, by what it shows, or the operator."""

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
        access: Access,
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self._arrivals = arrivals
        self._catalogue = catalogue
        self._engine = engine
        self._metrics = metrics
        self._patience = patience
        self._random = random
        self._access = access
        self._tags = tags

    # -- the mirror's protocol --------------------------------------------------------------------------------------

    def is_allowed(self, upstream: str) -> bool:
        return self._upstreams.is_known(upstream)

    async def resolve(self, upstream: str, repository: str, tag: str, *, presented: Caller = None) -> Descriptor:
        admission = await self._access.admit("tag", upstream, repository, tag, presented)
        descriptor = admission.descriptor
        try:
            if descriptor is None and isinstance(presented, Operator):
                # Of a private repository's tag no statement is made to the fleet.
                descriptor = await admission.registry.resolve(repository, tag)
            elif admission.client is None:
                resolved = await self._tags.resolve(upstream, repository, tag)
                descriptor = resolved.descriptor
                if not resolved.by_upstream:
                    # Another node's word, most likely because upstream can't be asked: whether it can be had at all is
                    # not known.
                    return await self.head("manifest", upstream, repository, descriptor.digest, presented=presented)
        except UpstreamError as error:
            raise NotAvailable("MANIFEST_UNKNOWN", f"{upstream}/{repository}:{tag}: {error}") from None
        assert descriptor
        self._catalogue.learn_size(descriptor.digest, descriptor.size)
        return descriptor

    async def head(
        self, kind: Kind, upstream: str, repository: str, digest: str, *, presented: Caller = None
    ) -> Descriptor:
        if kind == "manifest":
            # Small: have it, and then say so.
            async with self.open(kind, upstream, repository, digest, patient=False, presented=presented) as reader:
                return Descriptor(digest, reader.size, reader.media_type or BLOB_TYPE)
        admission = await self._access.admit(kind, upstream, repository, digest, presented)
        size = self._store.proven(digest)
        if size is None:
            try:
                size = await self._size(admission, repository, digest)
            except UpstreamError as error:
                raise NotAvailable("BLOB_UNKNOWN", str(error)) from None
            if not is_possible("blob", size) and digest != EMPTY_BLOB:
                raise NotAvailable("BLOB_UNKNOWN", f"{digest} has {size} bytes: no such blob can be served")
            self._catalogue.learn_size(digest, size)
        return Descriptor(digest, size, BLOB_TYPE)

    @asynccontextmanager
    async def open(
        self, kind: Kind, upstream: str, repository: str, digest: str, *, patient: bool, presented: Caller = None
    ) -> AsyncIterator[Reader]:
        admission = await self._access.admit(kind, upstream, repository, digest, presented)
        stored = await self._stored(digest)
        if stored is None:
            arrival = await self._arrive(admission, kind, upstream, repository, digest)
            if arrival is not None:
                with self._arrivals.client(arrival):
                    yield await self._arriving(admission, arrival, kind, upstream, repository, patient)
                return
            stored = await self._stored(digest)
        if stored is None:
            raise NotAvailable("BLOB_UNKNOWN", f"{digest} was removed from the store in this moment")
        with stored:
            media_type = None
            if kind == "manifest":
                media_type = await self._learn(admission, stored, stored.size, upstream, repository, digest)
            yield StoredReader(stored, media_type, self._metrics)

    async def passthrough(self, upstream: str, path_and_query: str, *, presented: Caller = None) -> Response:
        repository = _repository_of(path_and_query)
        try:
            return await self._access.passthrough(upstream, repository, path_and_query, presented)
        except UpstreamError as error:
            raise NotAvailable("NAME_UNKNOWN", str(error)) from None

    async def manifest(self, upstream: str, repository: str, digest: str) -> tuple[bytes, str]:
        """A manifest's bytes and media type, for the operator. NotAvailable."""
        async with self.open("manifest", upstream, repository, digest, patient=False, presented=OPERATOR) as reader:
            return await _read(reader, reader.size, digest), reader.media_type or ""

    # -- making it arrive -------------------------------------------------------------------------------------------

    async def arrive(self, kind: Kind, upstream: str, repository: str, digest: str) -> Arrival | None:
        """Make a blob arrive, for the operator; None if it is here meanwhile. Its size may still be unknown.
        NotAvailable."""
        admission = await self._access.admit(kind, upstream, repository, digest, OPERATOR)
        return await self._arrive(admission, kind, upstream, repository, digest)

    async def _arrive(
        self, admission: Admission, kind: Kind, upstream: str, repository: str, digest: str
    ) -> Arrival | None:
        if digest == EMPTY_BLOB:
            try:
                await trio.to_thread.run_sync(self._store.put, digest, b"")
            except StoreError as error:
                raise _no_disk(error) from None
            return None
        size = self._catalogue.size(digest)
        known = self._arrivals.get(digest)
        if size < 0 and kind == "blob" and not (known and known.size_is_sure):
            try:
                size = await self._size(admission, repository, digest)
                self._catalogue.learn_size(digest, size)
            except (NotFound, Denied) as error:
                raise NotAvailable("BLOB_UNKNOWN", str(error)) from None
            except UpstreamError as error:
                log.info("%s: its size is not known here, peers may tell: %s", digest, error)
        if self._store.proven(digest) is not None:
            return None
        arrival = self._arrivals.want(kind, upstream, repository, digest, size, identity=admission.identity)
        if arrival is None:
            raise NotAvailable("BLOB_UNKNOWN", "too many blobs are arriving at this node")
        return arrival

    async def _size(self, admission: Admission, repository: str, digest: str) -> int:
        """A blob's, as upstream says. UpstreamError."""
        if admission.descriptor is not None:
            return admission.descriptor.size
        return (await admission.registry.head("blob", repository, digest, admission.identity)).size

    def _prefetch(self, arrival: Arrival) -> None:
        """The client has asked for the first of a manifest's blobs: it will want the others."""
        content = self._catalogue.siblings(arrival.digest)
        if content is None or (content.upstream, content.repository) != (arrival.upstream, arrival.repository):
            return  # who may have the one need not be let at the other
        for blob in content.blobs:
            if blob.digest not in (arrival.digest, EMPTY_BLOB) and self._store.proven(blob.digest) is None:
                other = self._arrivals.get(blob.digest)
                if other is None or other.started_at is None:
                    self._arrivals.want(
                        "blob",
                        content.upstream,
                        content.repository,
                        blob.digest,
                        blob.size,
                        identity=arrival.identity,
                    )
                else:
                    other.keep_until = max(other.keep_until, arrival.keep_until)

    async def _arriving(
        self, admission: Admission, arrival: Arrival, kind: Kind, upstream: str, repository: str, patient: bool
    ) -> ArrivingReader:
        """A reader of it, as soon as its size can be believed. A manifest is shown to nobody before it is proven."""
        media_type = None
        if kind == "manifest":
            await self._until(arrival, lambda: arrival.proven, patient)
            assert arrival.partial
            media_type = await self._learn(
                admission, arrival.partial, arrival.size, upstream, repository, arrival.digest
            )
        else:
            self._prefetch(arrival)
            await self._until(arrival, lambda: arrival.proven or arrival.size_is_sure, patient)
        return ArrivingReader(
            arrival,
            self._arrivals,
            self._engine,
            self._metrics,
            self._patience,
            self._random,
            patient=patient,
            media_type=media_type,
        )

    async def _until(self, arrival: Arrival, done: Callable[[], bool], patient: bool) -> None:
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
        raise NotAvailable(_unknown(arrival.kind), f"{arrival.digest} did not come in time")

    async def _failed(self, arrival: Arrival) -> None:
        if arrival.failure == "limited":
            await trio.sleep(self._patience.header_wait / 2 * self._random.random())
        raise NotAvailable(_unknown(arrival.kind), f"no node can get {arrival.digest}: {arrival.failure}")

    # -- what is here -----------------------------------------------------------------------------------------------

    async def _stored(self, digest: str) -> OpenBlob | None:
        if self._store.proven(digest) is None:
            return None
        try:
            return await trio.to_thread.run_sync(self._store.open_blob, digest)
        except StoreError as error:
            raise _no_disk(error) from None

    async def _learn(
        self, admission: Admission, file: HasFileno, size: int, upstream: str, repository: str, digest: str
    ) -> str:
        """A manifest's bytes tell its type, and the sizes of what it refers to."""
        if size > MANIFEST_SIZE_MAX:
            raise NotAvailable("MANIFEST_UNKNOWN", f"{digest} is larger than a manifest may be")
        body = await _read(file, size, digest)
        media_type = media_type_of(body)
        if media_type is None:
            raise NotAvailable("MANIFEST_UNKNOWN", f"{digest} is not a manifest")
        self._catalogue.learn_manifest(upstream, repository, digest, body)
        self._access.learn(admission, held_with(body))
        return media_type


async def _read(file: HasFileno, size: int, digest: str) -> bytes:
    """A manifest's bytes."""
    try:
        return await trio.to_thread.run_sync(lambda: os.pread(file.fileno(), size, 0))
    except (StoreError, OSError) as error:
        log.error("%s can't be read: %s", digest, error)
        raise _no_disk(error) from None


def _no_disk(error: Exception) -> NotAvailable:
    return NotAvailable("BLOB_UNKNOWN", f"this node's disk: {error}")


def _unknown(kind: Kind) -> str:
    return "MANIFEST_UNKNOWN" if kind == "manifest" else "BLOB_UNKNOWN"


def _repository_of(path_and_query: str) -> str:
    """The name in ".../tags/list?n=5" and ".../referrers/<digest>". A name may hold these words, too."""
    path = path_and_query.partition("?")[0]
    return path.rsplit("/", 2)[0]
