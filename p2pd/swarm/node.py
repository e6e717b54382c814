"""A node's whole logic: events in, commands out. The daemon and the simulator both run this class.

Not here: sockets, files, hashing, clocks. `handle(event, now)` costs what changed, not what exists; `deadline` is when
`Tick` is due. One task owns a node; nothing here is thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from p2pd.swarm import events as ev
from p2pd.swarm.announcing import Announcer
from p2pd.swarm.blob import Blob, Want
from p2pd.swarm.commands import (
    Close,
    Command,
    ComputeChain,
    Count,
    Failed,
    Keep,
    Prove,
)
from p2pd.swarm.downloads import Asked, Downloads
from p2pd.swarm.hearing import Hearer
from p2pd.swarm.messages import (
    LINKS_MAX,
    Accuse,
    Announce,
    Answer,
    Cancel,
    Contact,
    GetLinks,
    Have,
    Holdings,
    Join,
    Leave,
    News,
    Refuse,
    Release,
    Request,
    Retract,
    Vouch,
    Withdraw,
)
from p2pd.swarm.peer import Peer
from p2pd.swarm.seeding import Seeder
from p2pd.swarm.settings import Settings
from p2pd.swarm.state import State
from p2pd.swarm.telling import Teller
from p2pd.swarm.trust import Trust
from p2pd.swarm.uploads import Uploads
from p2pd.swarm.voucher import Sign, Verify

# After these nothing new can be asked for, but for what their handlers say themselves. They are most of what happens.
_CHANGES_NO_CHOICE = frozenset(
    {ev.Received, ev.PieceStarted, ev.UploadDone, ev.PieceStored, ev.Stored, ev.Tick, ev.Members}
    | {Have, News, Request, Cancel, GetLinks, Vouch, Accuse, Announce, Release, Withdraw, Holdings}
)


class Node:
    """One node. `settles_after_s`: how long after the start an empty view means nothing."""

    def __init__(
        self,
        me: Contact,
        key: bytes,
        sign: Sign,
        verify: Verify,
        random: Random,
        now: float,
        *,
        settings: Settings | None = None,
        settles_after_s: float = 0.0,
    ) -> None:
        self.state = State(me, key, sign, verify, random, settings or Settings(), now)
        self.uploads = Uploads(self.state)
        self.downloads = Downloads(self.state)
        self.seeder = Seeder(self.state, self.uploads)
        self.announcer = Announcer(self.state, self.seeder, now + settles_after_s)
        self.teller = Teller(self.state, self.uploads)
        self.trust = Trust(self.state, self.uploads, self.downloads, self.seeder, self.announcer, self.teller)
        self.hearer = Hearer(
            self.state, self.downloads, self.seeder, self.announcer, self.teller, self.trust, self._bring_in
        )
        self.announcer.on_holder = self._holder_named
        self.announcer.on_stuck = self.trust.gets_nothing
        self.deadline = self.announcer.deadline  # when `Tick` is due
        self._handlers: dict[type, Callable] = {
            ev.PeerUp: self._peer_up,
            ev.PeerDown: self._peer_down,
            ev.Renamed: self._renamed,
            ev.ConnectFailed: lambda e: self.announcer.unreachable(e.node_id),
            ev.Received: self._received,
            ev.PieceStarted: lambda e: self.downloads.started(e.peer, e.rid),
            ev.PieceChecked: self._piece_checked,
            ev.UploadDone: self._upload_done,
            ev.Stored: self._stored,
            ev.Resumed: self._resumed,
            ev.Evicted: self._evicted,
            ev.ChainComputed: self._chain_computed,
            ev.Want: self._want,
            ev.Unwant: self._unwant,
            ev.Reading: self._reading,
            ev.SizeKnown: self._size_known,
            ev.PieceStored: self._piece_stored,
            ev.PullEnded: self._pull_ended,
            ev.Members: lambda e: self.announcer.members(e.contacts),
            ev.Tick: self._tick,
        }
        self._messages: dict[type, Callable] = {
            Join: self.hearer.joined,
            Leave: self.hearer.left,
            Have: self.hearer.has,
            News: self.hearer.news,
            Request: self._on_request,
            Cancel: lambda p, m: self.uploads.cancel(p.number, m.rid),
            Refuse: lambda p, m: self.downloads.refused(p, m.rid, m.reason, m.load),
            Vouch: self.trust.vouched,
            GetLinks: self._on_get_links,
            Retract: self.trust.retracted,
            Accuse: self.trust.accused,
            Answer: self.announcer.heard_answer,
            **dict.fromkeys((Announce, Release, Withdraw, Holdings), self.announcer.heard),
        }

    # -- the interface ----------------------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: float) -> list[Command]:
        """What is to be done about an event. `now`: seconds on a clock that never goes back."""
        state = self.state
        state.now = max(state.now, now)
        state.out = []
        kind = type(event)
        self._handlers[kind](event)
        if kind not in _CHANGES_NO_CHOICE:
            self.downloads.look()
        self.downloads.fill()
        if state.out or kind is not ev.Received:
            self.deadline = self._deadline()
        else:
            # A message that led to nothing may still say when to look again; most are news, and many.
            self.deadline = min(min(self.deadline, self.downloads.deadline), self.announcer.deadline)
        return state.out

    def _deadline(self) -> float:
        # By twos: for three and more a compiled core has to call the interpreter's `min`.
        soonest = min(self.downloads.deadline, self.uploads.deadline)
        return min(min(soonest, self.seeder.deadline), min(self.announcer.deadline, self.teller.deadline))

    def link(self, peer: int, rid: int) -> tuple[bytes, bytes] | None:
        """The states before and after the piece that `rid` asked for; None while no voucher has told them."""
        asked = self.downloads.get(peer, rid)
        blob = self.state.blobs.get(asked.digest) if asked else None
        return self._link_of(asked, blob) if asked and blob else None

    def _link_of(self, asked: Asked, blob: Blob) -> tuple[bytes, bytes] | None:
        """What its piece is checked against."""
        return self.trust.disputes.link(asked.rid, asked.digest) or blob.link(asked.index)

    def blob(self, digest: bytes) -> Blob | None:
        return self.state.blobs.get(digest)

    # -- connections ------------------------------------------------------------------------------------------------

    def _peer_up(self, e: ev.PeerUp) -> None:
        state, node = self.state, e.contact.node_id
        peer = Peer(e.peer, e.contact, e.key, e.outbound, e.tracker, state.now)
        if e.tracker < 0:
            inbound = sum(1 for p in state.peers.values() if not p.outbound)
            refusal = ""
            if node == state.me.node_id:
                refusal = "this is myself"
            elif state.is_avoided(node):
                refusal = "avoided"
            elif state.is_brief(node):
                refusal = "comes and goes"
            elif len(state.peers) >= state.settings.connections_max or (
                not e.outbound and inbound >= state.settings.inbound_max
            ):
                refusal = "no place"
            elif node in state.by_node:
                # Both sides called at once: both keep the call of the lower node id.
                old = state.peers[state.by_node[node]]
                keep_new = e.outbound == (state.me.node_id < node)
                if old.outbound == e.outbound or not keep_new:
                    refusal = "connected already"
                else:
                    state.out.append(Close(old.number, "connected twice"))
                    self._forget_peer(old)
            if refusal:
                state.out.append(Close(e.peer, refusal))
                return
            state.by_node[node] = e.peer
            state.meet(e.contact)
        state.peers[e.peer] = peer
        self.announcer.peer_up(peer)
        if e.tracker < 0:
            for blob in state.blobs.values():
                if blob.geometry and (blob.hungry or blob.present):
                    self.teller.join(peer, blob)

    def _peer_down(self, e: ev.PeerDown) -> None:
        peer = self.state.peers.get(e.peer)
        if peer:
            if peer.tracker < 0:
                self.state.ended(peer)
            self._forget_peer(peer)

    def _renamed(self, e: ev.Renamed) -> None:
        """Vouchers that were signed before stay as they are: their key is in them."""
        state, old = self.state, self.state.me.node_id
        state.me, state.key, state.sign = e.me, e.key, e.sign
        for blob in state.blobs.values():
            if blob.term:
                blob.holder = e.me.node_id
        self.announcer.renamed(old)

    def _forget_peer(self, peer: Peer) -> None:
        state = self.state
        del state.peers[peer.number]
        if state.by_node.get(peer.contact.node_id) == peer.number:
            del state.by_node[peer.contact.node_id]
        self.downloads.peer_down(peer.number)
        self.uploads.peer_down(peer.number)
        self.trust.peer_down(peer.number)
        for digest in peer.blobs:
            blob = state.blobs.get(digest)
            if blob:
                blob.remove_neighbour(peer.number)
                self.seeder.neighbours_changed(blob)
                if blob.hungry:
                    self.announcer.track(blob)
        self.announcer.peer_down(peer)

    def _received(self, e: ev.Received) -> None:
        peer = self.state.peers.get(e.peer)
        handler = self._messages.get(type(e.message))
        if peer and handler:
            handler(peer, e.message)
            if type(e.message) not in _CHANGES_NO_CHOICE:
                self.downloads.look()

    # -- wants ------------------------------------------------------------------------------------------------------

    def _want(self, e: ev.Want) -> None:
        state = self.state
        if e.digest in state.stored:
            return
        blob = state.blobs.get(e.digest)
        if blob is None:
            blob = state.blobs[e.digest] = Blob(e.digest)
        old = blob.want
        changed = old is None or old.can_pull != e.can_pull or bool(old.clients) != bool(e.clients)
        blob.want = Want(e.kind, e.upstream, e.repository, e.clients, e.can_pull, e.alone)
        blob.upstream = e.upstream
        if e.size >= 0:
            self._set_size(blob, e.size)
        if old is None:
            blob.wanted_since = blob.last_piece_at = state.now
            if blob.geometry:
                self.teller.join_all(blob)
        if e.alone and not blob.alone and not blob.complete:
            blob.alone = True
            self.seeder.start(blob, fresh=blob.geometry is None or not blob.neighbours)
        if changed:
            self.announcer.track(blob)

    def _unwant(self, e: ev.Unwant) -> None:
        blob = self.state.blobs.get(e.digest)
        if blob is None or blob.want is None:
            return
        blob.want = None
        blob.alone = False
        if blob.complete:
            return
        self.downloads.cancel_blob(blob.digest)
        others = any(n.wanting for n in blob.neighbours.values())
        if blob.term and others and self.seeder.active(blob.digest):
            blob.want = Want("blob", blob.upstream, "", 0, False, False)  # a peer asks: the holder goes on for it
            return
        if blob.term:
            self.announcer.release(blob, "unwanted")
        self.seeder.stop(blob)
        if blob.present:
            self.teller.join_all(blob)
            self.announcer.track(blob)
        else:
            self._forget_blob(blob)

    def _forget_blob(self, blob: Blob) -> None:
        self.downloads.cancel_blob(blob.digest)
        self.seeder.stop(blob)
        for number, neighbour in blob.neighbours.items():
            neighbour.peer.blobs.pop(blob.digest, None)
            self.state.send(number, Leave(blob.digest))
        self.announcer.forget(blob)
        self.trust.forget(blob)
        self.teller.forget(blob.digest)
        self.state.blobs.pop(blob.digest, None)

    def _reading(self, e: ev.Reading) -> None:
        blob = self.state.blobs.get(e.digest)
        if blob:
            blob.reading = e.index

    def _size_known(self, e: ev.SizeKnown) -> None:
        blob = self.state.blobs.get(e.digest)
        if blob and blob.geometry is None:
            self._set_size(blob, e.size)
            self.teller.join_all(blob)

    def _set_size(self, blob: Blob, size: int) -> None:
        if blob.geometry is None:
            blob.set_size(size)
            self.seeder.size_known(blob)

    # -- the store --------------------------------------------------------------------------------------------------

    def _stored(self, e: ev.Stored) -> None:
        self.state.stored[e.digest] = e.size
        self.state.stored.move_to_end(e.digest)

    def _evicted(self, e: ev.Evicted) -> None:
        self.state.stored.pop(e.digest, None)
        blob = self.state.blobs.get(e.digest)
        if blob:
            blob.want = None
            self._forget_blob(blob)

    def _resumed(self, e: ev.Resumed) -> None:
        """Pieces that were recorded before the daemon ended: each with states that held."""
        blob = self.state.blobs.get(e.digest)
        if blob is None:
            blob = self.state.blobs[e.digest] = Blob(e.digest)
        self._set_size(blob, e.size)
        assert blob.chain
        for index, (before, after, voucher) in sorted(e.pieces.items()):
            chain = blob.chain
            if chain.states.get(index, before) != before or chain.states.get(index + 1, after) != after:
                continue  # from before a retraction: let it be fetched again
            if blob.present >> index & 1 or blob.flying >> index & 1:
                continue
            chain.states[index], chain.states[index + 1] = before, after
            if isinstance(voucher, Vouch) and chain.accepts(voucher, e.size) is None:
                chain.add(voucher)
                blob.upstream = blob.upstream or voucher.upstream
            else:
                blob.computed |= 1 << index
            blob.arrive(index)
        if blob.complete:
            self._prove(blob)
        elif blob.present:
            self.announcer.track(blob)

    def _chain_computed(self, e: ev.ChainComputed) -> None:
        """The states of a proven blob are here: now it can be handed out."""
        blob = self.state.blobs.get(e.digest)
        if blob is None or blob.chain is None or blob.geometry is None:
            return
        blob.computing = False
        if e.states is None or len(e.states) != blob.geometry.count or e.states[-1] != e.digest:
            self.state.stored.pop(e.digest, None)
            self._forget_blob(blob)
            return
        for index, after in enumerate(e.states):
            blob.chain.states[index + 1] = after
        blob.present = blob.computed = blob.geometry.all
        blob.missing = 0
        blob.proven = True
        self.teller.join_all(blob)

    def _bring_in(self, digest: bytes) -> Blob | None:
        """A peer asks for a blob that is on disk: bring it into the swarm."""
        size = self.state.stored.get(digest)
        if size is None:
            return None
        self._make_room()
        blob = self.state.blobs[digest] = Blob(digest)
        blob.set_size(size)
        assert blob.geometry
        if blob.geometry.count == 1:
            blob.present = blob.computed = blob.geometry.all
            blob.missing, blob.proven = 0, True
        else:
            blob.computing = True
            self.state.out.append(ComputeChain(digest, size))
        return blob

    def _make_room(self) -> None:
        """Proven blobs that nobody asks for leave the memory (not the disk), oldest first."""
        blobs = self.state.blobs
        if len(blobs) < self.state.settings.swarms_most:
            return
        for digest, blob in list(blobs.items()):
            idle = blob.proven and blob.want is None and not any(n.wanting for n in blob.neighbours.values())
            if idle and digest in self.state.stored:
                for neighbour in blob.neighbours.values():
                    neighbour.peer.blobs.pop(digest, None)
                del blobs[digest]
                self.teller.forget(digest)
                if len(blobs) < self.state.settings.swarms_most:
                    return

    # -- sending ----------------------------------------------------------------------------------------------------

    def _on_request(self, peer: Peer, m: Request) -> None:
        blob = self.state.blobs.get(m.digest)
        if blob is None or not blob.present >> m.index & 1 or peer.number not in blob.neighbours:
            self.uploads.refuse(peer, m, "absent")
        elif objection := self.seeder.objection(blob, peer.number, m.index):
            self.uploads.refuse(peer, m, objection)
        else:
            claimed = blob.seeding and m.index in blob.neighbours[peer.number].shown
            self.uploads.request(peer, blob, m, first=claimed)

    def _upload_done(self, e: ev.UploadDone) -> None:
        sending = self.uploads.done(e.peer, e.rid, e.whole)
        blob = self.state.blobs.get(sending.digest) if sending else None
        if sending and blob and e.whole:
            self.seeder.sent(blob, e.peer, sending.index)
        elif sending and e.peer in self.state.peers:
            self.state.send(e.peer, Refuse(e.rid, "stopped", self.uploads.load))

    def _on_get_links(self, peer: Peer, m: GetLinks) -> None:
        blob = self.state.blobs.get(m.digest)
        if blob is None or blob.chain is None or blob.geometry is None:
            return
        end = min(m.first + min(m.count, LINKS_MAX), blob.geometry.count)
        if m.first >= end or blob.geometry.count == 1:
            return
        if blob.proven:
            for voucher in self.state.proofs(blob, m.first, end):
                self.state.send(peer.number, voucher)
            return
        sent: list[Vouch] = []
        for index in range(m.first, end):
            if blob.present >> index & 1 and (index in blob.chain.vouchers or blob.computed >> index & 1):
                sent += [v for v in self.state.vouchers_for(blob, index) if v not in sent]
        for voucher in sent:
            self.state.send(peer.number, voucher)

    # -- receiving --------------------------------------------------------------------------------------------------

    def _piece_checked(self, e: ev.PieceChecked) -> None:
        asked = self.downloads.get(e.peer, e.rid)
        peer = self.state.peers.get(e.peer)
        if asked is None or peer is None:
            return
        blob = self.state.blobs[asked.digest]
        link = self._link_of(asked, blob)
        if not e.held or link is None:
            self.downloads.drop(asked)
            self.trust.bad_piece(peer, blob, asked)
            return
        self.downloads.came(asked)
        self.trust.piece_held(blob, asked)
        assert blob.chain
        if blob.link(asked.index) != link:
            blob.land(asked.index)  # it settled a dispute, but its list did not come in: nothing here says that it fits
            return
        voucher = blob.chain.vouchers.get(asked.index)
        self.seeder.came(blob, asked.index)
        self._arrived(blob, asked.index, link, voucher)

    def _arrived(self, blob: Blob, index: int, link: tuple[bytes, bytes], voucher: Vouch | None) -> None:
        """A piece is present now: keep it, tell of it, and see whether it was the last."""
        state = self.state
        blob.arrive(index)
        blob.last_piece_at = state.now
        if blob.reading >= 0 and blob.present >> blob.reading & 1:
            blob.reading = -1
        blob.link_failures.pop(index, None)
        state.out.append(Keep(blob.digest, index, link[0], link[1], voucher))
        if blob.complete:
            self._prove(blob)
        elif not blob.seeding:
            self.teller.arrived(blob)

    def _prove(self, blob: Blob) -> None:
        """Every link from state 0 to the digest holds: the blob is that digest."""
        assert blob.geometry
        blob.proven = True
        self.state.stored[blob.digest] = blob.geometry.size
        self.state.out.append(Prove(blob.digest))
        self.trust.proved(blob)
        if blob.term:
            self.announcer.release(blob, "done")
        self.teller.all_told(blob)
        for neighbour in blob.neighbours.values():
            self.teller.join(neighbour.peer, blob)
        self.announcer.track(blob)

    # -- upstream ---------------------------------------------------------------------------------------------------

    def _piece_stored(self, e: ev.PieceStored) -> None:
        """This node's own pull computed a link."""
        blob = self.state.blobs.get(e.digest)
        if blob is None or blob.chain is None or not blob.pulling >> e.index & 1:
            return
        if not self.trust.extend(blob, blob.chain, e):
            return
        before = blob.chain.states[e.index]
        blob.computed |= 1 << e.index
        if blob.refuted:
            self.trust.computed(blob, e.index)
        self._arrived(blob, e.index, (before, e.after), None)
        self.seeder.stored(blob, e.seconds)

    def _pull_ended(self, e: ev.PullEnded) -> None:
        self.state.pulls.pop(e.digest, None)
        blob = self.state.blobs.get(e.digest)
        if blob is None:
            return
        blob.pull_out = False
        if e.reason in ("end", "stopped"):
            self.seeder.pull_ended(blob)
            return
        was_alone, blob.alone = blob.alone, False
        had_lease = blob.term
        self.announcer.release(blob, e.reason, e.retry_s)
        self.seeder.stop(blob)
        if was_alone and not had_lease:
            self.state.out.append(Failed(blob.digest, e.reason, e.retry_s))
        self.announcer.track(blob)

    def give_up(self, digest: bytes) -> list[Command]:
        """The shell gave the blob up after `Failed`: forget it, and what was got of it if the bytes were wrong."""
        self.state.out = []
        blob = self.state.blobs.get(digest)
        if blob and not blob.proven:
            if blob.geometry:
                self.trust.drop_all(blob)
            blob.want = None
            self._forget_blob(blob)
        self.deadline = self._deadline()
        return self.state.out

    # -- time -------------------------------------------------------------------------------------------------------

    def _tick(self, _: ev.Tick) -> None:
        self.teller.tick()
        self.downloads.tick()
        self.uploads.pump()
        for blob in self.seeder.tick():
            self._hand_on(blob)
        self.announcer.tick()

    def _hand_on(self, blob: Blob) -> None:
        """Another node is to hold the lease: this one's line is far slower than theirs."""
        blob.handed_on = True
        self.seeder.hand_on(blob)
        self.announcer.release(blob, "slow")
        self.state.out.append(Count("handed on", 1))
        self.announcer.track(blob)

    def _holder_named(self, blob: Blob) -> None:
        """A directory names another holder than before."""
        self.trust.holder_named(blob)
        self.seeder.successor_named(blob)
