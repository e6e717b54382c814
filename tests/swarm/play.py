"""A node in a playbook: a column of events, and what it is to do about each. Peers go by name.

The blob that most playbooks are about has COUNT pieces. After each event the invariants are checked.
"""

from __future__ import annotations

from random import Random

from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.blob import Blob
from p2pd.swarm.messages import Answer, GetLinks, Have, Join, Message, Refuse, Request, Retract, Vouch
from p2pd.swarm.node import Node
from p2pd.swarm.pieces import Geometry, indices, pack
from p2pd.swarm.settings import Settings
from p2pd.swarm.voucher import make_retraction
from tests.swarm.fakes import contact, digest_of, key, signer, true_states, verify, vouch

BLOB = digest_of("blob")
COUNT = 10
SIZE = COUNT << 17
STATES = true_states(BLOB, COUNT)
LENGTH = 1 << 17
ALL = (1 << COUNT) - 1


class Play:
    """`done` is what the last event led to."""

    def __init__(self, name: str = "me", seed: int = 1, **settings: object) -> None:
        self.now = 100.0
        self.name = name
        self.numbers: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.done: list[cmd.Command] = []
        self.ever: list[cmd.Command] = []
        me = contact(name)
        self.node = Node(
            me, key(name), signer(key(name)), verify, Random(seed), self.now, settings=Settings(**settings)
        )

    # -- events -----------------------------------------------------------------------------------------------------

    def event(self, event: ev.Event) -> list[cmd.Command]:
        self.done = self.node.handle(event, self.now)
        self.ever += self.done
        for blob in self.node.state.blobs.values():
            blob.check()
        return self.done

    def up(self, name: str, outbound: bool = True) -> int:
        number = self.numbers[name] = len(self.names) + 1
        self.names[number] = name
        self.event(ev.PeerUp(number, contact(name), key(name), outbound))
        return number

    def tracker(self, name: str = "tracker", place: int = 0) -> int:
        number = self.numbers[name] = len(self.names) + 1
        self.names[number] = name
        self.event(ev.PeerUp(number, contact(name), key(name), True, place))
        return number

    def down(self, name: str) -> list[cmd.Command]:
        return self.event(ev.PeerDown(self.numbers[name], "lost"))

    def want(
        self, size: int = SIZE, clients: int = 1, can_pull: bool = True, digest: bytes = BLOB, **more: bool
    ) -> None:
        self.event(ev.Want(digest, size, "blob", "reg", "app", clients, can_pull, **more))

    def hear(self, name: str, message: Message) -> list[cmd.Command]:
        return self.event(ev.Received(self.numbers[name], message))

    def join(
        self, name: str, *pieces: int, wanting: bool = True, term: int = 0, load: int = 0, digest: bytes = BLOB
    ) -> None:
        held = sum(1 << i for i in pieces)
        self.hear(name, Join(digest, SIZE, pack(held, COUNT), wanting, term, load, 0))

    def have(self, name: str, *pieces: int, term: int = 0, load: int = 0, count: int = 0) -> None:
        self.hear(name, Have(BLOB, pieces, count, load, 0, term))

    def voucher(
        self, name: str, signed_by: str, first: int, end: int, states: list[bytes] = STATES, term: int = 1
    ) -> Vouch:
        """`name` hands on a voucher for links [first, end)."""
        message = vouch(signed_by, BLOB, SIZE, first, states[first : end + 1], term)
        self.hear(name, message)
        return message

    def lease(self, term: int = 1, fresh: bool = True, tracker: str = "tracker", digest: bytes = BLOB) -> None:
        self.wait(0)  # it announces first
        self.hear(tracker, Answer(digest, SIZE, contact(self.name).node_id, term, fresh, "", 0, ()))

    def answer(self, *peers: str, holder: str = "", term: int = 1, size: int = SIZE, failure: str = "") -> None:
        who = contact(holder).node_id if holder else b""
        self.hear("tracker", Answer(BLOB, size, who, term, False, failure, 0, tuple(map(contact, peers))))

    def checked(self, name: str, rid: int, held: bool = True) -> list[cmd.Command]:
        return self.event(ev.PieceChecked(self.numbers[name], rid, held))

    def misfit(self, name: str, rid: int, signed_by: str = "seeder") -> list[cmd.Command]:
        """A piece that does not fit; its sender, asked twice for its link, says the same one. What it all led to."""
        asked = self.node.downloads.get(self.numbers[name], rid)
        assert asked
        done = self.checked(name, rid, held=False)
        while self.sent(name, GetLinks):
            self.hear(name, vouch(signed_by, BLOB, SIZE, asked.index, STATES[asked.index : asked.index + 2]))
            done = done + self.done
        self.done = done
        return done

    def started(self, name: str, rid: int) -> list[cmd.Command]:
        return self.event(ev.PieceStarted(self.numbers[name], rid))

    def stored(self, *pieces: int, states: list[bytes] = STATES, seconds: float = 0.01) -> None:
        """This node's own pull got these."""
        for index in pieces:
            self.event(ev.PieceStored(BLOB, index, states[index + 1], seconds))

    def request(self, name: str, rid: int, index: int, linked: bool = False, sources: int = 1) -> list[cmd.Command]:
        return self.hear(name, Request(rid, BLOB, index, linked, sources))

    def uploaded(self, name: str, rid: int, whole: bool = True) -> list[cmd.Command]:
        return self.event(ev.UploadDone(self.numbers[name], rid, LENGTH if whole else 0, whole))

    def wait(self, seconds: float) -> list[cmd.Command]:
        """Let time pass, with a tick at each deadline; everything that was done meanwhile."""
        end, done = self.now + seconds, []
        for _ in range(10_000):
            if self.node.deadline > end:
                break
            self.now = max(self.now, self.node.deadline)
            done += self.event(ev.Tick())
        else:
            raise AssertionError("the node's deadline does not move")
        self.now = end
        self.done = done
        return done

    # -- questions --------------------------------------------------------------------------------------------------

    def blob(self, digest: bytes = BLOB) -> Blob:
        blob = self.node.blob(digest)
        assert blob is not None
        return blob

    def of(self, *kinds: type) -> list[cmd.Command]:
        """What was done of these kinds."""
        return [c for c in self.done if isinstance(c, kinds)]

    def sent(self, name: str, *kinds: type) -> list[Message]:
        """Messages of these kinds that went to that peer."""
        number = self.numbers[name]
        return [
            c.message
            for c in self.done
            if isinstance(c, cmd.Send) and c.peer == number and (not kinds or isinstance(c.message, kinds))
        ]

    def told(self, kind: type) -> dict[str, list[Message]]:
        """Messages of a kind, by name."""
        out: dict[str, list[Message]] = {}
        for c in self.done:
            if isinstance(c, cmd.Send) and isinstance(c.message, kind):
                out.setdefault(self.names[c.peer], []).append(c.message)
        return out

    def asked(self) -> dict[str, list[tuple[int, int]]]:
        """(rid, piece) of the requests that went out, by name."""
        return {name: [(m.rid, m.index) for m in messages] for name, messages in self.told(Request).items()}

    def refused(self, name: str) -> list[tuple[int, str]]:
        return [(m.rid, m.reason) for m in self.sent(name, Refuse)]

    def blamed(self) -> list[tuple[str, str]]:
        return [(c.name, c.reason) for c in self.of(cmd.Blame)]

    def set(self, pieces: int) -> list[int]:
        return list(indices(pieces))

    @property
    def present(self) -> list[int]:
        return list(indices(self.blob().present))


def retraction(name: str, term: int = 1) -> Retract:
    """What that node signed for the blob is void."""
    return make_retraction(signer(key(name)), key(name), BLOB, term)


def seeder(*neighbours: str, pieces: int = COUNT, **settings: object) -> Play:
    """A node that holds the lease of the blob; its neighbours want all of it; the pull has got `pieces` of it."""
    play = Play(**settings)
    play.tracker()
    play.want()
    for name in neighbours:
        play.up(name)
        play.join(name)
    play.lease()
    play.stored(*range(pieces))
    return play


def wanter(*neighbours: str, **settings: object) -> Play:
    """A node that wants the blob; each neighbour has all of it, and a voucher has told all links."""
    play = Play(**settings)
    play.tracker()
    play.want()
    for name in neighbours:
        play.up(name)
    if neighbours:
        play.hear(neighbours[0], vouch("seeder", BLOB, SIZE, 0, STATES))
    return play


assert Geometry.of(SIZE).count == COUNT
