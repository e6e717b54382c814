"""The chain of states: what is taken in, what contradicts, what a retraction takes with it."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pd.swarm.chain import INITIAL_STATE, RETRACTED_MAX, Chain
from p2pd.swarm.pieces import Geometry, indices
from tests.swarm.fakes import digest_of, key, true_states, vouch

BLOB = digest_of("blob")
COUNT = 10
SIZE = COUNT << 17
STATES = true_states(BLOB, COUNT)
WRONG = [INITIAL_STATE, *(bytes([i]) * 32 for i in range(1, COUNT)), BLOB]


def chain() -> Chain:
    assert Geometry.of(SIZE).count == COUNT
    return Chain(BLOB, COUNT)


def links(c: Chain) -> set[int]:
    return {i for i in range(COUNT) if c.link(i)}


def take(c: Chain, voucher) -> None:
    assert c.accepts(voucher, SIZE) is None
    c.add(voucher)


def test_the_ends_are_known() -> None:
    c = chain()
    assert c.states == {0: INITIAL_STATE, COUNT: BLOB}
    assert links(c) == set()


def test_a_blob_of_one_piece_needs_no_word() -> None:
    assert Chain(BLOB, 1).link(0) == (INITIAL_STATE, BLOB)


def test_a_voucher_makes_links() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 2, STATES[2:6]))
    assert links(c) == {2, 3, 4}
    assert c.link(3) == (STATES[3], STATES[4])


def test_links_that_meet_join() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 0, STATES[0:4]))
    take(c, vouch("b", BLOB, SIZE, 4, STATES[4:]))
    assert links(c) == set(range(COUNT))  # link 3 needs both
    assert 3 not in c.vouchers or c.vouchers[3].key == key("a")


def test_what_is_not_for_this_blob() -> None:
    c = chain()
    for voucher in (
        vouch("a", digest_of("other"), SIZE, 0, STATES[:3]),
        vouch("a", BLOB, SIZE + 1, 0, STATES[:3]),
        vouch("a", BLOB, SIZE, COUNT - 1, [*STATES[COUNT - 1 :], bytes(32)]),
    ):
        assert c.accepts(voucher, SIZE) == "a voucher for another blob"


def test_what_contradicts_is_refused() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 2, STATES[2:6]))
    assert "contradicts" in c.accepts(vouch("b", BLOB, SIZE, 4, [STATES[4], bytes(32), bytes(32)]), SIZE)
    assert "contradicts" in c.accepts(vouch("b", BLOB, SIZE, 0, [bytes(32), STATES[1]]), SIZE)  # another state 0
    assert "contradicts" in c.accepts(vouch("b", BLOB, SIZE, COUNT - 1, [STATES[COUNT - 1], bytes(32)]), SIZE)
    assert c.accepts(vouch("b", BLOB, SIZE, 4, [*STATES[4:6], bytes(32)]), SIZE) is None


def test_the_first_voucher_of_a_link_stays() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 0, STATES[:4]))
    take(c, vouch("b", BLOB, SIZE, 2, STATES[2:6]))
    assert [c.vouchers[i].key for i in range(5)] == [key("a")] * 3 + [key("b")] * 2


def test_own_links() -> None:
    c = chain()
    assert c.extend(0, STATES[1])
    assert c.extend(0, STATES[1])
    assert not c.extend(0, bytes(32))
    assert c.link(0) == (INITIAL_STATE, STATES[1])
    assert not c.extend(COUNT - 1, bytes(32))  # the digest is missed
    assert c.extend(COUNT - 1, BLOB)


def test_a_retraction_takes_what_stands_on_it() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 0, STATES[0:4]))
    take(c, vouch("b", BLOB, SIZE, 3, STATES[3:7]))
    take(c, vouch("c", BLOB, SIZE, 6, STATES[6:]))
    assert c.retract(key("b"), 1) >= set(range(3, COUNT))
    assert links(c) == {0, 1, 2}
    assert STATES[4] not in c.states.values()
    assert c.states[COUNT] == BLOB


def test_a_retraction_of_nothing_takes_nothing() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 0, STATES[0:4]))
    c.extend(3, STATES[4])
    assert c.retract(key("stranger"), 5, own=1 << 3) == set()
    assert links(c) == {0, 1, 2, 3}


def test_own_links_stay_when_a_stranger_vouched_for_them_too() -> None:
    c = chain()
    for i in range(4):
        c.extend(i, STATES[i + 1])
    take(c, vouch("stranger", BLOB, SIZE, 0, STATES[0:4]))
    assert c.retract(key("stranger"), 5, own=0b1111) == set()
    assert links(c) == {0, 1, 2, 3}
    assert not c.vouchers  # to be signed anew, by who computed them


def test_own_links_go_when_they_stand_on_it() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 0, WRONG[0:4]))
    c.extend(3, WRONG[4])
    assert c.retract(key("a"), 1, own=1 << 3) >= {0, 1, 2, 3}
    assert links(c) == set()


def test_what_was_taken_back_is_not_taken_in_again() -> None:
    c = chain()
    c.retract(key("a"), 3)
    assert "took back" in c.accepts(vouch("a", BLOB, SIZE, 0, STATES[:3], term=3), SIZE)
    take(c, vouch("a", BLOB, SIZE, 0, STATES[:3], term=4))
    c.retract(key("a"), 3)  # an old one, once more
    assert links(c) == {0, 1}


def test_what_is_void_may_be_taken_in_again() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 0, STATES[:5]))
    assert c.void(key("a"), 1) >= {0, 1, 2, 3}
    assert links(c) == set()
    take(c, vouch("a", BLOB, SIZE, 0, STATES[:3]))
    assert links(c) == {0, 1}


def test_an_old_retraction_does_not_weaken_a_new_one() -> None:
    c = chain()
    c.retract(key("a"), 3)
    c.retract(key("a"), 1)
    assert "took back" in c.accepts(vouch("a", BLOB, SIZE, 0, STATES[:3], term=2), SIZE)


def test_the_list_of_the_retracted_is_bounded() -> None:
    c = chain()
    for i in range(RETRACTED_MAX + 10):
        c.retract(key(str(i)), 1)
    assert len(c.retracted) == RETRACTED_MAX
    take(c, vouch("late", BLOB, SIZE, 0, STATES[:3]))
    assert c.retract(key("late"), 1) >= {0, 1}  # not remembered, but heeded


def test_forgetting_all() -> None:
    c = chain()
    take(c, vouch("a", BLOB, SIZE, 0, STATES))
    assert c.forget(set(range(COUNT))) == set(range(COUNT))
    assert c.states == {0: INITIAL_STATE, COUNT: BLOB}
    assert not c.vouchers


class ChainMachine(RuleBasedStateMachine):
    """Pieces come to rest on links; no state changes under one that is present."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = chain()
        self.present: dict[int, tuple[bytes, bytes]] = {}
        self.own = 0

    def lose(self, lost: set[int]) -> None:
        for index in lost:
            self.present.pop(index, None)
            self.own &= ~(1 << index)

    @rule(
        name=st.sampled_from("abc"),
        first=st.integers(0, COUNT - 1),
        length=st.integers(1, 5),
        term=st.integers(1, 3),
        lie=st.booleans(),
    )
    def hear(self, name: str, first: int, length: int, term: int, lie: bool) -> None:
        source = WRONG if lie else STATES
        voucher = vouch(name, BLOB, SIZE, first, source[first : first + length + 1], term)
        if self.chain.accepts(voucher, SIZE) is None:
            self.chain.add(voucher)
            assert all(self.chain.link(i) for i in range(first, first + len(voucher.states) - 1))

    @rule(index=st.integers(0, COUNT - 1))
    def arrive(self, index: int) -> None:
        link = self.chain.link(index)
        if link and (index in self.chain.vouchers or self.own >> index & 1):
            self.present[index] = link

    @rule(index=st.integers(0, COUNT - 1), lie=st.booleans())
    def compute(self, index: int, lie: bool) -> None:
        if index in self.chain.states and self.chain.extend(index, (WRONG if lie else STATES)[index + 1]):
            self.own |= 1 << index
            self.present[index] = self.chain.link(index)

    @rule(name=st.sampled_from("abcd"), term=st.integers(1, 3))
    def retract(self, name: str, term: int) -> None:
        self.lose(self.chain.retract(key(name), term, self.own))

    @rule(some=st.sets(st.integers(0, COUNT - 1), max_size=4))
    def forget(self, some: set[int]) -> None:
        self.lose(self.chain.forget(some, self.own))

    @invariant()
    def no_state_changes_under_a_present_piece(self) -> None:
        for index, link in self.present.items():
            assert self.chain.link(index) == link

    @invariant()
    def the_ends_stay(self) -> None:
        assert self.chain.states[0] == INITIAL_STATE
        assert self.chain.states[COUNT] == BLOB

    @invariant()
    def nothing_rests_on_what_was_taken_back(self) -> None:
        for voucher in self.chain.vouchers.values():
            assert voucher.term > self.chain.retracted.get(voucher.key, -1)

    @invariant()
    def own_links_are_known(self) -> None:
        assert all(self.chain.link(i) for i in indices(self.own))


TestChainMachine = ChainMachine.TestCase
TestChainMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
