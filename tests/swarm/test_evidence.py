"""What convicts a signer and what does not; and the bounds on what is kept for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pd.swarm.evidence import (
    ACCUSATIONS_MAX,
    ACCUSATIONS_S,
    BARRED_S,
    CASES_MAX,
    CASES_S,
    DOUBTED_MAX,
    DOUBTED_OF_SIGNER_MAX,
    SIGNERS_MAX,
    Accusations,
    Cases,
    Doubted,
    accusation,
    accused,
    false_link,
)
from tests.swarm.fakes import digest_of, key, true_states, vouch

BLOB = digest_of("blob")
COUNT = 10
SIZE = COUNT << 17
STATES = true_states(BLOB, COUNT)
PROVEN = dict(enumerate(STATES))
FALSE = [bytes([i + 1]) * 32 for i in range(COUNT + 1)]


def test_a_true_voucher_convicts_nobody() -> None:
    for first in range(COUNT):
        for end in range(first + 1, COUNT + 1):
            assert false_link(vouch("a", BLOB, SIZE, first, STATES[first : end + 1]), PROVEN) is None


def test_the_first_false_link_convicts() -> None:
    states = [*STATES[2:5], *FALSE[5:8]]
    assert false_link(vouch("a", BLOB, SIZE, 2, states), PROVEN) == 4


def test_who_builds_on_anothers_false_states_answers_for_none_of_them() -> None:
    assert false_link(vouch("heir", BLOB, SIZE, 4, FALSE[4:8]), PROVEN) is None
    assert false_link(vouch("heir", BLOB, SIZE, 8, [FALSE[8], FALSE[9], BLOB]), PROVEN) is None  # it ends in the digest


def test_a_link_that_leads_back_to_the_true_chain_is_false_where_it_left_it() -> None:
    states = [STATES[2], FALSE[3], FALSE[4], STATES[5], STATES[6]]
    assert false_link(vouch("a", BLOB, SIZE, 2, states), PROVEN) == 2


def test_a_true_state_at_another_place_is_no_true_state() -> None:
    assert false_link(vouch("a", BLOB, SIZE, 3, [STATES[2], FALSE[4]]), PROVEN) is None


def test_a_voucher_beyond_the_end_convicts_nobody_beyond_it() -> None:
    assert false_link(vouch("a", BLOB, SIZE, COUNT - 1, [STATES[COUNT - 1], BLOB, FALSE[0]]), PROVEN) is None


@given(st.data())
def test_a_conviction_names_a_link_whose_state_before_is_true_and_whose_state_after_is_not(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, COUNT - 1))
    length = data.draw(st.integers(1, COUNT - first))
    lies = data.draw(st.lists(st.booleans(), min_size=length + 1, max_size=length + 1))
    states = [(FALSE if lie else STATES)[first + i] for i, lie in enumerate(lies)]
    index = false_link(vouch("a", BLOB, SIZE, first, states), PROVEN)
    guilty = [first + i for i in range(length) if not lies[i] and lies[i + 1]]
    assert index == (guilty[0] if guilty else None)


def test_the_judgement_names_each_signer_once_by_its_lowest_link() -> None:
    doubted = Doubted()
    doubted.keep(
        [
            vouch("liar", BLOB, SIZE, 6, [STATES[6], FALSE[7]]),
            vouch("liar", BLOB, SIZE, 2, [STATES[2], FALSE[3]]),
            vouch("other", BLOB, SIZE, 0, [STATES[0], FALSE[1]]),
            vouch("honest", BLOB, SIZE, 0, STATES[:5]),
            vouch("heir", BLOB, SIZE, 3, FALSE[3:6]),
        ]
    )
    assert {(v.key, index) for v, index in doubted.judge(PROVEN)} == {(key("liar"), 2), (key("other"), 0)}


def test_what_is_kept_is_bounded_for_each_signer_and_in_all() -> None:
    doubted = Doubted()
    flood = [vouch("liar", BLOB, SIZE, 0, [STATES[0], FALSE[1]], term=t) for t in range(DOUBTED_OF_SIGNER_MAX + 50)]
    doubted.keep(flood)
    doubted.keep(flood)
    assert len(doubted.vouchers) == DOUBTED_OF_SIGNER_MAX
    assert doubted.has_room_for(vouch("b", BLOB, SIZE, 0, STATES[:2]))
    doubted.keep(vouch(f"n{i}", BLOB, SIZE, 0, [STATES[0], FALSE[1]]) for i in range(DOUBTED_MAX))
    assert len(doubted.vouchers) == DOUBTED_MAX


def test_one_case_may_be_its_upstreams_fault_two_are_refused_for_a_while() -> None:
    cases = Cases()
    assert cases.add(key("a"), digest_of("1"), 100.0) == 1
    assert not cases.is_barred(key("a"), 100.0)
    assert cases.add(key("a"), digest_of("1"), 110.0) == 0  # the same one again
    assert not cases.is_barred(key("a"), 110.0)
    assert cases.add(key("a"), digest_of("2"), 120.0) == 2
    assert cases.is_barred(key("a"), 120.0)
    assert not cases.is_barred(key("b"), 120.0)
    assert not cases.is_barred(key("a"), 121.0 + BARRED_S)


def test_old_cases_and_those_of_another_upstream_do_not_count() -> None:
    cases = Cases()
    cases.add(key("a"), digest_of("1"), 100.0)
    cases.add(key("a"), digest_of("2"), 101.0 + CASES_S)
    assert not cases.is_barred(key("a"), 102.0 + CASES_S)
    cases.add(key("b"), digest_of("1"), 100.0)
    assert cases.add(key("b"), digest_of("2"), 100.0, counts=False) == 2  # known, and named
    assert not cases.is_barred(key("b"), 101.0)


def test_cases_are_bounded() -> None:
    cases = Cases()
    assert sum(bool(cases.add(key("a"), digest_of(str(i)), 0.0)) for i in range(CASES_MAX + 5)) == CASES_MAX
    signers = sum(bool(cases.add(key(str(i)), BLOB, 0.0)) for i in range(SIGNERS_MAX + 5))
    assert signers == SIGNERS_MAX - 1


def test_a_peer_may_accuse_so_often_and_no_oftener() -> None:
    accusations = Accusations()
    assert sum(accusations.admits(1, 5.0) for _ in range(50)) == ACCUSATIONS_MAX
    assert accusations.admits(2, 5.0)
    assert accusations.admits(1, 5.0 + ACCUSATIONS_S)
    accusations.forget(2)


def test_an_accusation_is_the_voucher_and_nothing_else() -> None:
    voucher = vouch("a", BLOB, SIZE, 3, STATES[3:6], term=4)
    assert accused(accusation(voucher)) == voucher
