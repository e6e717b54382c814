"""What proven manifests have told: the size of each blob, and which blobs belong together.

A size is believed from here or from this node's own HEAD, never from a peer. Bounded, at some 20 MiB for manifests that
are as large as they may be; what is forgotten is asked again. May know p2pd.oci.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from p2pd.oci import Descriptor, Kind, descriptors_of

SIZES_MAX = 50_000  # digests, about 200 bytes each
MANIFESTS_MAX = 512
BLOBS_MAX = 128  # remembered of one manifest: overlayfs mounts no more layers, whatever a manifest claims


@dataclass(frozen=True, slots=True)
class Content:
    """One manifest's blobs, in its order."""

    digest: str
    upstream: str
    repository: str
    blobs: tuple[Descriptor, ...]


class Catalogue:
    """Sizes and manifests, least recently learned first out."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._manifests: OrderedDict[str, Content] = OrderedDict()
        self._of_blob: OrderedDict[str, str] = OrderedDict()

    def size(self, digest: str) -> int:
        """Bytes, or -1."""
        return self._sizes.get(digest, -1)

    def learn_size(self, digest: str, size: int) -> None:
        """From this node's own HEAD."""
        self._sizes[digest] = size
        self._sizes.move_to_end(digest)
        while len(self._sizes) > SIZES_MAX:
            self._sizes.popitem(last=False)

    def learn_manifest(self, upstream: str, repository: str, digest: str, body: bytes) -> list[tuple[Kind, Descriptor]]:
        """From a proven manifest or index; what it refers to."""
        entries = list(descriptors_of(body))
        for _, descriptor in entries:
            self.learn_size(descriptor.digest, descriptor.size)
        blobs = tuple(d for kind, d in entries if kind == "blob")[:BLOBS_MAX]
        if blobs:
            self._manifests[digest] = Content(digest, upstream, repository, blobs)
            self._manifests.move_to_end(digest)
            while len(self._manifests) > MANIFESTS_MAX:
                self._manifests.popitem(last=False)
            for blob in blobs:
                self._of_blob[blob.digest] = digest
                self._of_blob.move_to_end(blob.digest)
            while len(self._of_blob) > SIZES_MAX:
                self._of_blob.popitem(last=False)
        return entries

    def siblings(self, digest: str) -> Content | None:
        """The manifest that a blob was last seen in."""
        return self._manifests.get(self._of_blob.get(digest, ""))
