"""What a request asks for: from its target and Host header to an upstream, a repository and a reference. Pure.

Three ways to name the upstream, as clients do:
    ?ns=HOST                    containerd, BuildKit
    /v2/HOST/REPOSITORY/...     containers/image: CRI-O, Podman, Buildah, skopeo
    neither                     Docker Engine, whose mirrors are for Docker Hub only
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode

from p2pd import oci

Form = Literal["ping", "manifest", "blob", "tags", "referrers"]

QUERY_FIELDS_MAX = 20  # of one request; clients send at most three
_RELAYED_FIELDS = frozenset({"n", "last", "artifactType"})  # the spec's, of tags/list and referrers
_ANY_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_KNOWN_LENGTHS = {"sha256": 64, "sha512": 128}  # hexadecimal digits that the image-spec fixes


class BadTarget(Exception):
    """A request that is not served. `code` is the distribution-spec's; `message` tells a person what to do."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Target:
    """One request's subject. `reference` is a tag or digest, empty for ping and tags.

    `ns` is the upstream as the client wrote it in the query, if it did; `patient` is true for the path form, whose
    clients have no fallback for single blobs. `query` holds the fields to relay, encoded.
    """

    form: Form
    upstream: str = ""
    repository: str = ""
    reference: str = ""
    ns: str | None = None
    patient: bool = False
    query: str = ""

    @property
    def is_tag(self) -> bool:
        return self.form == "manifest" and ":" not in self.reference

    @property
    def unknown_code(self) -> str:
        """The spec's code for "there is no such thing here"."""
        return {"blob": "BLOB_UNKNOWN", "tags": "NAME_UNKNOWN"}.get(self.form, "MANIFEST_UNKNOWN")


def parse_target(target: str, default_upstream: str, is_allowed: Callable[[str], bool]) -> Target:
    """The subject of an origin-form target ("/v2/...?..."). Raises BadTarget."""
    path, _, query = target.partition("?")
    try:
        path = unquote_to_bytes(path).decode("ascii")
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise BadTarget(400, "UNSUPPORTED", "the request's path or query can't be read") from None
    if path in ("/v2", "/v2/"):
        return Target("ping")
    if not path.startswith("/v2/"):
        raise BadTarget(404, "UNSUPPORTED", "this is a registry mirror: its paths begin with /v2/")
    name, form, reference = _split_path(path.removeprefix("/v2/"))
    ns = _namespace([value for key, value in fields if key == "ns"])
    upstream, name, patient = _upstream(name, ns, default_upstream, is_allowed)
    try:
        repository = oci.normal_repository(upstream, oci.check_repository(name))
    except oci.BadName as error:
        raise BadTarget(400, "NAME_INVALID", str(error)) from None
    _check_reference(form, reference)
    relayed = urlencode([(key, value) for key, value in fields if key in _RELAYED_FIELDS])
    return Target(form, upstream, repository, reference, ns, patient, relayed)


def split_authority(target: str) -> tuple[str | None, str]:
    """The authority of an absolute-form target (RFC 9112, 3.2.2), None in the usual origin form; and the path."""
    if not target.lower().startswith("http://"):
        return None, target
    authority, slash, path = target[len("http://") :].partition("/")
    return authority, slash + path


def is_loopback(authority: str) -> bool:
    """Whether a Host header names this machine's loopback, with any port.

    Any other name means a proxy that should not be there, or a web page whose name was made to resolve to 127.0.0.1
    (DNS rebinding).
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]{1,5})?", authority.strip())
    if match is None:
        return False
    host = (match[1] or match[2]).lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split_path(path: str) -> tuple[str, Form, str]:
    """Repository (perhaps with a host before it), form and reference, read from the right: names may hold any word."""
    parts = path.rsplit("/", 2)
    if len(parts) == 3 and all(parts):
        name, word, reference = parts
        if word == "manifests":
            return name, "manifest", reference
        if word == "blobs":
            return name, "blob", reference
        if word == "referrers":
            return name, "referrers", reference
        if (word, reference) == ("tags", "list"):
            return name, "tags", ""
    raise BadTarget(404, "UNSUPPORTED", "not a path that a mirror serves: manifests, blobs, tags/list or referrers")


def _namespace(values: list[str]) -> str | None:
    if len(set(values)) > 1:
        raise BadTarget(400, "NAME_INVALID", "the query names several upstreams (ns)")
    return values[0] if values else None


def _upstream(
    name: str, ns: str | None, default_upstream: str, is_allowed: Callable[[str], bool]
) -> tuple[str, str, bool]:
    """Upstream, repository, and whether it was named in the path. Raises BadTarget, also for those not allowed."""
    first, slash, rest = name.partition("/")
    # containers/image refuses a colon in a path, so its configuration names a port as host_port.
    ported = re.fullmatch(r"(localhost|.*\..*)_([0-9]{1,5})", first)
    first = f"{ported[1]}:{ported[2]}" if ported else first
    in_path = ns is None and bool(slash) and ("." in first or ":" in first or first == "localhost")
    stated = first if in_path else default_upstream if ns is None else ns
    try:
        upstream = oci.normal_host(stated)
    except oci.BadName as error:
        raise BadTarget(400, "NAME_INVALID", str(error)) from None
    if not is_allowed(upstream):
        raise BadTarget(
            404,
            "NAME_UNKNOWN",
            f'p2pd does not mirror this upstream; to allow it, add [upstreams."{upstream}"] to p2pd\'s configuration',
        )
    return upstream, rest if in_path else name, in_path


def _check_reference(form: Form, reference: str) -> None:
    if form == "tags" or (form == "manifest" and oci.TAG.fullmatch(reference)) or oci.DIGEST.fullmatch(reference):
        return
    unknown = "BLOB_UNKNOWN" if form == "blob" else "MANIFEST_UNKNOWN"
    algorithm, _, encoded = reference.partition(":")
    length = _KNOWN_LENGTHS.get(algorithm, len(encoded))
    if _ANY_DIGEST.fullmatch(reference) and algorithm != "sha256" and len(encoded) == length:
        raise BadTarget(404, unknown, f"p2pd serves sha256 digests only, not {algorithm[:20]}")
    if form == "manifest" and ":" not in reference:
        raise BadTarget(404, unknown, f"{reference[:80]!r} is not a tag")
    raise BadTarget(400, "DIGEST_INVALID", f"{reference[:80]!r} is not a digest")
