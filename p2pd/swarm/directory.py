"""The directory: who has or wants a blob, and who holds its lease. The same code serves in the tracker and in a node.

Soft state: it is made of what connected nodes announce, and gone with their connections. Messages in, messages out; no
I/O and no clock. It hands out neighbours and leases, counts nothing about anybody's behaviour and bans nobody.

Invariant: a blob has at most one lease here, and its holder is a member of the blob. A directory that is new to a blob
(its start, a takeover, a member that heard of a lease unknown here) grants nothing for `NEW_S`; a lease that a holder
names is adopted, the higher term first, then the lower node id.

Bounds: a member of a blob costs about 0.4 KiB; MEMBERS_MAX of a blob, BLOBS_PER_NODE of a node, BLOBS_MAX in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random

from p2pd.swarm.messages import Announce, Answer, Contact, Holdings, Message, Release, Withdraw

NEW_S = 2.0  # one announce interval of a holder: time enough to hear of a lease that is in force
GATHER_S = 0.1  # a node that holds a lease already gets another only if nobody else asks in this time
PROGRESS_S = 10.0  # a holder without progress for this long, and for
PROGRESS_LINKS = 4  # ... this many times its last link's time, loses the lease
STUCK_LOOK_S = 1.0  # how often the members that get nothing are counted
STUCK_S = 3.0  # more than half of the others have got nothing for long, and say so for so long: progress or not
STARVED_S = 2.0  # one of them has said so for so long, and others have all of it: then it may go upstream
SLOW_LOSSES = 2  # holders in a row lost by no progress: upstream is slow, so the allowance doubles
WORTH_WAITING_S = 8.0  # a registry's pause below this ends before the clients' patience: nobody is sent away for it
LIMITED_MAX = 3  # ... but not for ever: so many times the registry may ask for another pause
FAILURE_S = 30.0  # a node that could not pull a reference is not asked again for so long
YOUNG_S = 1.0  # others may still come for the blob, and fare better: before that nobody hears that all have failed
WRONG_BYTES_MIN = 2  # holders whose upstream bytes missed the digest, before the blob counts as failed; and more
WRONG_BYTES_SHARE = 3  # ... than one in so many of the wanters, who might all say so against better knowledge,
WRONG_BYTES_MAX = 5  # ... but a registry that really sends wrong bytes is not asked more often than this
HANDED_OUT = 24  # neighbours in one answer at the most
MEMBERS_MAX = 20_000
BLOBS_PER_NODE = 2_048
BLOBS_MAX = 200_000
MESSAGES_BURST = 2 * BLOBS_PER_NODE  # of one node at once: all its blobs, after a changed view, and once more
MESSAGES_PER_S = 256  # of one node after that: 512 blobs, each told every two seconds
HOLDINGS_PER_MESSAGE = 16  # digests in a list of holdings that cost as much as one announce
FLOOD_MAX = 4_096  # messages beyond that in a row: no bug sends so many, and reading them costs the others' time
SLOW_S = 600.0  # a node that found its line far slower than the others' gets leases last for so long
HOLDS_MAX = 1_000  # registries that asked to wait, at a time: far more than a fleet uses
TERM_MAX = 1 << 32  # of a lease that is adopted; grants only count on from it, so the wire's bound is never reached

# Why a node hands back its lease or can't pull.
_UNHURT = ("done", "unwanted", "slow", "busy")  # such a node can pull again at once
REASONS = (*_UNHURT, "denied", "missing", "unreachable", "limited", "wrong-bytes", "bad-answer")
_BEFORE_THE_FIRST_BYTE = frozenset({"denied", "missing", "limited", "busy"})
_FAULTS_OF_THE_NODE = frozenset({"denied", "missing", "unreachable", "limited", "wrong-bytes", "bad-answer"})
_MAY_FARE_BETTER = frozenset({"unreachable", "bad-answer"})  # another node, a moment later

NEVER_BEFORE = float("-inf")
Outgoing = list[tuple[bytes, Message]]
_handed_out = attrgetter("handed_out")


@dataclass(slots=True, eq=False)
class Member:
    """What one node announced of one blob."""

    node: bytes
    contact: Contact
    wanting: bool = False
    waiting: bool = False
    stuck: bool = False
    stuck_since: float = NEVER_BEFORE
    can_pull: bool = False
    complete: bool = False
    primary: bool = False
    failed_until: float = -1.0
    failure: str = ""
    told_until: float = -1.0  # the `failed_until` of which it was told that everybody has failed
    zone: str = ""
    handed_out: int = 0  # times that others were told of it


class Roster:
    """Members in a list to choose from at random. Adding and removing cost the same whatever its length."""

    def __init__(self) -> None:
        self._order: list[Member] = []
        self._place: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._order)

    def add(self, member: Member) -> None:
        self._place[member.node] = len(self._order)
        self._order.append(member)

    def remove(self, member: Member) -> None:
        place, last = self._place.pop(member.node), self._order.pop()
        if last is not member:
            self._order[place] = last
            self._place[last.node] = place

    def sample(self, most: int, random: Random) -> list[Member]:
        """So many of them, or all, none twice."""
        order, count = self._order, len(self._order)
        if count < 3 * most:
            return random.sample(order, min(count, most))
        places: dict[int, None] = {}
        draw = random.random
        while len(places) < most:  # a third of what `Random.sample` takes, and a tracker does little else
            places[int(draw() * count)] = None
        return [order[place] for place in places]


@dataclass(slots=True)
class Lease:
    """Who pulls the blob, and how it goes on."""

    holder: bytes
    term: int
    progress: int
    progress_at: float
    link_s: float  # time between the last two signs of progress
    fresh: bool = False  # nobody had pulled anything before
    stuck_since: float = -1.0  # most of the others have said since then that they get nothing


@dataclass(slots=True)
class Budget:
    """How many messages a node may still send, and how many it sent beyond that."""

    left: float
    at: float
    over: int = 0

    def spend(self, cost: float, now: float) -> bool:
        self.left = min(MESSAGES_BURST, self.left + (now - self.at) * MESSAGES_PER_S)
        self.at = now
        if self.left < cost:
            self.over += 1
            return False
        self.left -= cost
        self.over = 0
        return True


@dataclass(slots=True)
class Blob:
    digest: bytes
    born: float  # when somebody first announced it
    members: dict[bytes, Member] = field(default_factory=dict)
    roster: Roster = field(default_factory=Roster)  # of the members, for choosing at random
    zones: dict[str, Roster] = field(default_factory=dict)  # ... and of those of each zone
    lease: Lease | None = None
    term: int = 0  # the highest ever seen
    heard: int = 0  # the highest that members heard of, maybe from another directory; their word alone
    size: int = -1
    upstream: str = ""
    quiet_until: float = -1.0  # grants nothing before: this directory is new to the blob
    gather_until: float = -1.0
    begun: bool = False  # a holder may have pulled something
    taken: bool = False  # somebody looks to this directory for its lease
    losses: int = 0  # holders in a row lost by no progress
    limited: int = 0  # times that the registry asked to wait
    stuck_at: float = NEVER_BEFORE  # when somebody last said that it gets nothing
    look_at: float = NEVER_BEFORE  # when they are counted again
    wrong: dict[bytes, None] = field(default_factory=dict)  # holders in a row whose bytes missed the digest


class Directory:
    """All blobs that the connected nodes announce. Every method returns the messages to send: (node id, message)."""

    def __init__(self, random: Random, now: float) -> None:
        self._random = random
        self._nodes: dict[bytes, Contact] = {}
        self._budgets: dict[bytes, Budget] = {}
        self._blobs_of: dict[bytes, dict[bytes, None]] = {}  # in order, so that a run can be repeated
        self._leases_of: dict[bytes, int] = {}
        self._slow: dict[bytes, float] = {}  # node -> until when its line counts as slow
        self._blobs: dict[bytes, Blob] = {}
        self._watched: dict[bytes, None] = {}  # blobs that want a look at the next tick: a lease, or nobody to hold it
        self._holds: dict[str, float] = {}  # upstream -> until when its registry asked everybody to wait
        self._started = now

    # -- what the owner tells it ------------------------------------------------------------------------------------

    def connected(self, contact: Contact) -> None:
        """A node can be reached now; it must come before the node's first message."""
        node = contact.node_id
        self._nodes[node] = contact
        self._budgets.setdefault(node, Budget(MESSAGES_BURST, self._started))
        for digest in self._blobs_of.setdefault(node, {}):
            self._blobs[digest].members[node].contact = contact

    def disconnected(self, node: bytes, now: float) -> Outgoing:
        """A node is gone, and with it all that it announced."""
        out: Outgoing = []
        self._nodes.pop(node, None)
        self._budgets.pop(node, None)
        self._slow.pop(node, None)
        for digest in self._blobs_of.pop(node, ()):
            out += self._remove(self._blobs[digest], node, now)
        return out

    def handle(self, node: bytes, message: Message, now: float) -> Outgoing:
        """One message of a connected node. Messages that are not for a directory are passed over."""
        if node not in self._nodes:
            return []
        cost = 1 + len(message.digests) / HOLDINGS_PER_MESSAGE if isinstance(message, Holdings) else 1
        if not self._budgets[node].spend(cost, now):
            return []  # as if it had been lost on the way: it is announced again
        match message:
            case Announce():
                return self._announce(node, message, now)
            case Release():
                return self._release(node, message, now)
            case Withdraw():
                blob = self._blobs.get(message.digest)
                return self._remove(blob, node, now) if blob and node in blob.members else []
            case Holdings():
                for digest in message.digests:
                    blob = self._join(digest, node, now)
                    if blob:
                        member = blob.members[node]
                        member.complete, member.wanting = True, False
        return []

    def is_flooded_by(self, node: bytes) -> bool:
        """Whether that node goes on sending far beyond its bound: its owner is to end the connection."""
        budget = self._budgets.get(node)
        return budget is not None and budget.over > FLOOD_MAX

    @property
    def watching(self) -> bool:
        """Whether `tick` has anything to look after."""
        return bool(self._watched)

    def tick(self, now: float) -> Outgoing:
        """To be called a few times a second while `watching`: leases without progress, grants that were put off."""
        out: Outgoing = []
        for digest in list(self._watched):
            blob = self._blobs.get(digest)
            if blob is None:
                del self._watched[digest]
                continue
            if blob.lease and (now > self._lost_at(blob, blob.lease) or self._is_sat_on(blob, blob.lease, now)):
                out += self._lose(blob, now)
            if blob.lease is None:
                out += self._grant(blob, now)
            if blob.lease is None and not any(m.wanting for m in blob.members.values()):
                self._watched.pop(digest, None)
        return out

    def lease(self, digest: bytes) -> tuple[bytes, int] | None:
        """(holder, term) of a blob's lease here."""
        blob = self._blobs.get(digest)
        return (blob.lease.holder, blob.lease.term) if blob and blob.lease else None

    def summary(self) -> dict[str, int]:
        """Counts for metrics and checks."""
        return {
            "nodes": len(self._nodes),
            "blobs": len(self._blobs),
            "members": sum(len(b.members) for b in self._blobs.values()),
            "leases": sum(self._leases_of.values()),
        }

    # -- messages ---------------------------------------------------------------------------------------------------

    def _announce(self, node: bytes, a: Announce, now: float) -> Outgoing:
        known = a.digest in self._blobs
        blob = self._join(a.digest, node, now)
        if blob is None:
            return []
        member = blob.members[node]
        if a.stuck and not member.stuck:
            member.stuck_since = now
        if a.wanting and not member.wanting:
            member.failed_until = min(member.failed_until, now + 1.0)  # a new wish: soon worth another try
        member.wanting, member.waiting, member.complete = a.wanting, a.waiting, a.complete
        member.can_pull, member.primary, member.stuck = a.can_pull, a.primary, a.stuck
        if a.stuck:
            blob.stuck_at = now
        if a.size >= 0 and blob.size < 0:
            blob.size = a.size
        blob.upstream = a.upstream or blob.upstream
        out: Outgoing = []
        if a.primary and not blob.taken:
            blob.taken = True
            if known:  # so far a stand-by for it: another directory's lease may still be named
                blob.quiet_until = now + NEW_S
        if a.heard > max(blob.term, blob.heard):
            if not blob.heard:  # once: nobody can put off the grant for ever
                blob.quiet_until = max(blob.quiet_until, now + NEW_S)
            blob.heard = min(a.heard, TERM_MAX)
        holds = blob.lease is not None and blob.lease.holder == node
        if blob.lease and holds and not a.term and a.heard > blob.lease.term:
            self._set_lease(blob, None)  # it has made way for a lease that another directory named
        if a.term and (holds or (a.term <= TERM_MAX and member.failed_until <= now)):
            out += self._adopt(blob, node, a, now)
        if blob.lease is None and a.wanting:
            out += self._grant(blob, now)
        if blob.lease or a.wanting:
            self._watched[blob.digest] = None
        if not any(to == node for to, _ in out):
            out.append((node, self._answer(blob, node, a.need, now)))
        return out

    def _adopt(self, blob: Blob, node: bytes, a: Announce, now: float) -> Outgoing:
        """A node says that it holds the lease: renew it, adopt it, or tell it that another one wins."""
        lease = blob.lease
        if lease and lease.holder == node:
            lease.term = max(lease.term, min(a.term, TERM_MAX))
            if a.progress > lease.progress:
                lease.link_s = (now - lease.progress_at) / (a.progress - lease.progress)
                lease.progress, lease.progress_at = a.progress, now
                blob.losses = 0
        elif lease is None or (a.term, lease.holder) > (lease.term, node):
            if lease is None and a.term < blob.term:
                return []  # it lost that lease meanwhile, and nobody was there to hear of it: let it ask anew
            previous = lease.holder if lease else b""
            blob.begun = True
            self._set_lease(blob, Lease(node, a.term, a.progress, now, 0.0))
            if previous:
                return [(previous, self._answer(blob, previous, 0, now))]
        blob.term = max(blob.term, min(a.term, TERM_MAX))
        return []

    def _release(self, node: bytes, r: Release, now: float) -> Outgoing:
        blob = self._blobs.get(r.digest)
        member = blob.members.get(node) if blob else None
        if blob is None or member is None or r.reason not in REASONS:
            return []
        if r.reason in _FAULTS_OF_THE_NODE:
            member.failure, member.failed_until = r.reason, now + FAILURE_S
        if r.reason == "limited":
            member.failed_until = now + r.retry_s
            if self._holds.get(blob.upstream, 0.0) <= now:  # else it is the same pause, met by who came too soon
                blob.limited += 1
            self._hold(blob.upstream, now + r.retry_s, now)
        if r.reason == "slow":
            self._slow[node] = now + SLOW_S
        if r.reason == "wrong-bytes":
            blob.wrong[node] = None
        if r.reason == "unwanted":
            member.wanting = member.waiting = False
        if r.reason == "done":
            blob.losses = blob.limited = 0
            blob.wrong.clear()
            member.complete, member.wanting = True, False  # else the lease goes on to another, who pulls the rest again
        if blob.lease and blob.lease.holder == node:
            if blob.lease.fresh and not blob.lease.progress and r.reason in _BEFORE_THE_FIRST_BYTE:
                blob.begun = False  # the next holder need not ask around for what this one left
            self._set_lease(blob, None)
        out = self._grant(blob, now) if blob.lease is None else []
        if r.reason == "slow" and blob.lease and blob.lease.holder != node:
            # What it pulled and has not got rid of the next holder need not pull, if they meet in time.
            out.append((node, self._answer(blob, node, 0, now, (self._nodes[blob.lease.holder],))))
        return out

    def _hold(self, upstream: str, until: float, now: float) -> None:
        """A registry asked to wait: nobody is sent there before."""
        self._holds = {name: end for name, end in self._holds.items() if end > now}
        if upstream in self._holds or len(self._holds) < HOLDS_MAX:
            self._holds[upstream] = max(self._holds.get(upstream, 0.0), until)

    # -- leases -----------------------------------------------------------------------------------------------------

    def _grant(self, blob: Blob, now: float) -> Outgoing:
        """Give the lease to the wanter at whom it costs least; or say that every wanter has failed."""
        if now < blob.quiet_until or now < self._started + NEW_S:
            return []
        wanters = [(node, m) for node, m in blob.members.items() if m.wanting and m.primary]
        if not wanters:
            return []
        enough = max(WRONG_BYTES_MIN, 1 + len(wanters) // WRONG_BYTES_SHARE)
        if len(blob.wrong) >= min(enough, WRONG_BYTES_MAX):
            blob.wrong.clear()
            for _, member in wanters:
                member.failure, member.failed_until = "wrong-bytes", now + FAILURE_S
        held_until = self._holds.get(blob.upstream, 0.0)
        if held_until > now:  # the registry asked one of us to wait: that holds for all of us
            if self._pause_is_short(blob, now):
                return []
            for _, member in wanters:
                member.failure, member.failed_until = "limited", held_until
        able = [(node, m) for node, m in wanters if m.can_pull and m.failed_until <= now]
        if any(m.complete for m in blob.members.values()):
            # The swarm has all of it. Only who gets nothing from there has a reason to go upstream.
            able = [(node, m) for node, m in able if m.stuck and now - m.stuck_since >= STARVED_S]
            if not able:
                return []
        if not able:
            if any(m.failed_until <= now for _, m in wanters):
                return []  # somebody has not failed: it may become able, or somebody else may come
            return self._tell_failure(blob, wanters, now)
        node = min(able, key=lambda e: self._cost(e[0], e[1], now))[0]
        if self._leases_of.get(node, 0):
            if blob.gather_until < 0:
                blob.gather_until = now + GATHER_S
            if now < blob.gather_until:
                return []
        blob.gather_until = -1.0
        fresh, blob.begun = not blob.begun, True
        blob.term = max(blob.term, blob.heard) + 1
        self._set_lease(blob, Lease(node, blob.term, 0, now, 0.0, fresh))
        answer = self._answer(blob, node, HANDED_OUT, now, fresh=fresh)
        return [(node, answer)]

    def _cost(self, node: bytes, member: Member, now: float) -> tuple[bool, int, bool, float]:
        """What is to be said against a holder, least last: its line is slow, it holds others, no client waits."""
        is_slow = self._slow.get(node, now) > now
        return is_slow, self._leases_of.get(node, 0), not member.waiting, self._random.random()

    def _tell_failure(self, blob: Blob, wanters: list[tuple[bytes, Member]], now: float) -> Outgoing:
        """Every wanter has failed: each is told once, not at each announce of another."""
        if self._may_come_right(blob, now):
            return []
        untold = [(node, m) for node, m in wanters if m.told_until != m.failed_until]
        for _, member in untold:
            member.told_until = member.failed_until
        return [(node, self._answer(blob, node, 0, now)) for node, _ in untold]

    def _may_come_right(self, blob: Blob, now: float) -> bool:
        """Whether it is too early to call the blob failed: the registry asked to wait a little, or who asked first may
        have met upstream's one bad answer."""
        if self._pause_is_short(blob, now):
            return True
        wanters = (m for m in blob.members.values() if m.wanting)
        return now < blob.born + YOUNG_S and any(m.failure in _MAY_FARE_BETTER for m in wanters)

    def _pause_is_short(self, blob: Blob, now: float) -> bool:
        """Whether the registry asked to wait, and for no longer than the clients may be asked to."""
        return 0 < self._holds.get(blob.upstream, 0.0) - now <= WORTH_WAITING_S and blob.limited < LIMITED_MAX

    def _lost_at(self, blob: Blob, lease: Lease) -> float:
        return lease.progress_at + self._slack(blob) * max(PROGRESS_S, PROGRESS_LINKS * lease.link_s)

    def _slack(self, blob: Blob) -> int:
        """How many times as long as usual a holder may take, after others could do no better."""
        return 2 ** max(0, min(6, blob.losses - SLOW_LOSSES + 1))

    def _is_sat_on(self, blob: Blob, lease: Lease, now: float) -> bool:
        """Whether most of the others have got nothing for long, whatever the holder says of its progress.

        A word against a word: it costs the lease, which goes to another, and nothing else. Fewer than half of them can
        take it from nobody.
        """
        if now - blob.stuck_at > STUCK_S:
            lease.stuck_since = -1.0
            return False
        if now < blob.look_at:
            return False
        blob.look_at = now + STUCK_LOOK_S
        others = [m for node, m in blob.members.items() if m.wanting and node != lease.holder]
        if 2 * sum(m.stuck for m in others) <= len(others):
            lease.stuck_since = -1.0
            return False
        if lease.stuck_since < 0:
            lease.stuck_since = now
        return now - lease.stuck_since > self._slack(blob) * STUCK_S

    def _lose(self, blob: Blob, now: float) -> Outgoing:
        """The holder stands still. The lease goes to another, if there is one to go to."""
        assert blob.lease
        holder = blob.lease.holder
        others = any(
            m.wanting and m.primary and m.can_pull and m.failed_until <= now
            for node, m in blob.members.items()
            if node != holder
        )
        if others:  # else nobody could do better, or nobody looks here for the lease: it says nothing of upstream
            blob.losses += 1
        if not others or blob.losses == SLOW_LOSSES:  # upstream is slow, or nobody else could: wait on
            blob.lease.progress_at = now
            if others:
                blob.lease.stuck_since = -1.0  # else who comes to this directory, from one that did nothing, has waited
            return []
        self._set_lease(blob, None)
        member = blob.members[holder]
        member.failure, member.failed_until = "unreachable", now + FAILURE_S
        out = self._grant(blob, now)
        return [*out, (holder, self._answer(blob, holder, 0, now))]

    def _set_lease(self, blob: Blob, lease: Lease | None) -> None:
        if blob.lease:
            self._leases_of[blob.lease.holder] -= 1
            if not self._leases_of[blob.lease.holder]:
                del self._leases_of[blob.lease.holder]
        blob.lease = lease
        if lease:
            self._leases_of[lease.holder] = self._leases_of.get(lease.holder, 0) + 1
            blob.term = max(blob.term, lease.term)
        self._watched[blob.digest] = None

    # -- members ----------------------------------------------------------------------------------------------------

    def _join(self, digest: bytes, node: bytes, now: float) -> Blob | None:
        """The blob with this node as a member; None where a bound does not allow it."""
        blob = self._blobs.get(digest)
        if blob is None:
            if len(self._blobs) >= BLOBS_MAX:
                return None
            blob = self._blobs[digest] = Blob(digest, now)
        if node not in blob.members:
            if len(blob.members) >= MEMBERS_MAX or len(self._blobs_of[node]) >= BLOBS_PER_NODE:
                return None if blob.members else self._blobs.pop(digest) and None
            contact = self._nodes[node]
            zone = contact.zone
            member = blob.members[node] = Member(node, contact, zone=zone)
            blob.roster.add(member)
            if zone:
                blob.zones.setdefault(zone, Roster()).add(member)
            self._blobs_of[node][digest] = None
        return blob

    def _remove(self, blob: Blob, node: bytes, now: float) -> Outgoing:
        member = blob.members.pop(node)
        zone = member.zone
        blob.roster.remove(member)
        if zone:
            blob.zones[zone].remove(member)
            if not blob.zones[zone]:
                del blob.zones[zone]
        self._blobs_of.get(node, {}).pop(blob.digest, None)
        out: Outgoing = []
        if blob.lease and blob.lease.holder == node:
            self._set_lease(blob, None)
            out = self._grant(blob, now)
        if not blob.members:
            del self._blobs[blob.digest]
            self._watched.pop(blob.digest, None)
        return out

    def _answer(
        self, blob: Blob, node: bytes, need: int, now: float, also: tuple[Contact, ...] = (), fresh: bool = False
    ) -> Answer:
        lease = blob.lease
        member = blob.members.get(node)
        failure = ""
        if lease is None and member and member.failed_until > now and member.wanting:
            wanters = [m for m in blob.members.values() if m.wanting]
            have_it = any(m.complete for m in blob.members.values())
            if not have_it and all(m.failed_until > now for m in wanters) and not self._may_come_right(blob, now):
                failure = member.failure
        hold_s = max(0, int(self._holds.get(blob.upstream, 0.0) - now + 0.999))
        return Answer(
            blob.digest,
            blob.size,
            lease.holder if lease else b"",
            lease.term if lease else 0,
            fresh,
            failure,
            min(hold_s, 86400),
            (*also, *self._choose(blob, node, min(need, HANDED_OUT))),
        )

    def _choose(self, blob: Blob, asker: bytes, need: int) -> Iterator[Contact]:
        """Neighbours at random, half of them of the asker's zone if there are so many: what one of them fetches from
        elsewhere the others take from it (p2pd.swarm.zones). More than that would hurt the mixing."""
        if need <= 0:
            return
        me = blob.members.get(asker)
        near = blob.zones.get(me.zone) if me else None
        chosen = dict.fromkeys(self._pick(near, me, (need + 1) // 2) if near else ())
        for member in self._pick(blob.roster, me, need):
            if len(chosen) < need:
                chosen[member] = None
        for member in chosen:
            member.handed_out += 1
            yield member.contact

    def _pick(self, roster: Roster, asker: Member | None, need: int) -> list[Member]:
        """So many at random that can be called. Those who came first would be told to everybody: of twice as many,
        take who was told to the fewest."""
        found = [m for m in roster.sample(2 * need + 1, self._random) if m is not asker and m.contact.port]
        at_random = min(len(found), need) // 2
        rest = found[at_random:]
        rest.sort(key=_handed_out)
        return (found[:at_random] + rest)[:need]
