"""The grammar and the few facts of OCI content that every part of p2pd shares: names, tags, digests, media types.

Not an HTTP client or server, and not a store. Imports nothing of p2pd.

Sources: OCI distribution-spec v1.1.1 ("Pulling manifests", the name and tag expressions), OCI image-spec v1.1
(descriptors, digests), and the Docker names that containerd's reference package normalises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["manifest", "blob"]

NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HOST = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?")

MEDIA_TYPE = re.compile(r"[a-zA-Z0-9][\w!#$&^.+-]{0,126}/[a-zA-Z0-9][\w!#$&^.+-]{0,126}", re.ASCII)  # RFC 6838, 4.2

NAME_LENGTH_MAX = 255  # distribution-spec: "many clients impose a limit of 255 characters on the length"
MANIFEST_SIZE_MAX = 4 * 1024 * 1024  # distribution-spec asks registries for at least 4 MiB; containerd reads no more
DESCRIPTORS_MAX = 4096  # of one manifest or index; real ones have at most a few hundred

DOCKER_HUB = "docker.io"
DOCKER_HUB_ALIASES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})

INDEX_TYPES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
MANIFEST_TYPES = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
MANIFEST_ACCEPT = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES)) + ", */*"
BLOB_TYPE = "application/octet-stream"


class BadName(ValueError):
    """A repository, tag, digest or host that the grammar does not allow; the message names it."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest, an index or a registry's HEAD says of a blob: `size` in bytes, a bare `media_type`."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Reference:
    """One image name, e.g. docker.io/library/debian:12. `tag` or `digest` is set; a digest wins when both are."""

    upstream: str
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.upstream}/{self.repository}{end}"


def check_repository(text: str) -> str:
    """`text` itself, if it is a repository name; BadName otherwise."""
    if len(text) > NAME_LENGTH_MAX or not NAME.fullmatch(text):
        raise BadName(f"{text[:80]!r} is not a repository name")
    return text


def check_tag(text: str) -> str:
    """`text` itself, if it is a tag; BadName otherwise."""
    if not TAG.fullmatch(text):
        raise BadName(f"{text[:80]!r} is not a tag")
    return text


def check_digest(text: str) -> str:
    """`text` itself, if it is a sha256 digest; BadName otherwise (sha512 is not served: see docs/limits.md)."""
    if not DIGEST.fullmatch(text):
        raise BadName(f"{text[:80]!r} is not a sha256 digest")
    return text


def normal_host(text: str) -> str:
    """The name under which an upstream is known: lower case, Docker Hub's aliases folded into docker.io."""
    if not HOST.fullmatch(text):
        raise BadName(f"{text[:80]!r} is not a registry host")
    host = text.lower()
    return DOCKER_HUB if host in DOCKER_HUB_ALIASES else host


def normal_repository(upstream: str, repository: str) -> str:
    """Docker Hub's one-part names live under library/."""
    return f"library/{repository}" if upstream == DOCKER_HUB and "/" not in repository else repository


def parse_reference(text: str, default_upstream: str = DOCKER_HUB) -> Reference:
    """An image name as a person types it. BadName if it is not one.

    The first part is a host if it has a dot or a colon or is "localhost" (the rule of Docker's reference package).
    """
    rest, digest = text, None
    if "@" in rest:
        rest, digest = rest.split("@", 1)
        check_digest(digest)
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        upstream, rest = normal_host(first), remainder
    else:
        upstream = default_upstream
    tag: str | None = None
    if ":" in rest:
        rest, tag = rest.rsplit(":", 1)
        check_tag(tag)
    if tag is None and digest is None:
        tag = "latest"
    return Reference(upstream, normal_repository(upstream, check_repository(rest)), tag, digest)


def media_type_of(body: bytes) -> str | None:
    """The media type that a manifest's own bytes state or show; None if they are not a manifest.

    Registries must send the type that the body names (image-spec, `mediaType`); bodies without it are told apart by
    their fields.
    """
    document = _document(body)
    if document is None:
        return None
    stated = document.get("mediaType")
    if isinstance(stated, str) and MEDIA_TYPE.fullmatch(stated):
        return stated
    if isinstance(document.get("manifests"), list):
        return "application/vnd.oci.image.index.v1+json"
    if isinstance(document.get("layers"), list) and isinstance(document.get("config"), dict):
        return "application/vnd.oci.image.manifest.v1+json"
    return None


def descriptors_of(body: bytes) -> Iterator[tuple[Kind, Descriptor]]:
    """What a proven manifest or index refers to, in order: an index's manifests, a manifest's config and layers.

    Entries that are not well-formed are passed over: a size is believed only from a well-formed descriptor.
    """
    for kind, entry in _entries(body):
        digest, size, media_type = entry.get("digest"), entry.get("size"), entry.get("mediaType")
        if isinstance(digest, str) and DIGEST.fullmatch(digest) and type(size) is int and 0 <= size < 1 << 50:
            if not isinstance(media_type, str) or not MEDIA_TYPE.fullmatch(media_type):
                media_type = BLOB_TYPE
            yield kind, Descriptor(digest, size, media_type)


def held_with(body: bytes) -> list[str]:
    """The digests that a repository holds if it holds this manifest or index: a registry takes none without them.

    Not the layers that are had elsewhere (with `urls`, or of a type that is not to be distributed): of those a manifest
    may list what its author never had.
    """
    own = []
    for _, entry in _entries(body):
        digest, media_type = entry.get("digest"), str(entry.get("mediaType", ""))
        is_elsewhere = bool(entry.get("urls")) or "foreign" in media_type or "nondistributable" in media_type
        if isinstance(digest, str) and DIGEST.fullmatch(digest) and not is_elsewhere:
            own.append(digest)
    return own


def _entries(body: bytes) -> Iterator[tuple[Kind, dict]]:
    """The descriptors of a manifest or index as they stand there."""
    document = _document(body)
    if document is None:
        return
    entries: list[tuple[Kind, object]] = [("manifest", entry) for entry in _list(document.get("manifests"))]
    if isinstance(document.get("config"), dict):
        entries.append(("blob", document["config"]))
    entries += [("blob", entry) for entry in _list(document.get("layers"))]
    for kind, entry in entries[:DESCRIPTORS_MAX]:
        if isinstance(entry, dict):
            yield kind, entry


def platform_manifests(body: bytes, os: str, architecture: str) -> list[Descriptor]:
    """The manifests of an index that are for one platform; all of a plain list without platforms."""
    document = _document(body) or {}
    wanted = []
    for entry in _list(document.get("manifests"))[:DESCRIPTORS_MAX]:
        if not isinstance(entry, dict):
            continue
        platform = entry.get("platform")
        if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) != (os, architecture):
            continue
        wanted += [d for _, d in descriptors_of(json.dumps({"manifests": [entry]}).encode())]
    return wanted


def _document(body: bytes) -> dict | None:
    if len(body) > MANIFEST_SIZE_MAX:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _list(value: object) -> list:
    return value if isinstance(value, list) else []
