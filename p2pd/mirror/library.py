"""What the mirror asks of the rest of the node: the contents, as protocols, and the ways in which they can be missing.

Not an implementation: the daemon hands one in. Knows the OCI grammar only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from p2pd.oci import Descriptor, Kind


class NotAvailable(Exception):
    """Nobody whom this node can reach is getting it. Always a 404, so that the client goes on to its next host.

    `code` is an error code of the distribution-spec, e.g. BLOB_UNKNOWN; `message` is for a person, holds no secret.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Refused(NotAvailable):
    """It could be had, but this client may not have it here (a private repository). A 404 as well."""


class Challenged(NotAvailable):
    """This client may have it if it shows who it is. A 401, on which clients without a secret go to their next host.

    `scheme` is "basic" or "bearer"; `parameters` are the challenge's (RFC 9110, 11.6.1).
    """

    def __init__(self, message: str, scheme: str, parameters: Mapping[str, str]) -> None:
        super().__init__("UNAUTHORIZED", message)
        self.scheme = scheme
        self.parameters = parameters


@dataclass(frozen=True, slots=True)
class Presented:
    """A client's Authorization header, as it came: a secret."""

    header: str = field(repr=False)


class Interrupted(Exception):
    """The bytes stopped coming in mid-body. The body ends by FIN, and the client goes on elsewhere at that byte."""


class Reader(Protocol):
    """One client reading one blob or manifest, in order, from any offset."""

    @property
    def size(self) -> int:
        """Bytes of the whole blob."""
        ...

    @property
    def media_type(self) -> str | None:
        """For a manifest, what its own bytes say."""
        ...

    async def wait(self, offset: int) -> int:
        """Wait until bytes at `offset` may be sent; the end (exclusive, > offset) of what may be sent from there on.

        Raises NotAvailable before the first byte, Interrupted afterwards. Cancel-safe. Never called with
        offset >= size. Only these calls say what the client wants: bytes behind what they returned need not be
        fetched for it.
        """
        ...

    def fileno(self) -> int:
        """A descriptor for sendfile: offsets in the file are offsets in the blob. Valid until the context ends."""
        ...

    def sent(self, count: int) -> None:
        """`count` more bytes were handed to the client."""
        ...


class PassedThrough(Protocol):
    """Upstream's answer to a request that the mirror only relays. `headers` in lower case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Library(Protocol):
    """All that the node can serve. `upstream` and `repository` are in normal form (oci.normal_host, normal_repository);
    `presented` is what the client shows to be let at what is private.

    Errors other than NotAvailable and Interrupted are the node's own bugs: the mirror lets them through.
    """

    def is_allowed(self, upstream: str) -> bool:
        """Whether the operator allows this upstream at all."""
        ...

    async def resolve(
        self, upstream: str, repository: str, tag: str, *, presented: Presented | None = None
    ) -> Descriptor:
        """What a tag names now. As `head`, a promise that `open` keeps. NotAvailable."""
        ...

    async def head(
        self, kind: Kind, upstream: str, repository: str, digest: str, *, presented: Presented | None = None
    ) -> Descriptor:
        """What `open` would give. Never promises what `open` can't keep. NotAvailable."""
        ...

    def open(
        self,
        kind: Kind,
        upstream: str,
        repository: str,
        digest: str,
        *,
        patient: bool,
        presented: Presented | None = None,
    ) -> AbstractAsyncContextManager[Reader]:
        """Entering raises NotAvailable. `patient`: this client has no other host to go to.

        What is raised inside passes through the context as it is, not in an exception group.
        """
        ...

    async def passthrough(
        self, upstream: str, path_and_query: str, *, presented: Presented | None = None
    ) -> PassedThrough:
        """Upstream's answer to GET /v2/<path_and_query>, e.g. "library/debian/tags/list?n=5". NotAvailable."""
        ...
