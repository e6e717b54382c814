"""Rarest piece first, then whoever has it; blind queues. What most naive clients do.

In rounds of one piece over one link:

1. Each node keeps up to REQUESTS out, one at an uploader. It chooses the rarest piece (as its neighbours have it, ties
   at random) that it neither has nor asked for, then any neighbour that has it: how long that one's queue is, it does
   not know.
2. Each uploader sends the head of its queue, first come, first served. A receiver takes one piece a round; an uploader
   that finds it taken loses the round. (In truth the two would share that downlink, and both be late.)
3. What came in a round is known to the neighbours before the next.

Upstream streams the pieces in order to one seeder. Kind to it: the seeder gives each piece away once before it gives
one twice, and nobody asks for what is gone. Not modelled: hedging, endgame, cancelling.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from random import Random

from simulations.models.case import Case, Outcome

NEIGHBOURS = 20
REQUESTS = 8
ROUNDS_MAX = 60  # times the pieces and doublings; a run that takes longer has a bug
SEEDER = 0


class Swarm:
    """Sets of pieces as integers: bit i is piece i."""

    def __init__(self, nodes: int, pieces: int, random: Random) -> None:
        self.random = random
        self.whole = (1 << pieces) - 1
        self.have = [0] * nodes
        self.asked = [0] * nodes  # pieces asked for and not yet here
        self.asked_at = [0] * nodes  # nodes asked, as a set of their numbers
        self.out = [0] * nodes
        self.claimed = 0  # the seeder's pieces that somebody has asked it for
        self.queues: list[deque[tuple[int, int]]] = [deque() for _ in range(nodes)]
        self.neighbours = _neighbours(nodes, random)
        self.ends = [0] * nodes
        self.round = 0

    def play_round(self, from_upstream: int) -> None:
        """`from_upstream`: the pieces that the seeder gets in this round."""
        self.round += 1
        hungry = [n for n in range(1, len(self.have)) if self.have[n] != self.whole and self.out[n] < REQUESTS]
        self.random.shuffle(hungry)
        for node in hungry:
            self._ask(node)
        came = self._send()
        self.have[SEEDER] |= from_upstream
        for node, piece in came:
            self.have[node] |= piece
            self.asked[node] ^= piece
            self.out[node] -= 1
            if self.have[node] == self.whole:
                self.ends[node] = self.round
        if from_upstream and self.have[SEEDER] == self.whole:
            self.ends[SEEDER] = self.round

    def _ask(self, node: int) -> None:
        wanted = self.whole & ~self.have[node] & ~self.asked[node]
        shown = {neighbour: self.have[neighbour] & wanted for neighbour in self.neighbours[node]}
        if SEEDER in shown and self.claimed != self.whole:
            shown[SEEDER] &= ~self.claimed
        planes = _counts(shown.values())
        free = [n for n, pieces in shown.items() if pieces and not self.asked_at[node] >> n & 1]
        while free and self.out[node] < REQUESTS:
            some = 0
            for neighbour in free:
                some |= shown[neighbour]
            some &= wanted
            if not some:
                return
            piece = self._rarest(planes, some)
            holders = [neighbour for neighbour in free if shown[neighbour] & piece]
            uploader = holders[int(self.random.random() * len(holders))]
            if uploader == SEEDER:
                self.claimed |= piece
            self.queues[uploader].append((node, piece))
            self.asked[node] |= piece
            self.asked_at[node] |= 1 << uploader
            self.out[node] += 1
            wanted &= ~piece
            free.remove(uploader)

    def _rarest(self, planes: Sequence[int], some: int) -> int:
        """A random one of those of `some` pieces that the fewest neighbours have."""
        for plane in reversed(planes):
            some = some & ~plane or some
        turn = int(self.random.random() * some.bit_length())
        high = some >> turn
        return (high & -high) << turn if high else some & -some

    def _send(self) -> list[tuple[int, int]]:
        """One piece from each uploader, in a random order, as far as its receiver still takes one."""
        senders = [node for node, queue in enumerate(self.queues) if queue]
        self.random.shuffle(senders)
        taken: set[int] = set()
        came: list[tuple[int, int]] = []
        for sender in senders:
            receiver, piece = self.queues[sender][0]
            if receiver not in taken:
                taken.add(receiver)
                self.queues[sender].popleft()
                self.asked_at[receiver] ^= 1 << sender
                came.append((receiver, piece))
        return came


def _counts(sets: Iterable[int]) -> list[int]:
    """How many sets have each piece, as binary numbers stood upright: bit i of plane k is bit k of piece i's count."""
    planes: list[int] = []
    for carry in sets:
        for place, plane in enumerate(planes):
            if not carry:
                break
            planes[place], carry = plane ^ carry, plane & carry
        if carry:
            planes.append(carry)
    return planes


def _neighbours(nodes: int, random: Random) -> list[list[int]]:
    """A random graph in which each node has at least min(NEIGHBOURS, N - 1) others."""
    chosen: list[set[int]] = [set() for _ in range(nodes)]
    least = min(NEIGHBOURS, nodes - 1)
    for node in range(nodes):
        while len(chosen[node]) < least:
            other = int(random.random() * nodes)
            if other != node:
                chosen[node].add(other)
                chosen[other].add(node)
    return [sorted(others) for others in chosen]


def rarest_first(case: Case) -> Outcome:
    """Runs until each node has all."""
    swarm = Swarm(case.nodes, case.pieces, Random(case.seed))
    arrived = 0
    last_round = ROUNDS_MAX * (case.arrives(case.pieces - 1) + case.nodes.bit_length())
    while 0 in swarm.ends:
        if swarm.round > last_round:
            raise AssertionError(f"rarest first did not end: {swarm.ends.count(0)} nodes left")
        arriving = 0
        while arrived < case.pieces and case.arrives(arrived) <= swarm.round + 1:
            arriving |= 1 << arrived
            arrived += 1
        swarm.play_round(arriving)
    ends = sorted(swarm.ends)
    return Outcome("rarest first", [end * case.round_s for end in ends], 1.0, ends[-1])
