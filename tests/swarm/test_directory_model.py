"""The directory as a state machine: whatever the nodes say, in whatever order, its invariant holds."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pd.swarm.directory import REASONS, Directory
from p2pd.swarm.messages import Announce, Answer, Holdings, Message, Release, Withdraw, decode, encode
from tests.swarm.fakes import contact, digest_of

NAMES = ["a", "b", "c", "d"]
BLOBS = [digest_of("one"), digest_of("two")]
name = st.sampled_from(NAMES)
blob = st.sampled_from(BLOBS)


class DirectoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.directory = Directory(Random(1), self.now)
        self.connected: set[str] = set()
        self.said: dict[tuple[str, bytes], Announce] = {}  # the last announcement, while it counts
        self.failed_until: dict[tuple[str, bytes], float] = {}
        self.leases: dict[bytes, tuple[bytes, int]] = {}

    def told(self, out: list[tuple[bytes, Message]], adopting: Announce | None = None) -> None:
        """Every message goes to a connected node and fits the wire; every new lease goes to one who wants it."""
        here = {contact(n).node_id: n for n in self.connected}
        for node, message in out:
            assert node in here
            assert isinstance(message, Answer)
            assert decode(encode(message)[4:]) == message
            assert len(message.peers) <= 24
            assert all(peer.node_id in here and peer.node_id != node for peer in message.peers)
            assert not (message.failure and message.holder)
        for digest in BLOBS:
            lease = self.directory.lease(digest)
            if lease != self.leases.get(digest):
                self.check_new_lease(digest, lease, here, adopting)
            if lease:
                self.leases[digest] = lease
            else:
                self.leases.pop(digest, None)

    def check_new_lease(self, digest: bytes, lease, here: dict[bytes, str], adopting: Announce | None) -> None:
        if lease is None:
            return
        holder, term = lease
        assert holder in here
        said = self.said[here[holder], digest]
        if adopting and said is adopting and adopting.term == term:
            return  # it said that it held it
        before = self.leases.get(digest)
        if before and before[0] == holder:
            assert term > before[1] or adopting
        assert said.wanting and said.primary and said.can_pull, "a lease for one who does not want it or can't"
        assert self.now >= 52.0, "a lease from a directory that is new"
        assert self.failed_until.get((here[holder], digest), -1.0) <= self.now, "a lease for one who failed"

    @rule(who=name)
    def connect(self, who: str) -> None:
        if who not in self.connected:
            self.connected.add(who)
            self.directory.connected(contact(who))

    @rule(who=name)
    def disconnect(self, who: str) -> None:
        if who in self.connected:
            self.connected.discard(who)
            for digest in BLOBS:
                self.forget(who, digest)
            self.told(self.directory.disconnected(contact(who).node_id, self.now))

    def forget(self, who: str, digest: bytes) -> None:
        self.said.pop((who, digest), None)
        self.failed_until.pop((who, digest), None)

    def say(self, who: str, message: Message, adopting: Announce | None = None) -> None:
        if who in self.connected:
            self.told(self.directory.handle(contact(who).node_id, message, self.now), adopting)

    @rule(
        who=name, digest=blob, primary=st.booleans(), wanting=st.booleans(), waiting=st.booleans(),
        stuck=st.booleans(), can_pull=st.booleans(), complete=st.booleans(), term=st.sampled_from([0, 0, 0, 1, 2, 5]),
        progress=st.integers(0, 9), heard=st.sampled_from([0, 0, 0, 1, 7]), need=st.sampled_from([0, 5]),
    )  # fmt: skip
    def announce(self, who: str, digest: bytes, **said) -> None:
        message = Announce(digest=digest, size=-1, kind="blob", upstream="reg", repository="r", **said)
        if who in self.connected:
            before = self.said.get((who, digest))
            if message.wanting and not (before and before.wanting):
                # a new wish may be tried again after a second
                until = self.failed_until.get((who, digest), -1.0)
                self.failed_until[who, digest] = min(until, self.now + 1.0)
            self.said[who, digest] = message
        self.say(who, message, adopting=message)

    @rule(who=name, digest=blob, reason=st.sampled_from(REASONS), retry_s=st.integers(0, 20))
    def release(self, who: str, digest: bytes, reason: str, retry_s: int) -> None:
        said = self.said.get((who, digest))
        if said:
            if reason in ("denied", "missing", "unreachable", "wrong-bytes", "bad-answer"):
                self.failed_until[who, digest] = self.now + 30.0
            if reason in ("unwanted", "done"):
                self.said[who, digest] = replace(said, wanting=False)
        self.say(who, Release(digest, 0, reason, retry_s))

    @rule(who=name, digest=blob)
    def withdraw(self, who: str, digest: bytes) -> None:
        if who in self.connected:
            self.forget(who, digest)
        self.say(who, Withdraw(digest))

    @rule(who=name, digests=st.lists(blob, max_size=2))
    def holdings(self, who: str, digests: list[bytes]) -> None:
        if who in self.connected:
            for digest in digests:
                values = {"size": -1, "kind": "", "upstream": "", "repository": "", "primary": False}
                values |= {"wanting": False, "waiting": False, "stuck": False, "can_pull": False, "complete": True}
                self.said[who, digest] = Announce(digest=digest, term=0, progress=0, heard=0, need=0, **values)
        self.say(who, Holdings(tuple(digests)))

    @rule(seconds=st.sampled_from([0.05, 0.2, 1.0, 3.0, 11.0, 31.0]))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.1)
            self.told(self.directory.tick(self.now))

    @invariant()
    def a_holder_is_a_member(self) -> None:
        for digest in BLOBS:
            lease = self.directory.lease(digest)
            if lease:
                assert any(contact(n).node_id == lease[0] and (n, digest) in self.said for n in self.connected)

    @invariant()
    def the_counts_are_right(self) -> None:
        summary = self.directory.summary()
        assert summary["nodes"] == len(self.connected)
        assert summary["members"] == len(self.said)
        assert summary["blobs"] == len({digest for _, digest in self.said})
        assert summary["leases"] == sum(1 for digest in BLOBS if self.directory.lease(digest))


TestDirectoryMachine = DirectoryMachine.TestCase
TestDirectoryMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
