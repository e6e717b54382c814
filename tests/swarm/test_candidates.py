"""Which members and directories are there to be asked: by what came of calling and asking them."""

from __future__ import annotations

from p2pd.swarm.candidates import ANSWER_WAIT_S, ASK_AGAIN_S, CALL_WAIT_S, RECALL_MAX_S, RECALL_S, STALE_S, Candidates
from p2pd.swarm.messages import Contact
from tests.swarm.fakes import contact

A, B = contact("a"), contact("b")


def candidates(*members: Contact) -> Candidates:
    made = Candidates()
    made.found(members)
    return made


def test_who_does_not_answer_a_call_is_done_without_until_it_is_there() -> None:
    c = candidates(A, B)
    c.called(A.node_id, 100.0)
    c.called(A.node_id, 101.0)
    assert c.reachable(100.0 + CALL_WAIT_S) == {A.node_id, B.node_id}
    assert c.reachable(100.1 + CALL_WAIT_S) == {B.node_id}
    c.reached(A.node_id)
    assert c.reachable(200.0) == {A.node_id, B.node_id}


def test_who_can_not_be_reached_is_called_again_more_and_more_seldom() -> None:
    c = candidates(A)
    now, pauses = 0.0, []
    c.unreachable(A.node_id, now)
    for _ in range(7):
        failed_at = now
        while c.to_recall(now) != A:
            assert c.reachable(now) == set()
            now += 0.25
        pauses.append(now - failed_at)
        now += 5.0
        c.unreachable(A.node_id, now)
    assert pauses == [RECALL_S, *(min(RECALL_S * 2**n, RECALL_MAX_S) for n in range(1, 7))]


def test_a_call_of_which_nothing_was_heard_is_made_again() -> None:
    """The network drops calls beyond its bound without a word."""
    c = candidates(A)
    c.called(A.node_id, 0.0)
    assert c.to_recall(RECALL_S - 1) is None
    assert c.to_recall(RECALL_S) == A
    assert c.to_recall(RECALL_S + 1) is None


def test_many_that_are_not_there_are_called_again_one_by_one() -> None:
    gone = [contact(f"n{i}") for i in range(100)]
    c = candidates(*gone)
    for member in gone:
        c.unreachable(member.node_id, 0.0)
    calls = sum(1 for tenth in range(300) if c.to_recall(100.0 + tenth / 10))
    assert 29 <= calls <= 31


def test_who_leaves_the_view_or_moves_begins_anew() -> None:
    c = candidates(A, B)
    for member in (A, B):
        c.unreachable(member.node_id, 0.0)
    moved = Contact(B.node_id, B.name, B.zone, B.host, B.port + 1)
    c.found((A, moved))
    assert c.reachable(1.0) == {B.node_id}
    c.found((moved,))
    c.found((A, moved))
    assert c.reachable(1.0) == {A.node_id, B.node_id}


def test_only_members_are_remembered() -> None:
    c = candidates(A)
    c.unreachable(B.node_id, 0.0)
    c.found((A, B))
    assert c.reachable(0.0) == {A.node_id, B.node_id}


def test_a_directory_is_silent_when_two_announcements_had_no_answer() -> None:
    c = candidates()
    c.asked(7, 0.0)
    c.asked(7, ASK_AGAIN_S / 2)  # of another blob, in the same moment
    assert not c.is_silent(7, 60.0)
    c.asked(7, 2.0)
    assert c.changes_at(2.0) == 2.0 + ANSWER_WAIT_S
    assert c.silent(1.9 + ANSWER_WAIT_S) == set()
    assert c.silent(2.0 + ANSWER_WAIT_S) == {7}
    assert c.heard(7, 10.0)
    assert c.silent(10.0) == set()
    assert not c.heard(7, 10.0)


def test_what_was_seen_long_ago_says_nothing() -> None:
    """Where nothing was pulled meanwhile, nobody was called again, and nobody asked: they may well be there now."""
    c = candidates(A)
    c.unreachable(A.node_id, 0.0)
    assert c.reachable(RECALL_S + STALE_S - 1) == set()
    assert c.reachable(RECALL_S + STALE_S) == {A.node_id}
    c.called(A.node_id, 100.0)
    assert c.reachable(100.0 + CALL_WAIT_S) == {A.node_id}
    c.asked(7, 0.0)
    c.asked(7, 2.0)
    assert c.silent(1.0 + STALE_S) == {7}
    assert c.silent(2.0 + STALE_S) == set()
    c.asked(7, 100.0)
    assert c.silent(104.0) == set()
    c.asked(7, 104.0)
    assert c.silent(104.0 + ANSWER_WAIT_S) == {7}
