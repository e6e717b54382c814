"""The hypercube schedule: the yardstick. No swarm ends sooner, and one death stops half of it.

In a round each node sends one piece and receives one. With upstream there are n = N + 1 participants, and no schedule
needs fewer than M - 1 + ceil(log2 n) = M + floor(log2 N) rounds: the last piece leaves upstream in round M at the
earliest, and from then on its holders can at most double. This one needs just that, for any N and M:

- the participants stand on the 2^m corners of a cube, m = floor(log2 n), upstream alone on corner 0, the others one or
  two to a corner (n < 2^(m+1), so there are never more than pairs);
- in round t the corners exchange along dimension t mod m: upstream sends piece t (the last one again, when there is no
  other), each other corner the highest piece that it has. After M - 1 + m rounds each corner has all pieces;
- a pair shares one corner's work: one piece out and one in a round, which leaves it one send and one receive inside.
  Let each of the two have at most one piece that its twin lacks. If the piece to go out is such a one, its owner sends
  it; if not, the one sends whose twin has something to hand over. The other hands its own piece over, if it has one,
  and takes the piece from outside: again each has at most one that its twin lacks. One more round, without anything
  from outside, evens the two out. So n that is no power of two takes M + m = M + floor(log2 N) rounds; and one that is
  has no pairs, and takes M - 1 + m, which is the same.

(Ganesan and Seshadri, "On cooperative content distribution and the price of barter", ICDCS 2005, give the cube and the
pairs.) `hypercube` does not rest on the proof: it carries the schedule out, and counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulations.models.case import Case, Outcome


class ScheduleError(AssertionError):
    """The schedule did what a node can't do, or did not end when it must: a bug of ours."""


def hypercube_rounds(nodes: int, pieces: int) -> int:
    """What the schedule needs, by the formula."""
    return pieces + nodes.bit_length() - 1


@dataclass(slots=True)
class Corner:
    """One node, or a pair. Sets of pieces as integers, bit i is piece i. `ends`: each node's last round."""

    have: list[int]
    ends: list[int]

    @property
    def all(self) -> int:
        return self.have[0] | self.have[-1]

    @property
    def is_pair(self) -> bool:
        return len(self.have) == 2


def _highest(pieces: int) -> int:
    return 1 << (pieces.bit_length() - 1) if pieces else 0


def _share(corner: Corner, out: int, coming: int) -> None:
    """A pair's round: `out` goes outside, `coming` comes from there (bits; 0 for none). See the proof above."""
    first, second = corner.have
    owned = [first & ~second, second & ~first]  # what each could hand over; at most one piece
    if owned[0].bit_count() > 1 or owned[1].bit_count() > 1:
        raise ScheduleError("a pair has drifted apart by more than a piece each")
    if not out and not coming:
        giving = [True, True]
    elif out == owned[1] or (owned[0] and out != owned[0]):
        giving = [True, False]  # node 1 sends outside; node 0 hands over, and receives from outside
    else:
        giving = [False, True]
    for node, gives in enumerate(giving):
        if gives:
            corner.have[1 - node] |= owned[node]
    giver = 0 if giving[0] else 1
    corner.have[giver] |= coming


def _play_round(corners: list[Corner], bit: int, source: int, number: int, whole: int) -> int:
    """One round along dimension `bit`. Returns the pieces that upstream sent (0 or 1)."""
    outs = [source, *(_highest(corner.all) for corner in corners[1:])]
    sent = 0
    for place in range(len(corners)):
        partner = place ^ bit
        if outs[place] and (partner == 0 or outs[place] & corners[partner].all):
            outs[place] = 0
        elif place == 0:
            sent = 1
    for place, corner in enumerate(corners[1:], 1):
        coming = outs[place ^ bit]
        if corner.is_pair:
            _share(corner, outs[place], coming)
        else:
            corner.have[0] |= coming
        for node, have in enumerate(corner.have):
            if have == whole and not corner.ends[node]:
                corner.ends[node] = number
    return sent


def play(nodes: int, pieces: int, rounds: int = 0) -> tuple[list[int], int]:
    """Carries the schedule out: each node's last round, ascending, and how many pieces upstream sent.

    ScheduleError if it does not end in `rounds`, by default M + floor(log2 N).
    """
    dimensions = (nodes + 1).bit_length() - 1
    count = 1 << dimensions
    doubled = nodes + 1 - count
    corners = [Corner([0], [0])]
    corners += [Corner([0, 0], [0, 0]) if place <= doubled else Corner([0], [0]) for place in range(1, count)]
    whole, sent = (1 << pieces) - 1, 0
    for number in range(1, (rounds or hypercube_rounds(nodes, pieces)) + 1):
        source = 1 << (min(number, pieces) - 1)
        sent += _play_round(corners, 1 << (number % dimensions), source, number, whole)
    ends = sorted(end for corner in corners[1:] for end in corner.ends)
    if not ends[0]:
        raise ScheduleError(f"{ends.count(0)} of {nodes} nodes had not all {pieces} pieces in time")
    return ends, sent


def hypercube(case: Case) -> Outcome:
    """Each round takes one piece's time; where upstream is slower than the links, its pace sets that of the first M."""
    ends, sent = play(case.nodes, case.pieces)
    pace = case.size / case.pieces / min(case.upstream, case.link)
    seconds = [min(end, case.pieces) * pace + max(0, end - case.pieces) * case.round_s for end in ends]
    return Outcome("hypercube", seconds, sent / case.pieces, ends[-1])
