"""Speaking with directories: which ones to ask for a blob, when, and what their answers mean for the lease.

Targets, first the one whose word counts (primary), then a stand-by that hears the same:
1. the configured trackers that are connected, in their order;
2. without any: the two nodes that rendezvous hashing ranks highest for the blob among those that this node knows
   (connected peers, mDNS, itself). A node that knows nobody is its own directory.
For the first seconds after the start nothing is concluded from a view that is still empty. Which of them are really
there: p2pd.swarm.candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2pd.swarm.blob import Blob
from p2pd.swarm.candidates import AHEAD, Candidates
from p2pd.swarm.commands import Blame, Connect, Failed, SizeHint
from p2pd.swarm.directory import Directory
from p2pd.swarm.messages import Announce, Answer, Contact, Holdings, Message, Release, Withdraw
from p2pd.swarm.peer import Peer
from p2pd.swarm.rendezvous import highest
from p2pd.swarm.seeding import Seeder
from p2pd.swarm.state import NEVER, State

LOCAL = -1  # the peer number of this node's own directory
RELEASE_RETRY_MAX_S: Final = 86400
PATIENCE_S: Final = 11.0  # nothing comes while the directory names a holder: time enough for an honest one to mend it
GHOST_S: Final = 4.0  # ... while a node that stands in for a directory names one that nobody has seen
STAND_BY_S: Final = 5.0  # ... under one that was a stand-by while the one before it was waited for: it has heard it all
FAILURES_MAX: Final = 1024  # blobs of which this node's own failure is remembered
CLAIM_ASK_S: Final = 0.5  # after a claim, or a lease lost to one, until the directory is asked
TOGETHER: Final = 0.2  # of the pause between two announcements: as far as the dice may part those of two blobs
STARVES_S: Final = 1.0  # without a piece: then the directory is told every `announce_hungry_s`
PASSED_OVER_S: Final = 60.0  # a directory that was caught, or under which nothing moves
HOLD_TOLD_MAX_S: Final = 600  # a pause that others tell of is believed for so long; one's own 429 for all of it
OWN_FAILURE_S: Final = 60.0  # how long this node's own failure explains that a directory says nobody can
_TOLD_BY_ONESELF = frozenset(
    {"denied", "missing", "bad-answer", "unreachable"}
)  # no directory has these of anybody else


@dataclass(slots=True)
class Told:
    """When and to whom a blob was announced last."""

    next_at: float
    early_at: float = NEVER  # from then on it goes along with another blob's: ten in one record cost little more
    targets: tuple[int, ...] = ()
    since: float = 0.0  # when the first of them became the first
    follows: bool = False  # it was the stand-by of one that was passed over
    named: bytes = b""  # the holder that it named last
    look_at: float = NEVER  # when to see whether pieces still come; if not, the directory is to hear of it before long


class Announcer:
    """The announcements of one node, and its own directory."""

    def __init__(self, state: State, seeder: Seeder, settles_at: float) -> None:
        self._s = state
        self._seeder = seeder
        self.directory = Directory(state.random, state.now)
        self.directory.connected(state.me)
        self._told: dict[bytes, Told] = {}
        self._soonest = NEVER  # no blob is due before this
        self._candidates = Candidates()
        self._silent_at = NEVER  # when a directory counts as silent, so that others are to be asked
        # blob -> when this node last failed, or heard that nobody can; or only lost its lease, which explains less
        self._failed: dict[bytes, tuple[float, bool]] = {}
        self._passed_over: dict[int, float] = {}  # peer -> until when it is no directory for us
        self._settles_at = settles_at
        self._local: list[tuple[bytes, Message]] = []  # what our own directory is to be told, in order
        self._busy = False
        self.on_holder: Callable[[Blob], None] = lambda blob: None  # a directory named another holder than before
        self.on_stuck: Callable[[Blob], None] = lambda blob: None  # a directory is told that nothing comes

    # -- events -----------------------------------------------------------------------------------------------------

    def members(self, contacts: tuple[Contact, ...]) -> None:
        self._candidates.found(contacts)
        self.view_changed()

    def view_changed(self) -> None:
        """Another set of directories may be right now: look again soon."""
        soon = self._s.now + 0.01
        for told in self._told.values():
            told.next_at = min(told.next_at, soon)
        self._soonest = min(self._soonest, soon)

    def renamed(self, old: bytes) -> None:
        """Our own directory knows this node by its new id; the others hear it when the connections come back."""
        self._deliver(self.directory.disconnected(old, self._s.now))
        self.directory.connected(self._s.me)
        self.view_changed()

    def unreachable(self, node_id: bytes) -> None:
        self._candidates.unreachable(node_id, self._s.now)
        self.view_changed()

    def peer_up(self, peer: Peer) -> None:
        self._candidates.reached(peer.contact.node_id)
        if peer.tracker < 0:
            self.directory.connected(peer.contact)
        if (peer.tracker >= 0 or not self._has_tracker()) and self._s.stored:
            self._s.send(peer.number, self._holdings())
        self.view_changed()

    def peer_down(self, peer: Peer) -> None:
        self._candidates.heard(peer.number, self._s.now)
        if peer.tracker < 0:
            self._deliver(self.directory.disconnected(peer.contact.node_id, self._s.now))
        self.view_changed()

    def _has_tracker(self) -> bool:
        peers, now = self._s.peers.items(), self._s.now
        return any(p.tracker >= 0 and not self._candidates.is_lost(number, now) for number, p in peers)

    def _holdings(self) -> Holdings:
        newest = list(self._s.stored)[-self._s.settings.holdings_most :]
        return Holdings(tuple(reversed(newest)))

    # -- announcing -------------------------------------------------------------------------------------------------

    def track(self, blob: Blob) -> None:
        """From now on the directories are told of this blob; at once."""
        self._told.setdefault(blob.digest, Told(self._s.now)).next_at = self._s.now
        self._soonest = self._s.now

    def forget(self, blob: Blob) -> None:
        """This node neither has nor wants the blob any more."""
        told = self._told.pop(blob.digest, None)
        for target in told.targets if told else ():
            self._tell(target, Withdraw(blob.digest))

    @property
    def deadline(self) -> float:
        soonest = min(self._soonest, self._silent_at)
        if self.directory.watching:
            soonest = min(soonest, self._s.now + 0.1)
        return soonest

    def tick(self) -> None:
        if self.directory.watching:
            self._deliver(self.directory.tick(self._s.now))
        if self._silent_at <= self._s.now:
            self._silent_at = self._candidates.changes_at(self._s.now)
            for digest, told in self._told.items():
                if told.targets and self._targets(digest) != told.targets:
                    told.next_at = self._soonest = self._s.now
        if self._soonest > self._s.now:
            return
        self._soonest = NEVER
        for digest, told in self._told.items():
            if told.look_at <= self._s.now:
                self._look(digest, told)
        is_one_due = any(told.next_at <= self._s.now for told in self._told.values())
        for digest, told in list(self._told.items()):
            if is_one_due and min(told.next_at, told.early_at) <= self._s.now:
                blob = self._s.blobs.get(digest)
                if blob is None:
                    self._told.pop(digest, None)
                    continue
                self._announce(blob, told)
            self._soonest = min(self._soonest, told.next_at, told.look_at)

    def _starves(self, blob: Blob) -> bool:
        """Whether pieces are wanted, and none comes."""
        quiet_s = self._s.now - blob.quiet_since
        return blob.hungry and (not blob.holder or quiet_s > STARVES_S)

    def _look(self, digest: bytes, told: Told) -> None:
        """Pieces came when the directory was told last; if they come no more, the calm pause is too long."""
        blob = self._s.blobs.get(digest)
        if blob and blob.hungry:
            told.look_at = self._s.now + self._s.settings.announce_hungry_s
            if self._starves(blob):
                told.next_at = self._s.now
        else:
            told.look_at = NEVER

    def _announce(self, blob: Blob, told: Told) -> None:
        settings, now = self._s.settings, self._s.now
        targets = self._targets(blob.digest)
        if not targets:
            told.next_at = now + 0.25
            return
        if blob.term:
            pause = settings.announce_holder_s
        elif self._starves(blob):
            pause = settings.announce_hungry_s
        else:
            pause = settings.announce_calm_s
        told.look_at = now + settings.announce_hungry_s if blob.hungry else NEVER
        told.next_at = now + pause * (0.9 + 0.2 * self._s.random.random())
        told.early_at = told.next_at - TOGETHER * pause
        if told.targets[:1] != targets[:1]:
            told.follows = targets[0] in told.targets and told.targets[0] in self._passed_over
            told.since, told.named = now, b""
        told.targets = targets
        if self._nothing_moves(blob, told):
            self._pass_over(targets[0], blob, "a directory under which nothing moves")
            return
        want = blob.want
        stuck = blob.hungry and (
            now - blob.quiet_since > self._stuck_after(blob) or (blob.holder != b"" and blob.holder == blob.betrayed_by)
        )
        if stuck:
            self.on_stuck(blob)
        need = max(0, settings.neighbours_enough - len(blob.neighbours)) if blob.hungry else 0
        if need and not self._has_tracker():
            self._meet(blob, self._some_members(need))
        for place, target in enumerate(targets):
            message = Announce(
                digest=blob.digest,
                size=blob.geometry.size if blob.geometry else -1,
                kind=want.kind if want else "",
                upstream=want.upstream if want else blob.upstream,
                repository=want.repository if want else "",
                primary=place == 0,
                wanting=blob.hungry,
                waiting=bool(want and want.clients),
                stuck=stuck,
                can_pull=bool(want and want.can_pull),
                complete=blob.complete,
                term=blob.term,
                progress=self._seeder.progress(blob.digest),
                heard=max(blob.holders.values(), default=0),
                need=min(24, need + 2) if need else 0,
            )
            self._tell(target, message)
            if target != LOCAL:
                self._candidates.asked(target, now)
        self._silent_at = min(self._silent_at, self._candidates.changes_at(now))

    def _some_members(self, need: int) -> tuple[Contact, ...]:
        """Of those that mDNS found, so many at random; as a directory does, half of them of this node's zone."""
        members = self._candidates.reachable(self._s.now)
        found = [c for c in self._candidates.members.values() if c.node_id in members]
        found = self._s.random.sample(found, len(found))
        near = [c for c in found if self._s.is_near(c)][: (need + 1) // 2]
        return (*near, *(c for c in found if c not in near))[:need]

    def _nothing_moves(self, blob: Blob, told: Told) -> bool:
        """Whether the directory names a holder of whom nothing comes: it, too, may be the one who lies."""
        if not blob.hungry or blob.term or not blob.holder:
            return False
        patience_s = STAND_BY_S if told.follows else PATIENCE_S
        is_seen = not told.named or told.named in self._candidates.members or told.named in self._s.by_node
        if self._candidates.members and not is_seen and not self._has_tracker():
            patience_s = GHOST_S
        return self._s.now - max(blob.quiet_since, told.since) > patience_s

    def _pass_over(self, target: int, blob: Blob, why: str) -> None:
        """Do without a directory for a while. Only this node does: it is its word against the directory's."""
        peer = self._s.peers.get(target)
        if peer is None:
            return
        self._passed_over[target] = self._s.now + PASSED_OVER_S
        self._s.out.append(Blame(peer.contact.node_id, peer.contact.name, why, blob.digest, -1))
        self.view_changed()

    def _stuck_after(self, blob: Blob) -> float:
        """Seconds without a piece after which a node says that it gets nothing: pieces of large blobs take a while."""
        settings = self._s.settings
        piece_s = blob.geometry.piece_size / settings.stuck_rate if blob.geometry else 0.0
        return max(settings.stuck_s, settings.places * piece_s)

    def release(self, blob: Blob, reason: str, retry_s: int = 0) -> None:
        """Hand the lease back, or say that this node can't pull."""
        told = self._told.get(blob.digest)
        message = Release(blob.digest, blob.term, reason, min(retry_s, RELEASE_RETRY_MAX_S))
        blob.given_back = blob.term or blob.given_back
        blob.term, blob.holder = 0, b""
        if reason not in ("done", "unwanted", "slow"):
            self._note_failure(blob)
        for target in told.targets if told else ():
            self._tell(target, message)

    def _targets(self, digest: bytes) -> tuple[int, ...]:
        self._passed_over = {n: t for n, t in self._passed_over.items() if t > self._s.now and n in self._s.peers}
        trackers = sorted(
            (p.tracker, n) for n, p in self._s.peers.items() if p.tracker >= 0 and n not in self._passed_over
        )
        silent = self._candidates.silent(self._s.now)
        if trackers:
            there = [number for _, number in trackers if number not in silent]
            if there or self._has_tracker():
                # All of them silent: wait a while for the first, rather than let each node go its own way.
                return tuple(there[:2] or (number for _, number in trackers[:2]))
        if self._s.now < self._settles_at:
            return ()
        return self._stand_ins(digest, silent)

    def _stand_ins(self, digest: bytes, silent: set[int]) -> tuple[int, ...]:
        """Without trackers. Empty while the one whose word counts is on its way."""
        me, by_node, now = self._s.me.node_id, self._s.by_node, self._s.now
        recalled = self._candidates.to_recall(now)
        if recalled and recalled.node_id not in by_node:
            self._s.out.append(Connect(recalled))
        known = {p.contact.node_id for p in self._s.peers.values() if p.tracker < 0} | self._candidates.reachable(now)
        known -= {self._s.peers[number].contact.node_id for number in silent.union(self._passed_over)}
        known = {n for n in known if not self._s.is_left_alone(n)}
        known.add(me)
        targets: list[int | None] = []
        there, ahead = 0, 0
        for node in highest(digest, known, 2 + AHEAD):
            if there == 2 or len(targets) >= 2 + ahead:
                break
            if node == me or node in by_node:
                targets.append(LOCAL if node == me else by_node[node])
                there += 1
                continue
            targets.append(None)
            self._s.out.append(Connect(self._candidates.called(node, now)))
            if self._candidates.is_waited_for_long(node, now):
                ahead = AHEAD
        return () if targets[0] is None else tuple(number for number in targets[:2] if number is not None)

    # -- our own directory ------------------------------------------------------------------------------------------

    def heard(self, peer: Peer, message: Message) -> None:
        """A peer takes this node for a directory."""
        self._deliver(self.directory.handle(peer.contact.node_id, message, self._s.now))
        if self.directory.is_flooded_by(peer.contact.node_id):
            self._s.blame(peer, "announces that never end")

    def _tell(self, target: int, message: Message) -> None:
        if target == LOCAL:
            self._local.append((self._s.me.node_id, message))
            self._drain()
        elif target in self._s.peers:
            self._s.send(target, message)

    def _drain(self) -> None:
        if self._busy:
            return
        self._busy = True
        while self._local:
            node, message = self._local.pop(0)
            self._deliver(self.directory.handle(node, message, self._s.now))
        self._busy = False

    def _deliver(self, out: list[tuple[bytes, Message]]) -> None:
        for node, message in out:
            if node == self._s.me.node_id:
                assert isinstance(message, Answer)
                self.answered(message)
            elif node in self._s.by_node:
                self._s.send(self._s.by_node[node], message)

    # -- answers ----------------------------------------------------------------------------------------------------

    def heard_answer(self, peer: Peer, answer: Answer) -> None:
        """An answer counts only from a tracker, or from the node that this one announced the blob to."""
        if self._candidates.heard(peer.number, self._s.now):
            self.view_changed()
        told = self._told.get(answer.digest)
        blob = self._s.blobs.get(answer.digest)
        if blob is None or (peer.tracker < 0 and not (told and peer.number in told.targets)):
            return
        if peer.number in self._passed_over:
            is_mine = answer.holder == self._s.me.node_id and answer.term != blob.given_back
            if not blob.hungry or not is_mine or blob.term:
                return
            # It has mended it after all, and waits for this node now.
            del self._passed_over[peer.number]
            self.view_changed()
        if told and told.targets[:1] == (peer.number,):
            told.named = answer.holder
        if answer.failure and blob.hungry and self._is_a_lie(blob, answer.failure):
            self._pass_over(peer.number, blob, "a directory that says this node has failed, which it has not")
            return
        self.answered(answer)

    def _is_a_lie(self, blob: Blob, failure: str) -> bool:
        """Whether a directory can't have that from anybody: "every wanter has failed" includes this node.

        A registry's pause is told by others, a lost lease is known to who lost it, and wrong bytes have been taken
        back by who pulled them, before the neighbours.
        """
        failed_at, only_lost = self._failed.get(blob.digest, (-NEVER, False))
        if not (blob.want and blob.want.can_pull):
            return False
        if self._s.now - failed_at < OWN_FAILURE_S and (not only_lost or failure == "unreachable"):
            return False
        if failure == "wrong-bytes":
            return blob.chain is not None and not blob.chain.retracted
        return failure in _TOLD_BY_ONESELF

    def _note_failure(self, blob: Blob, only_lost: bool = False) -> None:
        """From now on a directory may well say that this node has failed; of a lost lease, only as unreachable."""
        at, was_only_lost = self._failed.pop(blob.digest, (-NEVER, True))
        recent = self._s.now - at < OWN_FAILURE_S
        self._failed[blob.digest] = (self._s.now, only_lost and (was_only_lost or not recent))
        if len(self._failed) > FAILURES_MAX:
            del self._failed[next(iter(self._failed))]

    def answered(self, answer: Answer) -> None:
        """A directory's word: neighbours, the lease, a size, or that nobody can get it."""
        blob = self._s.blobs.get(answer.digest)
        if blob is None:
            return
        if blob.geometry is None and answer.size >= 0:
            self._s.out.append(SizeHint(blob.digest, answer.size))
        self._meet(blob, answer.peers)
        if blob.handed_on:  # the next holder is met even if there are neighbours enough
            self._s.out.extend(Connect(c) for c in answer.peers if self._is_stranger(c) and c.node_id == answer.holder)
        if answer.failure and blob.hungry:
            self._note_failure(blob)
            self._s.out.append(Failed(blob.digest, answer.failure, min(answer.hold_s, HOLD_TOLD_MAX_S)))
            return
        if answer.holder == self._s.me.node_id:
            if answer.term == blob.given_back:
                return  # said before the directory heard that this node gives the lease back
            if blob.term == 0 and not blob.complete:
                if not blob.hungry or not (blob.want and blob.want.can_pull):
                    blob.term = answer.term
                    self.release(blob, "unwanted" if not blob.hungry else "busy")
                    return
                blob.term = answer.term
                blob.holder_named(answer.holder, answer.term)
                # Without a tracker nobody knows what all the others have: hear them first.
                knows_all = self._has_tracker() or not (self._candidates.members or self._s.by_node)
                self._seeder.start(blob, answer.fresh and knows_all)
                self.track(blob)
        elif answer.holder:
            is_news = blob.holder_named(answer.holder, answer.term)
            self.rival(blob, answer.holder, answer.term)
            if is_news:
                self.on_holder(blob)
        elif not blob.term:
            blob.holder = b""
            told = self._told.get(blob.digest)
            if blob.hungry and told:  # somebody else will hold it: hear of that in time
                told.next_at = min(told.next_at, self._s.now + self._s.settings.announce_hungry_s)
                self._soonest = min(self._soonest, told.next_at)

    def claimed(self, blob: Blob, peer: Peer, term: int) -> None:
        """A neighbour says that it holds the lease. Where there is a tracker, only the tracker's word counts.

        Elsewhere, too, a claim alone moves nothing: this node asks its own directory, and makes way only for somebody
        who has vouched for links under that term.
        """
        if not blob.term or blob.chain is None or self._has_tracker():
            return
        if any(v.key == peer.key and v.term >= term for v in blob.chain.vouchers.values()):
            self.rival(blob, peer.contact.node_id, term)
        elif blob.digest in self._told:
            told = self._told[blob.digest]
            told.next_at = min(told.next_at, self._s.now + CLAIM_ASK_S)
            self._soonest = min(self._soonest, told.next_at)

    def rival(self, blob: Blob, node_id: bytes, term: int) -> None:
        """Another node holds the lease which this node holds: the higher term wins, then the lower id."""
        if blob.term and (term > blob.term or (term == blob.term and node_id < self._s.me.node_id)):
            blob.holder = node_id
            self.lose(blob)

    def lose(self, blob: Blob) -> None:
        """Stop pulling, keep serving."""
        self._note_failure(blob, only_lost=True)
        # The directory that granted it goes on naming this node, until it has heard that it makes way.
        blob.given_back = blob.term or blob.given_back
        blob.term = 0
        if not blob.alone:
            self._seeder.stop(blob)
        # Not at once: two directories that name different holders must not be played against each other without end.
        told = self._told.setdefault(blob.digest, Told(self._s.now))
        told.next_at, told.early_at = self._s.now + CLAIM_ASK_S, NEVER
        self._soonest = min(self._soonest, told.next_at)

    def _meet(self, blob: Blob, contacts: tuple[Contact, ...]) -> None:
        settings = self._s.settings
        room = min(settings.reach_out_at_once, settings.neighbours_enough + 2 - len(blob.neighbours))
        for contact in contacts:
            if room <= 0 or len(self._s.peers) >= settings.connections_max:
                return
            if self._is_stranger(contact):
                self._s.out.append(Connect(contact))
                room -= 1

    def _is_stranger(self, contact: Contact) -> bool:
        """Whether this is a node to call: neither this one, nor connected, nor left alone."""
        node = contact.node_id
        return node != self._s.me.node_id and node not in self._s.by_node and not self._s.is_left_alone(node)
