"""What a tag is now.

1. Upstream's own word: a HEAD (which registries do not count as a pull), one flight, remembered for a moment.
2. Only where the operator says so (`tags = "fleet"`), or while upstream is down or asks everybody to wait: another
   member's signed statement of what upstream told it, while it is young. Logged as what it is.

Upstream is asked as it would be by anybody (`as_node`: with this node's credentials): a statement of a member then
says, too, that the repository is public. A digest is looked at in the same way: whether a public repository has it.

A tag is a decision of trust: whoever says which digest it has decides what runs. So a statement is of the member that
asked upstream itself, is signed by its key, and is heard from that member alone, never from a third.

May know p2pd.upstream and the swarm's messages.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import trio

from p2pd.oci import DIGEST, MANIFEST_SIZE_MAX, Descriptor
from p2pd.swarm.messages import GetTag, Message, TagIs
from p2pd.swarm.voucher import Sign, Verify, node_id, tag_bytes
from p2pd.upstream import BadAnswer, RateLimited, Unreachable, UpstreamError, Upstreams
from p2pd.upstream.flights import Flights

log = logging.getLogger(__name__)

LIFETIME_S = 5.0  # a rollout's pods start within seconds of one another; an operator who retags waits no longer
STATEMENT_LIFETIME_S = 3600.0  # how old another member's word may be: an outage's length, not a tag's
DIGEST_STATEMENT_LIFETIME_S = 86400.0  # ... of a digest: it never changes, but its repository may be made private
CLOCKS_APART_S = 60.0  # a statement from the future beyond this is nobody's honest clock
ANSWER_WAIT_S = 2.0  # for the neighbours' statements
GATHER_S = 0.1  # after the first of them: the others answer in the same moment, and the youngest word wins
TAGS_MAX = 4096

Key = tuple[str, str, str]  # upstream, repository, tag


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a tag points to; `by_upstream`: upstream said so itself, to this node."""

    descriptor: Descriptor
    by_upstream: bool


@dataclass
class _Asked:
    """Statements that come in for one question."""

    best: TagIs | None = None
    came: trio.Event = field(default_factory=trio.Event)


class Tags:
    """`ask`: sends a message to every neighbour; `answer`: to one of them, by its number; `key_of`: its public key."""

    def __init__(
        self,
        upstreams: Upstreams,
        mode: Literal["node", "fleet"] = "node",
        *,
        as_node: bool = False,
        key: bytes = b"",
        sign: Sign | None = None,
        verify: Verify | None = None,
        ask: Callable[[Message], None] = lambda message: None,
        answer: Callable[[int, Message], None] = lambda peer, message: None,
        key_of: Callable[[int], bytes | None] = lambda peer: None,
        clock: Callable[[], float] = trio.current_time,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._upstreams = upstreams
        self._mode = mode
        self._as_node = as_node
        self._key, self._sign, self._verify = key, sign, verify
        self._ask, self._answer, self._key_of = ask, answer, key_of
        self._clock, self._wall_clock = clock, wall_clock
        self._flights: Flights[Key, Resolved] = Flights()
        self._known: OrderedDict[Key, tuple[float, Resolved]] = OrderedDict()
        self._statements: OrderedDict[Key, TagIs] = OrderedDict()  # this node's own
        self._asked: dict[Key, _Asked] = {}

    def renamed(self, key: bytes, sign: Sign) -> None:
        """This node signs with another key from now on. What the old one signed, a peer would not take from it."""
        self._key, self._sign = key, sign
        self._statements.clear()

    async def resolve(self, upstream: str, repository: str, tag: str) -> Resolved:
        """What the tag points to, or what a manifest's digest is; UpstreamError if neither upstream nor, where it is
        allowed, a member can say."""
        key = (upstream, repository, tag)
        known = self._known.get(key)
        if known and known[0] > self._clock():
            return known[1]
        resolved = await self._flights.run(key, lambda: self._look(key))
        _put(self._known, key, (self._clock() + LIFETIME_S, resolved))
        return resolved

    async def _look(self, key: Key) -> Resolved:
        upstream, repository, tag = key
        members_first = self._mode == "fleet" and not DIGEST.fullmatch(tag)
        if members_first:
            statement = await self._from_members(key)
            if statement:
                return self._believe(key, statement, "tags = fleet")
        registry = self._upstreams.get(upstream)
        identity = None if self._as_node else registry.anonymous
        try:
            if DIGEST.fullmatch(tag):
                descriptor = await registry.head("manifest", repository, tag, identity)
            else:
                descriptor = await registry.resolve(repository, tag, identity)
        except (Unreachable, RateLimited, BadAnswer) as error:
            statement = None if members_first else await self._from_members(key)
            if statement is None:
                raise
            return self._believe(key, statement, str(error))
        except UpstreamError:
            self._statements.pop(key, None)
            raise
        self._state(key, descriptor)
        if not DIGEST.fullmatch(tag):
            self._state((upstream, repository, descriptor.digest), descriptor)
        return Resolved(descriptor, True)

    def heard(self, peer: int, message: Message) -> None:
        """A neighbour asks for this node's word, or gives its own."""
        if isinstance(message, GetTag):
            statement = self._statements.get((message.upstream, message.repository, message.tag))
            if statement and self._is_young(statement):
                self._answer(peer, statement)
        elif isinstance(message, TagIs):
            asked = self._asked.get((message.upstream, message.repository, message.tag))
            if asked and message.key == self._key_of(peer) and self._is_good(message):
                if asked.best is None or message.time > asked.best.time:
                    asked.best = message
                asked.came.set()

    async def _from_members(self, key: Key) -> TagIs | None:
        """The youngest good statement of the neighbours."""
        if self._verify is None:
            return None
        asked = self._asked[key] = _Asked()
        try:
            self._ask(GetTag(*key))
            with trio.move_on_after(ANSWER_WAIT_S):
                await asked.came.wait()
                await trio.sleep(GATHER_S)
        finally:
            del self._asked[key]
        return asked.best

    def _believe(self, key: Key, statement: TagIs, why: str) -> Resolved:
        age = max(0, int(self._wall_clock() - statement.time))
        who = node_id(statement.key).hex()[:16]
        log.warning("%s/%s:%s: on the word of node %s, %d s old (%s)", *key, who, age, why)
        return Resolved(Descriptor("sha256:" + statement.digest.hex(), statement.size, statement.media_type), False)

    def _state(self, key: Key, d: Descriptor) -> None:
        """Sign what upstream just said."""
        if self._sign is None or not all(len(part) <= 256 for part in (*key, d.media_type)):
            return
        now = int(self._wall_clock())
        statement = TagIs(self._key, *key, bytes.fromhex(d.digest[7:]), d.size, d.media_type, now, bytes(64))
        _put(self._statements, key, replace(statement, signature=self._sign(tag_bytes(statement))))

    def _is_young(self, s: TagIs) -> bool:
        lifetime = DIGEST_STATEMENT_LIFETIME_S if DIGEST.fullmatch(s.tag) else STATEMENT_LIFETIME_S
        return -CLOCKS_APART_S <= self._wall_clock() - s.time <= lifetime

    def _is_good(self, s: TagIs) -> bool:
        assert self._verify
        is_manifest = 0 < s.size <= MANIFEST_SIZE_MAX
        if DIGEST.fullmatch(s.tag) and bytes.fromhex(s.tag[7:]) != s.digest:
            return False
        return is_manifest and self._is_young(s) and self._verify(s.key, s.signature, tag_bytes(s))


def _put(entries: OrderedDict, key: Key, value: object) -> None:
    entries[key] = value
    entries.move_to_end(key)
    while len(entries) > TAGS_MAX:
        entries.popitem(last=False)
