"""One blob at one node: a piece is in exactly one state, and what is counted of the neighbours is what they have."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pd.swarm.blob import Blob, Neighbour, Want
from p2pd.swarm.peer import Peer
from p2pd.swarm.pieces import indices
from tests.swarm.fakes import contact, digest_of, key

COUNT = 12
ALL = (1 << COUNT) - 1
piece = st.integers(0, COUNT - 1)
pieces = st.integers(0, ALL)


def blob() -> Blob:
    b = Blob(digest_of("blob"))
    b.set_size(COUNT << 17)
    return b


def naive_counts(b: Blob) -> list[int]:
    return [sum(n.have >> i & 1 for n in b.neighbours.values()) for i in range(COUNT)]


class BlobMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.blob = blob()
        self.next_peer = 1

    # -- pieces

    @rule(index=piece)
    def fly(self, index: int) -> None:
        if (self.blob.missing | self.blob.flying) >> index & 1:
            self.blob.fly(index)

    @rule(index=piece)
    def land(self, index: int) -> None:
        out = self.blob.copies.get(index, 0)
        self.blob.land(index)
        assert self.blob.copies.get(index, 0) == max(0, out - 1)

    @rule(index=piece)
    def arrive(self, index: int) -> None:
        self.blob.arrive(index)
        assert self.blob.present >> index & 1

    @rule(some=pieces)
    def plan_pull(self, some: int) -> None:
        planned = some & self.blob.missing
        self.blob.plan_pull(some)
        assert self.blob.pulling & planned == planned

    @rule()
    def end_pull(self) -> None:
        self.blob.end_pull()
        assert not self.blob.pulling

    @rule(some=pieces)
    def lose(self, some: int) -> None:
        if self.blob.complete:
            return  # proven: nothing can refute it, and its neighbours are not counted any more
        expected = self.blob.present & some
        assert self.blob.lose(some) == expected

    # -- neighbours

    @rule()
    def join(self) -> None:
        if len(self.blob.neighbours) < 5:
            name = f"n{self.next_peer}"
            self.blob.neighbours[self.next_peer] = Neighbour(Peer(self.next_peer, contact(name), key(name), True, -1))
            self.next_peer += 1

    @rule(data=st.data(), some=pieces)
    def has(self, data: st.DataObject, some: int) -> None:
        if self.blob.neighbours:
            neighbour = self.blob.neighbours[data.draw(st.sampled_from(sorted(self.blob.neighbours)))]
            new = some & ~neighbour.have
            assert self.blob.neighbour_has(neighbour, some) == new
            assert neighbour.have & some == some

    @rule(data=st.data(), some=pieces)
    def lacks(self, data: st.DataObject, some: int) -> None:
        if self.blob.neighbours:
            neighbour = self.blob.neighbours[data.draw(st.sampled_from(sorted(self.blob.neighbours)))]
            self.blob.neighbour_lacks(neighbour, some)
            assert not neighbour.have & some

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.blob.neighbours:
            self.blob.remove_neighbour(data.draw(st.sampled_from(sorted(self.blob.neighbours))))

    # -- what must hold

    @invariant()
    def a_piece_is_in_exactly_one_state(self) -> None:
        self.blob.check()

    @invariant()
    def the_counts_are_what_the_neighbours_have(self) -> None:
        counts = [sum((bits >> i & 1) << place for place, bits in enumerate(self.blob.counts)) for i in range(COUNT)]
        assert counts == naive_counts(self.blob)

    @invariant()
    def the_rarest_is_the_rarest(self) -> None:
        if not self.blob.complete and self.blob.missing:
            index = self.blob.rarest(self.blob.missing, Random(1))
            assert self.blob.missing >> index & 1
            counts = naive_counts(self.blob)
            assert counts[index] == min(counts[i] for i in indices(self.blob.missing))

    @invariant()
    def available_is_the_union(self) -> None:
        assert self.blob.available() == sum(1 << i for i, n in enumerate(naive_counts(self.blob)) if n)


TestBlobMachine = BlobMachine.TestCase
TestBlobMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_blob_whose_size_is_unknown() -> None:
    b = Blob(digest_of("blob"))
    b.check()
    assert not b.complete
    assert not b.hungry
    b.want = Want("blob", "reg", "r", 1, True, False)
    assert b.hungry


def test_the_size_is_known_once() -> None:
    b = blob()
    b.fly(3)
    b.set_size(99 << 17)
    assert b.geometry.count == COUNT
    assert b.flying == 1 << 3


def test_two_copies_in_flight() -> None:
    b = blob()
    b.fly(3)
    b.fly(3)
    b.land(3)
    assert b.flying == 1 << 3
    b.land(3)
    assert b.missing == ALL
    b.land(3)
    b.check()


def test_a_piece_that_is_present_is_not_asked_for() -> None:
    b = blob()
    b.arrive(3)
    with pytest.raises(AssertionError):
        b.fly(3)


def test_the_check_finds_a_piece_in_two_states() -> None:
    b = blob()
    b.present |= 1
    with pytest.raises(AssertionError):
        b.check()


def test_what_is_lost_is_not_computed_either() -> None:
    b = blob()
    for i in (1, 2, 3):
        b.arrive(i)
    b.computed = 0b1110
    assert b.lose(1 << 2 | 1 << 9) == 1 << 2
    assert b.present == 1 << 1 | 1 << 3
    assert b.computed == 1 << 1 | 1 << 3
