"""A node's core under any sequence of what peers and trackers may send, while it wants blobs, pulls and uploads.

The core raises nothing, what it sends fits the wire, and its own invariants hold after each event.
"""

from __future__ import annotations

from random import Random

from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.messages import decode, encode
from p2pd.swarm.node import Node
from p2pd.swarm.settings import Settings
from tests.fuzz.draw import Draw
from tests.fuzz.drawn_messages import COUNT, DIGESTS, SIZE, any_message
from tests.swarm.fakes import contact, key, signer, true_states, verify

PEERS = {1: "a", 2: "b", 3: "stranger", 4: "tracker"}
STEPS_MAX = 400
QUEUE_MAX = 2000  # commands that one event may lead to


class _Owner:
    """What the daemon does for the core, as little of it as lets the core go on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.node = Node(contact("me"), key("me"), signer(key("me")), verify, Random(1), self.now, settings=Settings())
        self.up: set[int] = set()
        self.fetching: list[tuple[int, int]] = []
        self.uploading: list[tuple[int, int]] = []
        self.pulling: dict[bytes, int] = {}

    def event(self, event: ev.Event) -> None:
        waiting = [event]
        while waiting:
            done = self.node.handle(waiting.pop(0), self.now)
            assert len(done) <= QUEUE_MAX
            for blob in self.node.state.blobs.values():
                blob.check()
            for command in done:
                waiting += self._do(command)

    def _do(self, command: cmd.Command) -> list[ev.Event]:
        match command:
            case cmd.Send():
                assert decode(encode(command.message)[4:]) == command.message
            case cmd.Connect():
                return [ev.ConnectFailed(command.contact.node_id)]
            case cmd.Close() if command.peer in self.up:
                return self.down(command.peer)
            case cmd.Fetch() if command.peer in self.up:
                self.fetching.append((command.peer, command.rid))
            case cmd.Abandon():
                self.fetching = [pair for pair in self.fetching if pair != (command.peer, command.rid)]
            case cmd.Upload() if command.peer in self.up:
                self.uploading.append((command.peer, command.rid))
            case cmd.Pull():
                self.pulling[command.digest] = 0
            case cmd.StopPull() if command.digest in self.pulling:
                del self.pulling[command.digest]
                return [ev.PullEnded(command.digest, "stopped")]
            case cmd.ComputeChain():
                states = true_states(command.digest, COUNT)
                return [ev.ChainComputed(command.digest, tuple(states))]
        return []

    def pull_on(self, digest: bytes) -> None:
        """Upstream sends the next piece."""
        index, self.pulling[digest] = self.pulling[digest], self.pulling[digest] + 1
        if index < COUNT:
            self.event(ev.PieceStored(digest, index, true_states(digest, COUNT)[index + 1], 0.1))
        else:
            del self.pulling[digest]
            self.event(ev.PullEnded(digest, "end"))

    def down(self, peer: int) -> list[ev.Event]:
        self.up.discard(peer)
        self.fetching = [pair for pair in self.fetching if pair[0] != peer]
        ended = [pair for pair in self.uploading if pair[0] == peer]
        self.uploading = [pair for pair in self.uploading if pair[0] != peer]
        return [*(ev.UploadDone(peer, rid, 0, False) for _, rid in ended), ev.PeerDown(peer, "lost")]


def check(data: bytes) -> None:
    draw, owner, next_number = Draw(data), _Owner(), 10
    numbers = dict.fromkeys(PEERS.values(), 0)
    for _ in range(STEPS_MAX):
        if not draw:
            break
        name = draw.choice(tuple(numbers))
        peer, step = numbers[name], draw.number(15)
        if peer not in owner.up:
            peer = numbers[name] = next_number = next_number + 1
            owner.up.add(peer)
            owner.event(ev.PeerUp(peer, contact(name), key(name), draw.flag(), 0 if name == "tracker" else -1))
            if peer not in owner.up:  # it is avoided for what it did
                owner.now += Settings().avoid_s
        elif step == 0:
            for event in owner.down(peer):
                owner.event(event)
        elif step == 1:
            owner.event(
                ev.Want(draw.choice(DIGESTS), SIZE if draw.number(3) else -1, "blob", "reg", "app", 1, draw.flag())
            )
        elif step == 2 and not draw.number(7):
            owner.event(ev.Unwant(draw.choice(DIGESTS)))
        elif step == 3:
            owner.now += draw.number(255) / 16
            owner.event(ev.Tick())
        elif step == 4 and owner.fetching:
            number, rid = owner.fetching.pop(draw.number(len(owner.fetching) - 1))
            if owner.node.link(number, rid) is not None:
                owner.event(ev.PieceStarted(number, rid))
                owner.event(ev.PieceChecked(number, rid, draw.number(3) > 0))
        elif step == 5 and owner.uploading:
            number, rid = owner.uploading.pop(draw.number(len(owner.uploading) - 1))
            owner.event(ev.UploadDone(number, rid, 1 << 17, draw.flag()))
        elif step == 6 and owner.pulling:
            owner.pull_on(draw.choice(tuple(owner.pulling)))
        else:
            owner.event(ev.Received(peer, any_message(draw)))
