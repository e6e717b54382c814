"""A tracker's directory under any sequence of what its nodes may send: it answers on the wire, within its bounds."""

from __future__ import annotations

from random import Random

from p2pd.swarm.directory import BLOBS_PER_NODE, Directory
from p2pd.swarm.messages import PEERS_MAX, Announce, Answer, Holdings, Message, Release, Withdraw, decode, encode
from tests.fuzz.draw import Draw
from tests.fuzz.drawn_messages import DIGESTS, any_message
from tests.swarm.fakes import contact

NAMES = ("a", "b", "c")


def check(data: bytes) -> None:
    draw = Draw(data)
    directory, now = Directory(Random(1), 10.0), 10.0
    here: set[str] = set()
    while draw:
        who = draw.choice(NAMES)
        step = draw.number(9)
        if who not in here:
            directory.connected(contact(who))
            here.add(who)
        elif step == 0:
            here.discard(who)
            _check(directory.disconnected(contact(who).node_id, now), here)
        elif step == 1:
            now += draw.number(255) / 8
            _check(directory.tick(now), here)
        else:
            message = any_message(draw, (Announce, Release, Withdraw, Holdings) if step < 8 else ())
            _check(directory.handle(contact(who).node_id, message, now), here)
        for digest in DIGESTS:
            lease = directory.lease(digest)
            assert lease is None or lease[0] in {contact(name).node_id for name in here}
    assert directory.summary()["blobs"] <= BLOBS_PER_NODE * len(NAMES)


def _check(out: list[tuple[bytes, Message]], here: set[str]) -> None:
    known = {contact(name).node_id for name in here}
    for node, message in out:
        assert node in known and isinstance(message, Answer)
        assert decode(encode(message)[4:]) == message
        assert len(message.peers) <= PEERS_MAX
        assert all(peer.node_id in known - {node} for peer in message.peers)
