"""Playbooks of receiving: what is asked of whom, and what comes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pd.swarm.commands import Abandon, Blame, Close, Count, Fetch, Keep, Prove, Send
from p2pd.swarm.events import Reading
from p2pd.swarm.messages import Cancel, Have, Join, Refuse, Request
from tests.swarm.fakes import contact, digest_of, vouch
from tests.swarm.play import ALL, BLOB, COUNT, LENGTH, SIZE, STATES, Play, wanter


def only(asked: dict[str, list[tuple[int, int]]]) -> tuple[str, int, int]:
    """The one request that went out."""
    [(name, [(rid, index)])] = asked.items()
    return name, rid, index


def test_a_piece_that_fits() -> None:
    p = Play()
    p.tracker()
    p.want()
    b = p.up("b")
    p.join("b", 3)
    fetch, send = p.of(Fetch), p.of(Send)
    name, rid, index = only(p.asked())
    assert (name, index) == ("b", 3)
    assert fetch == [Fetch(b, rid, BLOB, 3)]
    assert p.done.index(fetch[0]) < p.done.index(next(s for s in send if isinstance(s.message, Request)))
    assert p.node.link(b, rid) is None
    voucher = p.voucher("b", "seeder", 2, 5)
    assert p.node.link(b, rid) == (STATES[3], STATES[4])
    p.started("b", rid)
    p.now += 0.1
    assert p.checked("b", rid) == [Keep(BLOB, 3, STATES[3], STATES[4], voucher)]
    assert p.present == [3]


def test_a_link_that_is_known_needs_no_voucher() -> None:
    p = wanter("b")
    p.join("b", 3)
    assert [m.linked for m in p.sent("b", Request)] == [True]
    q = Play()
    q.tracker()
    q.want()
    q.up("b")
    q.join("b", 3)
    assert [m.linked for m in q.sent("b", Request)] == [False]


def test_a_piece_that_does_not_fit_is_fetched_elsewhere() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.join("c", 3)
    assert p.asked() == {}
    p.misfit("b", rid)
    assert p.of(Blame, Close) == [
        Blame(contact("b").node_id, "b", "a piece that does not fit its link", BLOB, 3),
        Close(p.numbers["b"], "a piece that does not fit its link"),
    ]
    name, rid, index = only(p.asked())  # in the same breath
    assert (name, index) == ("c", 3)
    p.down("b")
    assert p.asked() == {}
    p.checked("c", rid)
    assert p.present == [3]
    assert not p.of(Blame)


def test_who_was_caught_is_avoided_for_a_while() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.misfit("b", rid)
    p.down("b")
    p.answer("b", "d")
    assert [c.contact.name for c in p.done if type(c).__name__ == "Connect"] == ["d"]
    p.up("b", outbound=False)
    assert p.of(Close) == [Close(p.numbers["b"], "avoided")]
    p.now += 61
    p.up("b", outbound=False)
    assert p.of(Close) == []


def test_a_link_that_no_piece_fits_is_its_signers_fault() -> None:
    p = wanter("b", "c", "d")
    for name in "bc":
        p.join(name, 3)
        rid = p.node.downloads.of_piece(BLOB, 3)[0].rid
        if name == "c":
            p.checked(name, rid, held=False)
        else:
            p.misfit(name, rid)
            assert p.blamed() == [("b", "a piece that does not fit its link")]
            assert p.node.state.is_avoided(contact("b").node_id)
            p.down(name)
    names = [reason for _, reason in p.blamed()]
    assert names == ["a link that no piece fits"]
    assert not p.node.state.is_avoided(contact("b").node_id)
    assert not p.node.state.is_avoided(contact("c").node_id)
    assert not p.blob().chain.vouchers
    p.voucher("d", "second", 0, 5)
    p.join("d", 3)
    p.checked("d", p.node.downloads.of_piece(BLOB, 3)[0].rid)
    assert p.present == [3]


def test_two_liars_do_not_talk_a_node_out_of_a_true_chain() -> None:
    """A piece above fits, of the same signer: so its states are true, and the pieces were false."""
    p = wanter("b", "c", "d")
    p.join("d", 7)
    p.checked("d", p.node.downloads.of_piece(BLOB, 7)[0].rid)
    for name in "bc":
        p.join(name, 3)
        p.misfit(name, p.node.downloads.of_piece(BLOB, 3)[0].rid)
        assert p.blamed() == [(name, "a piece that does not fit its link")]
        p.down(name)
    assert p.node.state.is_avoided(contact("b").node_id)
    assert p.node.state.is_avoided(contact("c").node_id)
    assert p.present == [7]
    p.have("d", 3)
    p.join("d", 3, 7)
    p.checked("d", p.node.downloads.of_piece(BLOB, 3)[0].rid)
    assert p.present == [3, 7]


def test_a_signer_that_was_suspected_may_be_heard_again() -> None:
    """Two liars can do it where nothing above has come yet; what they win is a delay."""
    p = wanter("b", "c", "d")
    for name in "bc":
        p.join(name, 3)
        p.checked(name, p.node.downloads.of_piece(BLOB, 3)[0].rid, held=False)
        p.down(name)
    assert not p.blob().chain.vouchers
    p.voucher("d", "seeder", 0, 5)
    p.join("d", 3)
    p.checked("d", p.node.downloads.of_piece(BLOB, 3)[0].rid)
    assert p.present == [3]


def test_the_last_piece_proves_the_blob() -> None:
    p = wanter("b")
    p.join("b", *range(COUNT), wanting=False)
    while p.blob().flying:
        p.now += 0.05
        p.checked("b", next(iter(p.node.downloads.of_blob(BLOB))).rid)
    assert p.present == list(range(COUNT))
    assert p.of(Prove) == [Prove(BLOB)]
    assert p.done.index(Prove(BLOB)) > p.done.index(p.of(Keep)[-1])
    [join] = p.sent("b", Join)
    assert (join.pieces, join.wanting) == (ALL.to_bytes(2, "little"), False)
    assert len([c for c in p.ever if isinstance(c, Fetch)]) == COUNT


def test_two_requests_at_one_uploader_at_a_time() -> None:
    p = wanter("b", "c")
    p.join("b", *range(COUNT))
    assert len(p.asked()["b"]) == 2
    p.join("c", *range(COUNT))
    assert len(p.asked()["c"]) == 2


def test_no_piece_is_asked_twice() -> None:
    p = wanter("b", "c", "d")
    for name in "bcd":
        p.join(name, 1, 2)
    assert sorted(a.index for a in p.node.downloads.of_blob(BLOB)) == [1, 2]


def test_the_rarest_first() -> None:
    p = wanter("b", "c", "d", requests_least=8)
    for name in "cd":
        p.join(name, *range(COUNT - 1))
    for a in p.node.downloads.of_blob(BLOB):
        assert a.index < COUNT - 1
    p.join("b", *range(COUNT))
    assert COUNT - 1 in [index for _, index in p.asked()["b"]]


def test_a_client_that_stands_still_is_helped() -> None:
    p = wanter("b")
    p.event(Reading(BLOB, 4))
    p.join("b", *range(COUNT))
    assert [index for _, index in p.asked()["b"]] == [4, 5]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_busy_is_asked_again_after_a_while() -> None:
    p = wanter("b")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.hear("b", Refuse(rid, "busy", 3))
    assert p.of(Abandon) == [Abandon(p.numbers["b"], rid)]
    assert p.asked() == {}
    p.wait(0.4)
    assert p.asked() == {}
    p.wait(0.2)  # with nothing else going on
    assert only(p.asked())[::2] == ("b", 3)


def test_who_was_busy_and_has_news_is_asked_after_the_while() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.join("c", 3)
    p.hear("b", Refuse(rid, "busy", 3))
    _, rid, _ = only(p.asked())
    p.checked("c", rid)
    p.have("b", 5)
    assert p.asked() == {}
    p.wait(0.6)
    assert only(p.asked())[::2] == ("b", 5)


def test_busy_is_asked_again_at_its_notice() -> None:
    p = wanter("b")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.hear("b", Refuse(rid, "busy", 3))
    p.now += 0.1
    p.have("b", load=1)
    assert only(p.asked())[::2] == ("b", 3)


def test_busy_is_asked_elsewhere_at_once() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.join("c", 3)
    p.hear("b", Refuse(rid, "busy", 3))
    assert only(p.asked())[::2] == ("c", 3)


@pytest.mark.parametrize("reason", ["gone", "absent"])
def test_what_it_does_not_have_is_not_asked_again(reason: str) -> None:
    p = wanter("b")
    p.join("b", 3, 4)
    rid = next(rid for rid, index in p.asked()["b"] if index == 3)
    p.hear("b", Refuse(rid, reason, 0))
    assert p.asked() == {}
    p.wait(3)
    assert 3 not in [a.index for a in p.node.downloads.of_blob(BLOB)]
    p.have("b", 3)
    assert only(p.asked())[::2] == ("b", 3)


def test_a_refusal_of_what_was_not_asked() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    assert p.hear("c", Refuse(rid, "busy", 3)) == []
    assert p.hear("b", Refuse(rid + 7, "busy", 3)) == []


def test_a_full_uploader_is_passed_over() -> None:
    p = wanter("b", "c")
    p.have("b", load=0)
    p.join("b", 3)
    p.hear("b", Have(BLOB, (4,), 9, 0, 0))
    assert p.asked() == {}  # it said that it is full
    p.join("c", 4)
    assert only(p.asked())[::2] == ("c", 4)


# -- late, lost, stalled ----------------------------------------------------------------------------------------------


def usual(p: Play, name: str) -> None:
    """Piece 0 and 1 come in a tenth of a second each: now the node knows what is usual."""
    for index in (0, 1):
        p.join(name, *range(index + 1))
        rid = p.node.downloads.of_piece(BLOB, index)[0].rid
        p.started(name, rid)
        p.now += 0.1
        p.checked(name, rid)


def test_late_is_asked_elsewhere_too_and_the_loser_is_cancelled() -> None:
    p = wanter("b", "c")
    usual(p, "b")
    p.have("b", 5, 6)
    late = p.node.downloads.of_piece(BLOB, 5)[0]
    p.started("b", late.rid)
    p.join("c", 5)
    rate = p.node.state.peers[p.numbers["b"]].rate
    done = p.wait(0.5)
    assert Count("hedged", 1) in done
    [(rid, index)] = [r for r in p.asked()["c"]]
    assert index == 5
    assert p.node.state.peers[p.numbers["b"]].rate < rate
    p.checked("c", rid)
    assert p.sent("b", Cancel) == [Cancel(late.rid)]
    assert Abandon(p.numbers["b"], late.rid) in p.done
    assert Count("duplicate", LENGTH) in p.done
    assert p.checked("b", late.rid) == []  # it comes after all: nobody minds
    assert 5 in p.present


def test_at_most_two_copies() -> None:
    p = wanter("b", "c", "d")
    usual(p, "b")
    for name in "bcd":
        p.join(name, 0, 1, 5)
    p.wait(10)
    assert len(p.node.downloads.of_piece(BLOB, 5)) == 2


def test_who_never_sends_is_given_up() -> None:
    p = wanter("b")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    done = p.wait(16)
    assert Abandon(p.numbers["b"], rid) in done
    assert p.sent("b", Cancel) == [Cancel(rid)]


def test_who_is_gone_is_replaced_at_once() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    assert only(p.asked())[0] == "b"
    p.join("c", 3)
    p.down("b")
    assert only(p.asked())[::2] == ("c", 3)


def test_at_the_end_what_is_expected_late_is_asked_twice() -> None:
    p = wanter("b", "c")
    usual(p, "b")
    p.hear("b", Join(BLOB, SIZE, (0b11).to_bytes(2, "little"), True, 0, 8, 0))
    for index in range(2, COUNT):
        p.have("c", index)
    p.join("c", *range(2, COUNT), wanting=False)
    while p.blob().missing.bit_count() > 0:
        asked = p.node.downloads.of_blob(BLOB)[0]
        p.started("c", asked.rid)
        p.now += 0.1
        p.checked("c", asked.rid)
    assert p.blob().flying.bit_count() == 2
    last = p.node.downloads.of_blob(BLOB)[-1]
    p.have("c", load=6)  # a long queue before ours
    p.have("b", last.index, load=0)
    hedged = [a for a in p.node.downloads.of_piece(BLOB, last.index) if a.peer == p.numbers["b"]]
    assert len(hedged) == 1


# -- claims -----------------------------------------------------------------------------------------------------------


def test_what_the_seeder_shows_is_asked_at_once_even_beside_a_full_set() -> None:
    p = wanter("s", "b", "c", requests_least=2)
    p.join("b", 0, 1)
    p.join("c", 2, 3)
    assert p.node.downloads.out == 2
    p.join("s", term=1)
    p.have("s", 9, term=1)
    assert only(p.asked())[::2] == ("s", 9)


def test_what_others_tell_is_no_claim() -> None:
    p = wanter("s", "b", "c", requests_least=2)
    p.join("b", 0, 1)
    p.join("c", 2, 3)
    p.join("s")
    p.have("s", 9)
    assert p.asked() == {}


def test_claims_are_bounded() -> None:
    p = wanter("s")
    p.join("s", term=1)
    p.have("s", *range(COUNT), term=1)
    assert len(p.asked()["s"]) == 4


# -- vouchers ---------------------------------------------------------------------------------------------------------


def test_a_forged_voucher_convicts_who_brings_it() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.join("b", 1)
    p.hear("b", replace(vouch("seeder", BLOB, SIZE, 0, STATES[:3]), signature=bytes(64)))
    assert p.blamed() == [("b", "a voucher whose signature is wrong")]
    assert not p.blob().chain.vouchers


def test_a_voucher_that_contradicts_makes_its_bringer_useless_not_guilty() -> None:
    p = wanter("b", "c")
    p.join("b", 3, 4)
    wrong = [*STATES[:4], bytes(32), bytes(32)]
    rids = dict((index, rid) for rid, index in p.asked()["b"])
    p.hear("b", vouch("liar", BLOB, SIZE, 3, wrong[3:6]))
    assert p.blamed() == []
    assert sorted(m.rid for m in p.sent("b", Cancel)) == sorted(rids.values())
    assert p.blob().neighbours[p.numbers["b"]].have == 0
    assert p.blob().chain.link(3) == (STATES[3], STATES[4])


def test_a_piece_without_a_voucher_convicts() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.checked("b", rid, held=False)
    assert p.blamed() == [("b", "a piece that does not fit its link")]


def test_a_blob_of_one_piece_needs_no_voucher() -> None:
    p = Play()
    p.tracker()
    p.want(size=500)
    b = p.up("b")
    p.hear("b", Join(BLOB, 500, b"\1", False, 0, 0, 0))
    _, rid, index = only(p.asked())
    assert index == 0
    assert p.node.link(b, rid) == (STATES[0], BLOB)
    p.checked("b", rid)
    assert p.of(Prove) == [Prove(BLOB)]


# -- several blobs ----------------------------------------------------------------------------------------------------


def test_a_blob_with_a_waiting_client_comes_first() -> None:
    other = digest_of("other")
    p = Play(requests_least=2, at_one_uploader=4)
    p.tracker()
    p.want(clients=0)
    p.want(digest=other, clients=1)
    p.up("b")
    p.join("b", *range(COUNT))
    p.join("b", *range(COUNT), digest=other)
    first = p.node.downloads.of_blob(BLOB)
    p.hear("b", Refuse(first[0].rid, "gone", 0))
    p.hear("b", Refuse(first[1].rid, "gone", 0))
    assert len(p.node.downloads.of_blob(other)) == 2
