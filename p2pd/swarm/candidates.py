"""Which nodes and trackers are there to be asked as directories: those that can be reached, and that answer.

mDNS shows a machine for minutes after it has lost its power or its network, and TCP takes as long as the connection's
own bound to notice. So a member that does not answer a call is done without until it does, and a directory that leaves
announcements without an answer is, until it says something, or for a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pd.swarm.messages import Contact
from p2pd.swarm.state import NEVER

CALL_WAIT_S: Final = 2.0  # for a call to be answered; on one network, which is as far as mDNS goes, it takes no more
AHEAD_S: Final = 0.2  # after so long without an answer the next ones are called, too
AHEAD: Final = 8  # ... so many: where a rack is dark, one after the other would take too long
RECALL_S: Final = 10.0  # until a member that can't be reached is called again; twice as long each time,
RECALL_MAX_S: Final = 160.0  # ... up to this
RECALLS_PER_S: Final = 1.0  # for all of them together
ASK_AGAIN_S: Final = 1.0  # between two announcements that both count as left without an answer
ANSWER_WAIT_S: Final = 1.0  # for the answer to the second: a directory answers at once
LOST_WAIT_S: Final = 6.0  # ... for that of a tracker, where there is no other one: without it nodes may disagree
STALE_S: Final = 60.0  # after a call was due, or an answer: what was seen so long ago says nothing any more


@dataclass(slots=True)
class Call:
    """A member that was called, and has not answered."""

    since: float
    again_at: float
    pause_s: float = RECALL_S
    failed: bool = False


@dataclass(slots=True)
class Unheard:
    """When a directory was first told of something since it last answered, and when of something more."""

    since: float
    again_at: float = NEVER


class Candidates:
    """`members`: what mDNS has found. Directories are connections, by their number."""

    def __init__(self) -> None:
        self.members: dict[bytes, Contact] = {}
        self._calls: dict[bytes, Call] = {}
        self._unheard: dict[int, Unheard] = {}
        self._recall_at = 0.0

    # -- members ------------------------------------------------------------------------------------------------------

    def found(self, contacts: tuple[Contact, ...]) -> None:
        """The whole view. Who is new in it, or at another place, was not called yet."""
        before = self.members
        self.members = {c.node_id: c for c in contacts}
        self._calls = {n: call for n, call in self._calls.items() if n in self.members and self._is_as(before, n)}

    def _is_as(self, before: dict[bytes, Contact], node: bytes) -> bool:
        old, new = before[node], self.members[node]
        return (old.host, old.port) == (new.host, new.port)

    def called(self, node: bytes, now: float) -> Contact:
        """Its contact, to call it; from now on it has little time to answer."""
        call = self._call_of(node, now) or Call(now, now + RECALL_S)
        self._calls[node] = call
        if call.again_at <= now:
            call.again_at = now + call.pause_s
        return self.members[node]

    def unreachable(self, node: bytes, now: float) -> None:
        """A call failed."""
        if node not in self.members:
            return
        call = self._call_of(node, now) or Call(now, now)
        self._calls[node] = call
        if call.failed:
            call.pause_s = min(2 * call.pause_s, RECALL_MAX_S)
        call.failed = True
        call.again_at = now + call.pause_s

    def reached(self, node: bytes) -> None:
        self._calls.pop(node, None)

    def is_waited_for_long(self, node: bytes, now: float) -> bool:
        """Whether a call may well come to nothing, so that others are to be called meanwhile."""
        call = self._call_of(node, now)
        return call is not None and now - call.since >= AHEAD_S

    def reachable(self, now: float) -> set[bytes]:
        """The members that were not called yet, or only a moment ago."""
        if not self._calls:
            return set(self.members)
        return {node for node in self.members if not self._is_out(node, now)}

    def _is_out(self, node: bytes, now: float) -> bool:
        call = self._call_of(node, now)
        return call is not None and (call.failed or now - call.since > CALL_WAIT_S)

    def _call_of(self, node: bytes, now: float) -> Call | None:
        """What came of the last call, unless nobody has wanted to know for long: the node may be back since."""
        call = self._calls.get(node)
        return call if call and now < call.again_at + STALE_S else None

    def to_recall(self, now: float) -> Contact | None:
        """One of those that did not answer, whose time has come again."""
        if not self._calls or now < self._recall_at:
            return None
        for node, call in self._calls.items():
            if call.again_at <= now:
                self._recall_at = now + 1 / RECALLS_PER_S
                return self.called(node, now)
        return None

    # -- directories --------------------------------------------------------------------------------------------------

    def asked(self, peer: int, now: float) -> None:
        """It was told of something, and is to answer."""
        unheard = self._unheard.get(peer)
        if unheard is None or now - unheard.again_at >= STALE_S:
            self._unheard[peer] = Unheard(now)
        elif unheard.again_at == NEVER and now - unheard.since >= ASK_AGAIN_S:
            unheard.again_at = now

    def heard(self, peer: int, now: float) -> bool:
        """It answers, or is gone. True if it was done without."""
        was_silent = self.is_silent(peer, now)
        self._unheard.pop(peer, None)
        return was_silent

    def is_silent(self, peer: int, now: float) -> bool:
        """Whether another one, if there is one, is to be asked in its place."""
        return ANSWER_WAIT_S <= self._waited_s(peer, now) < STALE_S

    def is_lost(self, peer: int, now: float) -> bool:
        """Whether it is to be done without in any case."""
        return LOST_WAIT_S <= self._waited_s(peer, now) < STALE_S

    def _waited_s(self, peer: int, now: float) -> float:
        unheard = self._unheard.get(peer)
        return now - unheard.again_at if unheard else -NEVER

    def silent(self, now: float) -> set[int]:
        return {peer for peer in self._unheard if self.is_silent(peer, now)}

    def changes_at(self, now: float) -> float:
        """When the next of them counts as silent, or as lost."""
        starts = [unheard.again_at for unheard in self._unheard.values()]
        times = [at + wait_s for at in starts for wait_s in (ANSWER_WAIT_S, LOST_WAIT_S)]
        return min((at for at in times if at > now), default=NEVER)
