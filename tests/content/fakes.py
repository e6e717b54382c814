"""What stands in for the world around `p2pd.content`: registries with a script, threads that are none, blobs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import trio

from p2pd.hashing import Compression
from p2pd.oci import Descriptor
from p2pd.store import StoreFull
from p2pd.swarm.chain import INITIAL_STATE
from p2pd.swarm.commands import Command
from p2pd.swarm.events import Event
from p2pd.swarm.pieces import Geometry
from p2pd.upstream import BadAnswer, Denied, NotFound, Response, UnknownUpstream, Unreachable, UpstreamError
from p2pd.upstream.challenges import Challenge
from p2pd.upstream.credentials import Password
from p2pd.upstream.stream import Opened

HOST = "registry.example"
REPOSITORY = "team/app"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
PIECE = 128 * 1024  # bytes, of all blobs in these tests
RECEIVE_MAX = 64 * 1024  # bytes that a scripted registry gives at a time


class Threads:
    """In place of `trio.to_thread`: runs at once, `before_s` of (virtual) time later; the result waits for `after_s`.

    Autojump clocks do not see threads; and a race between a thread and a task is staged by these two waits.
    """

    def __init__(self) -> None:
        self.before_s = self.after_s = 0.0
        self.running = self.most = 0

    async def run_sync(
        self,
        function: Callable[..., Any],
        *args: object,
        limiter: trio.CapacityLimiter | None = None,
        abandon_on_cancel: bool = False,
    ) -> Any:
        async with limiter or contextlib.nullcontext():
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                with trio.CancelScope(shield=not abandon_on_cancel):
                    await trio.sleep(self.before_s)
                    result = function(*args)
                    await trio.sleep(self.after_s)
            finally:
                self.running -= 1
        return result


@dataclass(frozen=True)
class Blob:
    body: bytes

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.body).hexdigest()

    @property
    def size(self) -> int:
        return len(self.body)

    @property
    def geometry(self) -> Geometry:
        return Geometry.of(self.size)

    def piece(self, index: int) -> bytes:
        start = self.geometry.offset(index)
        return self.body[start : start + self.geometry.length(index)]

    def states(self) -> list[bytes]:
        """Before the first piece, after each one."""
        compression, states = Compression(), [INITIAL_STATE]
        for index in range(self.geometry.count):
            compression.update(self.piece(index))
            states.append(compression.state() if index < self.geometry.count - 1 else compression.digest())
        return states

    def spoiled(self) -> bytes:
        """Other bytes of the same length: the first one differs."""
        return bytes([self.body[0] ^ 1]) + self.body[1:]


def blob(size: int, seed: int = 1) -> Blob:
    return Blob(random.Random(seed).randbytes(size))


def descriptor(of: Blob, media_type: str = "application/octet-stream") -> Descriptor:
    return Descriptor(of.digest, of.size, media_type)


def manifest_of(*blobs: Blob, **changes: object) -> Blob:
    """The manifest of an image: the first blob is its config."""
    entries = [{"mediaType": "application/octet-stream", "digest": b.digest, "size": b.size} for b in blobs]
    document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": entries[0], "layers": entries[1:]}
    return Blob(json.dumps(document | changes).encode())


@dataclass
class Body:
    """What one request gets: `error`, or `data` from where it asked, `rate` bytes a second (of virtual time)."""

    data: bytes = b""
    size: int | None = None  # that its headers claim
    breaks_at: float = math.inf  # offset in the blob, at which the connection is lost
    ends_at: float = math.inf  # ... at which the body ends, as if it were whole
    silent_at: float = math.inf  # ... from which on nothing comes any more
    rate: float = math.inf
    error: UpstreamError | None = None


@dataclass(frozen=True)
class Asked:
    kind: str
    repository: str
    digest: str
    start: int
    stop: int | None


@dataclass(frozen=True)
class Client:
    """Somebody that a registry may let in: by the password, or token, that is his name."""

    name: str


@dataclass
class Registry:
    """One upstream, that does what its script says."""

    name: str = HOST
    bodies: dict[str, list[Body]] = field(default_factory=dict)  # digest -> for each request; the last one stays
    sizes: dict[str, int] = field(default_factory=dict)  # what HEAD says
    tags: dict[str, Descriptor] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    relayed: list[str] = field(default_factory=list)
    down: UpstreamError | None = None  # raised by all that is not `open`
    answers_after_s: float = 0.0
    has_credentials: bool = False
    has_certificate: bool = False
    private: set[str] = field(default_factory=set)  # repositories: of these, only for `lets_in`, and for this node if
    # it has credentials
    lets_in: dict[str, set[str]] = field(default_factory=dict)  # a client's password -> repositories
    has: dict[str, set[str]] = field(default_factory=dict)  # repository -> digests; one that is not named has all
    asks_for: Challenge | None = field(default=Challenge("basic", {"realm": HOST}))
    anonymous: Client = field(default=Client("nobody"))
    opened_as: list[Client | None] = field(default_factory=list)
    held_until: float = 0.0
    open_now: int = 0

    def serve(self, *blobs: Blob, **how: Any) -> None:
        """It has these blobs."""
        for one in blobs:
            self.bodies[one.digest] = [Body(one.body, **how)]
            self.sizes[one.digest] = one.size

    async def _wait(self) -> None:
        await trio.sleep(self.answers_after_s)
        if self.down:
            raise self.down

    def client(self, shown: Password | str) -> Client:
        return Client(shown if isinstance(shown, str) else shown.password)

    async def challenge(self, repository: str) -> Challenge | None:
        await self._wait()
        return self.asks_for

    def _check(self, repository: str, identity: Client | None, digest: str = "") -> None:
        let_in = self.has_credentials if identity is None else repository in self.lets_in.get(identity.name, ())
        if repository in self.private and not let_in:
            raise Denied("not for you")
        if digest and repository in self.has and digest not in self.has[repository]:
            raise NotFound(f"no {digest} in {repository}")

    async def resolve(self, repository: str, tag: str, identity: Client | None = None) -> Descriptor:
        self.resolved.append(f"{repository}:{tag}")
        await self._wait()
        self._check(repository, identity)
        if tag not in self.tags:
            raise NotFound(f"no {tag}")
        return self.tags[tag]

    async def head(self, kind: str, repository: str, digest: str, identity: Client | None = None) -> Descriptor:
        self.heads.append(digest)
        await self._wait()
        self._check(repository, identity, digest)
        if digest not in self.sizes:
            raise NotFound(f"no {digest}")
        return Descriptor(digest, self.sizes[digest], "application/octet-stream")

    async def passthrough(self, path_and_query: str, identity: Client | None = None) -> Response:
        self.relayed.append(path_and_query)
        await self._wait()
        self._check(path_and_query.rsplit("/", 2)[0], identity)
        return Response(200, {}, b"{}")

    def hold(self, seconds: float) -> None:
        self.held_until = trio.current_time() + seconds

    @asynccontextmanager
    async def open(
        self,
        kind: str,
        repository: str,
        digest: str,
        start: int = 0,
        stop: int | None = None,
        client: Client | None = None,
    ) -> AsyncIterator[Stream]:
        self.opened_as.append(client)
        self.asked.append(Asked(kind, repository, digest, start, stop))
        await trio.sleep(self.answers_after_s)
        self._check(repository, None if self.has_credentials else client, digest)
        bodies = self.bodies.get(digest)
        if not bodies:
            raise NotFound(f"no {digest}")
        body = bodies.pop(0) if len(bodies) > 1 else bodies[0]
        if body.error:
            raise body.error
        size = len(body.data) if body.size is None else body.size
        if start and start >= size:
            raise BadAnswer("416")
        self.open_now += 1
        try:
            yield Stream(body, Opened(size, start, None), size if stop is None else min(stop, size))
        finally:
            self.open_now -= 1


class Stream:
    def __init__(self, body: Body, opened: Opened, end: int) -> None:
        self.opened = opened
        self._body, self._position, self._end = body, opened.start, end

    async def receive_into(self, buffer: memoryview) -> int:
        body, at = self._body, self._position
        if at >= body.silent_at:
            await trio.sleep_forever()
        if at >= body.breaks_at:
            raise Unreachable("the connection was lost")
        if at >= body.ends_at:
            return 0
        borders = (b for b in (body.breaks_at, body.ends_at, body.silent_at, self._end) if b > at)
        data = body.data[at : int(min(at + len(buffer), at + RECEIVE_MAX, *borders))]
        await trio.sleep(len(data) / body.rate)
        self._position += len(data)
        buffer[: len(data)] = data
        return len(data)


class Upstreams:
    """`p2pd.upstream.Upstreams`, of scripted registries."""

    def __init__(self, *registries: Registry) -> None:
        self.registries = {one.name: one for one in registries}

    def is_known(self, host: str) -> bool:
        return host in self.registries

    def get(self, host: str) -> Registry:
        if host not in self.registries:
            raise UnknownUpstream(f"{host} is not configured")
        return self.registries[host]


class RecordingEngine:
    """In place of the engine, for tests that play the core themselves."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.node = SimpleNamespace(
            state=SimpleNamespace(stored={}), blob=lambda digest: None, give_up=lambda digest: [], deadline=math.inf
        )

    def post(self, event: Event) -> None:
        self.events.append(event)

    def execute(self, commands: list[Command]) -> None:
        assert not commands

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@contextlib.contextmanager
def disk_full(monkeypatch: Any, *calls: str, error: type[Exception] = StoreFull) -> Iterator[None]:
    """Inside, these functions of `p2pd.store.files` find the disk full (or broken: `error`)."""
    with monkeypatch.context() as patch:
        for call in calls:

            def fail(*_: object, **__: object) -> None:
                raise error("the disk says no")

            patch.setattr(f"p2pd.store.files.{call}", fail)
        yield


async def until(condition: Callable[[], object], within_s: float = 60.0) -> None:
    """Return once it holds; AssertionError if that takes more (virtual) time."""
    for _ in range(int(within_s / 0.01)):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError(f"it did not come about within {within_s:g} s")
