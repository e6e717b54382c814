"""Playbooks of whose word counts: contradictions, chains that miss the digest, evidence, accusations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from p2pd.swarm import commands as cmd
from p2pd.swarm.blob import CHANCES_MAX, EXCUSED_MAX, EXCUSES_MAX, Blob
from p2pd.swarm.disputes import PIECE_S
from p2pd.swarm.events import PieceStored, PullEnded
from p2pd.swarm.evidence import accusation
from p2pd.swarm.messages import Accuse, Announce, GetLinks, Join, Leave, Release, Retract, Vouch
from p2pd.swarm.pieces import unpack
from p2pd.swarm.state import PROVED_TERM
from p2pd.swarm.trust import SHOWN_S
from tests.swarm.fakes import contact, digest_of, key, true_states, vouch
from tests.swarm.play import ALL, BLOB, COUNT, SIZE, STATES, Play, retraction, seeder, wanter

FORGED = [STATES[0], *true_states(digest_of("forged"), COUNT)[1:COUNT], BLOB]


def forged_from(seam: int) -> list[bytes]:
    """True states up to one, then a liar's own up to the digest."""
    return [*STATES[: seam + 1], *FORGED[seam + 1 :]]


def hungry(*neighbours: str, holder: str = "") -> Play:
    """A node that wants the blob and knows no link yet; its neighbours have all of it."""
    p = Play(at_one_uploader=COUNT)
    p.tracker()
    p.want()
    p.wait(0)
    for name in neighbours:
        p.up(name)
    if holder:
        p.answer(holder=holder, term=3)
    return p


def fetch(p: Play, name: str, *pieces: int) -> None:
    """These come from a neighbour, and hold."""
    p.join(name, *pieces)
    for index in pieces:
        for asked in p.node.downloads.of_piece(BLOB, index):
            if p.names[asked.peer] == name:
                p.checked(name, asked.rid)


def convicted(p: Play) -> list[tuple[bytes, int]]:
    return [(c.voucher.key, c.index) for c in p.ever if isinstance(c, cmd.Convict)]


# -- contradictions ---------------------------------------------------------------------------------------------------


def test_two_vouchers_that_meet_make_no_link() -> None:
    """Else nobody would have signed the false one between them."""
    p = hungry("b")
    p.voucher("b", "seeder", 0, 3)
    p.hear("b", vouch("liar", BLOB, SIZE, 4, FORGED[4:]))
    p.join("b", 3)
    [(rid, index)] = p.asked()["b"]
    assert index == 3
    assert p.node.link(p.numbers["b"], rid) is None


def test_the_holder_counts_for_more_than_a_stranger_who_spoke_first() -> None:
    p = hungry("b", "c", holder="holder")
    p.voucher("b", "stranger", 0, 8, states=FORGED)
    fetch(p, "b", 0, 1, 2)
    assert p.present == [0, 1, 2]
    voucher = p.voucher("c", "holder", 0, 4, term=3)
    assert p.present == []
    assert p.of(cmd.Drop) == [cmd.Drop(BLOB, 0b111)]
    assert p.blob().chain.link(3) == (STATES[3], STATES[4])
    assert p.blob().chain.vouchers[0] == voucher


# -- pieces that do not fit -------------------------------------------------------------------------------------------


def asked_of_b() -> tuple[Play, int]:
    p = hungry("b", "c", holder="seeder")
    p.voucher("c", "seeder", 0, 8, term=3)
    p.join("b", 3, 4)
    return p, {index: rid for rid, index in p.asked()["b"]}[3]


def test_who_sends_a_piece_that_does_not_fit_is_asked_for_its_link() -> None:
    p, rid = asked_of_b()
    p.checked("b", rid, held=False)
    assert p.blamed() == []
    assert p.sent("b", GetLinks) == [GetLinks(BLOB, 3, 1)]
    assert not p.blob().neighbours[p.numbers["b"]].have >> 3 & 1


def test_the_same_link_convicts_it() -> None:
    p, rid = asked_of_b()
    p.misfit("b", rid)
    assert p.blamed() == [("b", "a piece that does not fit its link")]


def test_a_voucher_that_came_for_another_link_does_not_convict() -> None:
    """It reaches over the link that was asked for, and its bringer believes in another one there."""
    p, rid = asked_of_b()
    p.checked("b", rid, held=False)
    p.voucher("b", "seeder", 2, 4, term=3)
    assert p.sent("b", GetLinks) == [GetLinks(BLOB, 3, 1)]
    p.voucher("b", "other", 3, 4, states=FORGED)
    assert p.blamed() == []


def test_another_link_is_a_matter_between_signers() -> None:
    p, rid = asked_of_b()
    p.checked("b", rid, held=False)
    p.voucher("b", "liar", 2, 6, states=FORGED)
    assert p.blamed() == []
    assert p.blob().neighbours[p.numbers["b"]].have == 0


def test_what_was_asked_for_before_the_question_is_of_the_same_chain() -> None:
    p, rid = asked_of_b()
    other = p.node.downloads.of_piece(BLOB, 4)[0].rid
    p.checked("b", rid, held=False)
    p.checked("b", other, held=False)
    assert p.blamed() == []


def test_the_link_that_convicts_is_the_one_the_piece_did_not_fit() -> None:
    """Not the one that this node believes in by the time of the answer."""
    p = hungry("b", "c", holder="holder")
    p.voucher("c", "stranger", 0, 8, states=FORGED)
    p.join("b", 3)
    [(rid, _)] = p.asked()["b"]
    p.checked("b", rid, held=False)
    p.voucher("c", "holder", 0, 8, term=3)
    p.voucher("b", "holder", 0, 8, term=3)
    assert p.blamed() == []


def test_who_dropped_the_piece_has_another_chain_by_now() -> None:
    p, rid = asked_of_b()
    p.checked("b", rid, held=False)
    p.join("b", 5)
    p.voucher("b", "seeder", 0, 8, term=3)
    assert p.blamed() == []


@pytest.mark.parametrize(
    "lists",
    [
        pytest.param([(5,)], id="the piece itself"),
        pytest.param([(3,)], id="others: it got this one anew, of another chain"),
        pytest.param([(1,), ()], id="this one, and then what it had after that"),
    ],
)
def test_who_dropped_pieces_before_one_was_checked_is_not_even_asked(lists: list[tuple[int, ...]]) -> None:
    """What came before it changed its mind may be hashed only after that."""
    p, rid = asked_of_b()
    for has in lists:
        p.join("b", *has)
    p.checked("b", rid, held=False)
    assert p.blamed() == []
    assert p.sent("b", GetLinks) == []
    assert not p.blob().link_failures


def test_who_dropped_others_since_may_show_our_link_by_now() -> None:
    """It changed its mind while the question was on its way, and told everybody of its new chain."""
    p, rid = asked_of_b()
    p.checked("b", rid, held=False)
    p.join("b", 3)
    p.voucher("b", "seeder", 0, 8, term=3)
    assert p.blamed() == []


def test_dropping_does_not_excuse_what_is_asked_for_after_it() -> None:
    p, rid = asked_of_b()
    p.join("b")
    p.checked("b", rid, held=False)
    p.join("b", 3)
    rid = next(r for r, i in p.asked()["b"] if i == 3)
    p.checked("b", rid, held=False)
    assert p.sent("b", GetLinks)


def test_dropping_each_piece_excuses_only_so_many() -> None:
    p, rid = asked_of_b()
    for _ in range(EXCUSES_MAX):
        p.join("b", 5)
        p.checked("b", rid, held=False)
        assert p.sent("b", GetLinks) == []
        p.join("b", 3)
        rid = next(r for r, i in p.asked()["b"] if i == 3)
    p.join("b", 5)
    p.checked("b", rid, held=False)
    p.have("b", 1, 3, 5)
    assert not p.asked()


def test_silence_and_a_second_piece_convict_too() -> None:
    p, rid = asked_of_b()
    p.checked("b", rid, held=False)
    p.wait(2.5)
    p.have("b", 5)
    [(rid, _)] = p.asked()["b"]
    p.checked("b", rid, held=False)
    assert p.blamed() == [("b", "a piece that does not fit its link")]


def test_a_neighbour_is_asked_so_often_and_no_oftener() -> None:
    p, rid = asked_of_b()
    for number in range(EXCUSES_MAX + 1):
        p.checked("b", rid, held=False)
        if number < EXCUSES_MAX:
            assert p.blamed() == []
            p.hear("b", vouch("liar", BLOB, SIZE, 2, FORGED[2:6], term=number))
            p.join("b")  # it says that it dropped them
            p.join("b", 3)
            rid = next(r for r, i in p.asked()["b"] if i == 3)
    assert p.sent("b", GetLinks) == []
    p.have("b", 1, 3, 5)
    assert not p.asked()
    assert p.blamed() == []


def leave(p: Play, name: str) -> None:
    p.hear(name, Leave(BLOB))


def reconnect(p: Play, name: str) -> None:
    p.down(name)
    p.up(name)


def misfits_and_comes_back(p: Play, rid: int, come_back: Callable[[Play, str], None]) -> Play:
    """A member whose pieces never fit, and that goes and comes again, as another neighbour, after each of them."""
    for _ in range(EXCUSES_MAX):
        p.checked("b", rid, held=False)
        assert p.blamed() == []
        come_back(p, "b")
        p.join("b", 3)
        p.wait(2.5)
        p.have("b", 5)
        asked = next(a for a in p.node.downloads.of_piece(BLOB, 3) if a.peer == p.numbers["b"])
        rid = asked.rid
    p.checked("b", rid, held=False)
    come_back(p, "b")
    p.join("b", 1, 3, 5)
    p.wait(2.5)
    p.have("b", 6)
    return p


@pytest.mark.parametrize("come_back", [leave, reconnect])
def test_who_comes_back_is_the_same_node(come_back: Callable[[Play, str], None]) -> None:
    p = misfits_and_comes_back(*asked_of_b(), come_back)
    assert not p.node.downloads.of_blob(BLOB)
    assert p.blamed() == []


def test_who_sent_too_many_of_another_chain_gets_one_chance_on_a_new_one() -> None:
    """It may have been this node that believed in the wrong one."""
    p = misfits_and_comes_back(*asked_of_b(), leave)
    leave(p, "b")
    p.hear("c", retraction("seeder", term=3))
    p.voucher("c", "stranger", 0, 8, states=FORGED)
    p.join("b", 3)
    [asked] = p.node.downloads.of_piece(BLOB, 3)
    p.checked("b", asked.rid, held=False)
    leave(p, "b")
    p.join("b", 1, 3, 5)
    assert p.blob().neighbours[p.numbers["b"]].have == 0


@pytest.mark.parametrize("links", [(), (8, 10)])
def test_who_takes_back_what_it_signed_itself_gets_few_chances(links: tuple[int, ...]) -> None:
    """With links that nobody else has vouched for, a signer can make our chain fall as often as it likes."""
    p, misfits = misfits_and_comes_back(*asked_of_b(), leave), 0
    for term in range(4, 4 + 3 * CHANCES_MAX):
        if links:
            p.voucher("b", "b", *links, states=forged_from(8), term=term)
        p.hear("b", retraction("b", term=term))
        p.join("b", 3)
        p.wait(2.5)
        p.have("b", 5)
        for asked in p.node.downloads.of_piece(BLOB, 3):
            if asked.peer == p.numbers["b"]:
                p.checked("b", asked.rid, held=False)
                misfits += 1
    assert misfits == (CHANCES_MAX if links else 0)


def test_the_excuses_of_many_nodes_are_bounded() -> None:
    blob = Blob(BLOB)
    for number in range(EXCUSED_MAX + 5):
        assert blob.excuse(key(str(number)))
    assert len(blob.excused) == EXCUSED_MAX


def test_of_a_chain_that_parts_from_ours_nothing_above_is_asked_for() -> None:
    p, rid = asked_of_b()
    p.checked("b", rid, held=False)
    p.voucher("b", "liar", 2, 6, states=FORGED)
    p.have("b", 6)
    p.join("b", 1, 3, 4, 5, 6)
    assert [index for _, index in p.asked()["b"]] == [1]
    p.join("b", 1)  # it dropped them
    p.have("b", 6)
    assert [index for _, index in p.asked()["b"]] == [6]


def test_what_had_fallen_comes_from_others() -> None:
    p = hungry("b", "c", holder="holder")
    p.voucher("b", "stranger", 0, 8, states=FORGED)
    fetch(p, "b", 0, 1, 2)
    p.down("b")
    p.voucher("c", "holder", 0, 4, term=3)
    fetch(p, "c", *range(4))
    assert p.present == [0, 1, 2, 3]


def test_a_seeder_that_drops_pieces_no_longer_says_that_it_has_them() -> None:
    """Else who asks for one, and for its link, gets neither, and takes it for a liar."""
    p = hungry("b", "c")
    p.voucher("b", "stranger", 0, 8, states=forged_from(2))
    fetch(p, "b", 0, 1, 2, 3)
    p.answer(holder="holder", term=3)
    p.lease(term=4, fresh=False)
    assert p.blob().seeding
    assert p.blob().left == 0b1111
    p.voucher("c", "holder", 0, 8, term=3)
    assert p.present == [0, 1]
    assert {unpack(m.pieces, COUNT) for m in p.sent("b", Join)} == {0b11}


def test_the_strangers_true_beginning_stays() -> None:
    p = hungry("b", "c", holder="holder")
    p.voucher("b", "stranger", 0, 8, states=forged_from(5))
    fetch(p, "b", 0, 1, 2, 3, 4, 5, 6)
    p.join("c")
    p.voucher("c", "holder", 0, 7, term=3)
    assert p.present == [0, 1, 2, 3, 4]
    assert p.blob().chain.link(5) == (STATES[5], STATES[6])


def test_the_neighbours_hear_of_it() -> None:
    p = hungry("b", "c", "d", holder="holder")
    p.join("d")
    p.voucher("b", "stranger", 0, 8, states=FORGED)
    voucher = p.voucher("c", "holder", 0, 4, term=3)
    assert p.sent("d", Vouch) == [voucher]
    assert p.sent("c", Vouch) == []


def test_the_newer_holder_counts_for_more_than_the_older_one() -> None:
    p = hungry("b", "c", holder="first")
    p.voucher("b", "first", 0, 8, states=FORGED, term=3)
    p.answer(holder="second", term=4)
    p.voucher("c", "second", 0, 4, term=4)
    assert p.blob().chain.link(0) == (STATES[0], STATES[1])
    p.voucher("b", "first", 2, 8, states=FORGED, term=9)  # above its own lease's term: that is no holder's word
    assert p.blob().chain.link(2) == (STATES[2], STATES[3])


def test_a_holders_earlier_term_is_a_strangers_word() -> None:
    """What it took back, and somebody replays."""
    p = hungry("b", "c", holder="holder")
    p.voucher("b", "holder", 0, 8, states=FORGED, term=1)
    p.voucher("c", "holder", 0, 4, term=3)
    assert p.blob().chain.link(0) == (STATES[0], STATES[1])
    p.voucher("b", "holder", 0, 8, states=FORGED, term=2)
    assert p.blob().chain.link(0) == (STATES[0], STATES[1])


def test_a_holders_later_word_counts_for_more_than_its_earlier_one() -> None:
    """It went on from a false state that it was told, and has seen since that it is false."""
    p = hungry("b", "c", holder="holder")
    p.voucher("b", "holder", 0, 8, states=FORGED, term=3)
    later = p.voucher("c", "holder", 2, 4, term=5)
    assert {index: v for index, v in p.blob().chain.vouchers.items() if v.term == 5} == {2: later, 3: later}
    p.voucher("b", "holder", 4, 8, states=FORGED, term=3)  # somebody replays it
    assert p.blob().chain.link(4) is None


def test_who_vouched_only_for_what_lies_above_a_contradiction_may_come_anew() -> None:
    p = hungry("b", "c", holder="holder")
    p.voucher("b", "stranger", 0, 4, states=FORGED)
    p.voucher("b", "other", 5, 8)
    p.voucher("c", "holder", 0, 4, term=3)
    assert p.blob().chain.link(5) is None
    p.voucher("b", "other", 5, 8)
    assert p.blob().chain.link(5) == (STATES[5], STATES[6])
    p.voucher("b", "stranger", 2, 5, states=FORGED)
    assert p.blob().chain.link(2) == (STATES[2], STATES[3])


def test_between_strangers_the_first_one_stays() -> None:
    p = hungry("b", "c")
    p.voucher("b", "one", 0, 8)
    p.voucher("c", "two", 0, 8, states=FORGED)
    assert p.blob().chain.link(0) == (STATES[0], STATES[1])
    assert p.blamed() == []


def test_who_was_not_known_as_the_holder_is_heard_once_it_is() -> None:
    p = hungry("b", "c")
    p.voucher("b", "stranger", 0, 8, states=FORGED)
    p.voucher("c", "holder", 0, 8, term=3)
    assert p.blob().chain.link(0) == (FORGED[0], FORGED[1])
    p.answer(holder="holder", term=3)
    assert p.blob().chain.link(0) == (STATES[0], STATES[1])


def test_nobodys_word_counts_for_more_than_own_computing() -> None:
    p = seeder("b", pieces=4)
    p.answer(holder="b", term=9)
    p.voucher("b", "b", 0, 8, states=FORGED, term=9)
    assert p.present == [0, 1, 2, 3]
    assert p.blob().chain.link(0) == (STATES[0], STATES[1])


def test_a_link_that_a_pull_refutes_is_told_to_who_may_believe_in_it() -> None:
    """They hold pieces that rest on it, and see no reason to ask for others."""
    p = seeder("b", "c", pieces=2)
    p.voucher("b", "stranger", 4, 8, states=forged_from(4), term=3)
    for index in (2, 3):
        p.stored(index)
        assert p.told(Vouch) == {}
    p.stored(4)
    for name in "bc":
        [voucher] = p.sent(name, Vouch)
        assert (voucher.key, voucher.states[-2:]) == (key("me"), tuple(STATES[4:6]))
    p.stored(5)
    assert p.told(Vouch) == {}


def test_the_ends_of_the_chain_are_nobodys_to_change() -> None:
    p = hungry("b", holder="holder")
    p.voucher("b", "holder", 8, 10, states=[*STATES[:10], bytes(32)], term=3)
    p.voucher("b", "holder", 0, 1, states=[bytes(32), STATES[1]], term=3)
    assert p.blob().chain.states == {0: STATES[0], COUNT: BLOB}


# -- a chain that misses the digest -----------------------------------------------------------------------------------


def heir() -> Play:
    """A node that got all but the last piece on a liar's word, and the lease then."""
    p = hungry("b", "c", holder="liar")
    p.join("c")
    p.voucher("b", "liar", 0, 10, states=forged_from(4), term=3)
    fetch(p, "b", *range(COUNT - 1))
    assert len(p.present) == COUNT - 1
    p.lease(term=4, fresh=False)
    p.wait(1.1)
    assert p.of(cmd.Pull) == [cmd.Pull(BLOB, COUNT - 1, COUNT, FORGED[COUNT - 1])]
    return p


def test_an_heir_whose_last_piece_does_not_fit_begins_anew_and_keeps_the_lease() -> None:
    p = heir()
    p.event(PieceStored(BLOB, COUNT - 1, bytes(32), 0.01))
    assert p.of(cmd.Drop) == [cmd.Drop(BLOB, ALL >> 1)]
    assert p.told(Release) == {}
    assert p.of(cmd.StopPull)
    assert p.blob().term == 4
    p.event(PullEnded(BLOB, "stopped"))
    assert p.of(cmd.Pull) == [cmd.Pull(BLOB, 0, COUNT, STATES[0])]


def test_the_first_link_that_differs_is_told_at_once() -> None:
    p = heir()
    p.event(PieceStored(BLOB, COUNT - 1, bytes(32), 0.01))
    p.event(PullEnded(BLOB, "stopped"))
    p.stored(0)  # the others hear that it begins anew
    for index in range(1, 4):
        p.stored(index)
        assert p.told(Vouch) == {}
    p.stored(4)
    [voucher] = p.sent("c", Vouch)
    assert voucher.key == key("me")
    assert 4 in voucher.links
    assert voucher.states[4 - voucher.first : 6 - voucher.first] == (STATES[4], STATES[5])
    p.stored(5)
    assert p.told(Vouch) == {}


def test_until_then_the_others_hear_every_second_how_far_it_is() -> None:
    p = heir()
    p.event(PieceStored(BLOB, COUNT - 1, bytes(32), 0.01))
    p.event(PullEnded(BLOB, "stopped"))
    told = []
    for index in range(4):
        p.stored(index)
        told += [v.links.stop - 1 for v in p.sent("c", Vouch)]
        p.wait(SHOWN_S / 2)
    assert told == [0, 2]


def test_who_hears_how_far_the_holder_is_does_not_say_that_nothing_comes() -> None:
    p = hungry("b", "c", holder="holder")
    p.up("holder")
    p.voucher("b", "stranger", 0, 8, states=forged_from(5))
    for index in range(4):
        p.wait(2.0)
        p.hear("holder", vouch("holder", BLOB, SIZE, index, STATES[index : index + 2], term=3))
    assert not any(a.stuck for a in announces(p))
    for _ in range(4):
        p.wait(2.0)
        p.hear("holder", vouch("holder", BLOB, SIZE, 3, STATES[3:5], term=3))  # no further than before
    assert announces(p)[-1].stuck


def announces(p: Play) -> list[Announce]:
    return [c.message for c in p.ever if isinstance(c, cmd.Send) and isinstance(c.message, Announce)]


def test_in_the_end_it_convicts_the_liar_and_nobody_else() -> None:
    p = heir()
    p.event(PieceStored(BLOB, COUNT - 1, bytes(32), 0.01))
    p.event(PullEnded(BLOB, "stopped"))
    p.stored(*range(COUNT))
    assert p.of(cmd.Prove)
    assert convicted(p) == [(key("liar"), 4)]
    [shown] = p.sent("c", Accuse)
    assert shown.key == key("liar")


def test_who_pulled_all_of_it_blames_upstream_and_takes_its_word_back() -> None:
    p = seeder("b", pieces=0)
    wrong = [*true_states(bytes(32), COUNT)[:COUNT], bytes(32)]
    p.stored(*range(COUNT), states=wrong)
    assert p.sent("b", Retract)
    assert p.sent("tracker", Release) == [Release(BLOB, 1, "wrong-bytes", 0)]


def test_a_holder_whose_piece_does_not_fit_its_own_link_is_told_of_at_once() -> None:
    p = hungry("liar", holder="liar")
    p.voucher("liar", "liar", 0, 10, states=FORGED, term=3)
    p.join("liar", 9)
    [(rid, _)] = p.asked()["liar"]
    p.checked("liar", rid, held=False)
    p.wait(0)
    [announce] = [m for m in p.sent("tracker") if getattr(m, "stuck", False)]
    assert announce.wanting


# -- evidence ---------------------------------------------------------------------------------------------------------


def proven(*neighbours: str) -> Play:
    """A node that proved the blob, on an honest holder's word."""
    p = hungry("seeder", *neighbours, holder="seeder")
    for name in neighbours:
        p.join(name)
    p.voucher("seeder", "seeder", 0, 10, term=3)
    fetch(p, "seeder", *range(COUNT))
    assert p.blob().proven
    return p


def test_a_voucher_that_contradicted_convicts_when_the_blob_is_proven() -> None:
    p = hungry("seeder", "liar", holder="seeder")
    p.voucher("seeder", "seeder", 0, 10, term=3)
    p.voucher("liar", "liar", 2, 6, states=forged_from(3))
    assert convicted(p) == []
    fetch(p, "seeder", *range(COUNT))
    [c] = [c for c in p.ever if isinstance(c, cmd.Convict)]
    assert (c.voucher.key, c.index, c.cases) == (key("liar"), 3, 1)
    assert c.contact == contact("liar")
    assert not p.node.state.is_avoided(contact("liar").node_id)  # named; once is no reason for more


def test_an_accusation_is_checked_and_handed_on() -> None:
    p = proven("b", "c")
    shown = accusation(vouch("liar", BLOB, SIZE, 2, forged_from(3)[2:6]))
    p.hear("b", shown)
    assert convicted(p) == [(key("liar"), 3)]
    assert p.sent("c", Accuse) == [shown]
    assert p.sent("b", Accuse) == []
    p.hear("c", shown)
    assert p.done == []  # known


def test_a_false_accusation_falls_back_on_who_brings_it() -> None:
    for shown in (
        accusation(vouch("seeder", BLOB, SIZE, 2, STATES[2:6])),  # true links
        replace(accusation(vouch("liar", BLOB, SIZE, 2, forged_from(3)[2:6])), key=key("seeder")),  # another's hand
        accusation(vouch("heir", BLOB, SIZE, 4, FORGED[4:8])),  # a state-before that nobody vouched for truly
    ):
        p = proven("b", "c")
        p.hear("b", shown)
        assert convicted(p) == []
        assert p.blamed() == [("b", "an accusation that the proven chain does not bear out")]
        assert not p.node.state.is_avoided(contact("seeder").node_id)
        assert p.told(Accuse) == {}


def test_who_has_not_proved_the_blob_believes_nothing_and_judges_later() -> None:
    p = hungry("seeder", "b", holder="seeder")
    p.join("b")
    p.voucher("seeder", "seeder", 0, 10, term=3)
    shown = accusation(vouch("liar", BLOB, SIZE, 2, forged_from(3)[2:6]))
    p.hear("b", shown)
    p.hear("b", accusation(vouch("innocent", BLOB, SIZE, 2, STATES[2:6])))
    assert p.done == []
    fetch(p, "seeder", *range(COUNT))
    assert convicted(p) == [(key("liar"), 3)]


def test_accusations_beyond_the_bound_are_passed_over() -> None:
    p = proven("b")
    for number in range(40):
        p.hear("b", accusation(vouch(f"liar {number}", BLOB, SIZE, 2, forged_from(3)[2:6])))
    assert len(convicted(p)) == 16
    assert p.blamed() == []


def test_the_word_of_who_was_convicted_twice_is_refused() -> None:
    p = proven("b")
    cases = p.node.trust.cases
    cases.add(key("liar"), digest_of("1"), p.now)
    cases.add(key("liar"), digest_of("2"), p.now)
    q = hungry("b", "liar", holder="liar")
    q.node.trust.cases = cases
    q.voucher("b", "liar", 0, 8, states=FORGED, term=3)
    assert q.blob().chain.states == {0: STATES[0], COUNT: BLOB}


def test_a_flood_of_true_vouchers_costs_no_signature_check() -> None:
    p = wanter("b")
    checked = []
    verify = p.node.state.verify
    p.node.state.verify = lambda *a: checked.append(a) or verify(*a)
    for term in range(2, 50):
        p.voucher("b", "b", 0, 10, term=term)
    assert checked == []


# -- disputes between strangers ---------------------------------------------------------------------------------------


def dispute(mine: list[bytes], theirs: list[bytes], *, held: tuple[int, ...] = ()) -> Play:
    """b's list came first, and pieces on its word; then c's voucher contradicts it."""
    p = hungry("b", "c")
    p.voucher("b", "b", 0, COUNT, states=mine)
    fetch(p, "b", *held)
    p.join("c", *range(COUNT))
    p.voucher("c", "c", 0, 5, states=theirs)
    return p


def test_both_sides_are_asked_for_their_lists_from_the_top() -> None:
    p = dispute(forged_from(3), STATES)
    assert p.sent("c", GetLinks) == [GetLinks(BLOB, 0, COUNT)]
    assert p.sent("b", GetLinks) == [GetLinks(BLOB, 0, COUNT)]


def test_one_piece_shows_that_the_newcomers_list_is_true() -> None:
    """Its piece fits where the lists agree above and differ below: ours falls, and with it what rested on it."""
    p = dispute(forged_from(3), STATES, held=(1, 2, 5))
    p.voucher("c", "c", 0, COUNT)
    [(rid, index)] = p.asked()["c"]
    assert index == COUNT - 1
    assert p.node.link(p.numbers["c"], rid) == (STATES[COUNT - 1], BLOB)
    p.checked("c", rid)
    assert COUNT - 1 in p.present
    assert p.blob().chain.link(5) == (STATES[5], STATES[6])
    assert [d.pieces for d in p.of(cmd.Drop)] == [1 << 5]
    assert p.present == [1, 2, COUNT - 1]
    assert (key("b").hex()[:16], "a list of states whose piece does not fit") in p.blamed()
    p.down("b")
    fetch(p, "c", *range(COUNT))
    assert p.blob().proven
    assert convicted(p) == [(key("b"), 3)]


def test_what_was_heard_unchecked_is_not_taken_in_when_a_dispute_is_settled() -> None:
    """It agreed with what was here, so its signature was not looked at; then what was here was taken back. Handed on,
    it would make this node a liar."""
    p = hungry("b", "c")
    p.voucher("b", "b", 0, 7, states=[*STATES[:4], *FORGED[4:6], *STATES[6:]])
    p.voucher("b", "other", 7, COUNT)
    p.join("c", *range(COUNT))
    p.voucher("c", "c", 0, 5)
    p.hear("c", replace(vouch("c", BLOB, SIZE, 7, STATES[7:]), signature=bytes(64)))
    p.voucher("c", "c", 5, 7)
    [rid] = [rid for rid, index in p.asked()["c"] if index == 5]
    p.hear("b", retraction("other", 5))
    assert p.node.downloads.get(p.numbers["c"], rid)
    p.checked("c", rid)
    assert p.blob().chain.link(4) == (STATES[4], STATES[5])
    assert p.blob().chain.vouchers
    assert all(v.signature != bytes(64) for v in p.blob().chain.vouchers.values())


def test_a_piece_that_fits_a_list_which_is_not_taken_in_is_not_kept() -> None:
    """Its signer took the list back meanwhile: nothing that this node believes says that the piece is right, and what
    it believes next may say another thing."""
    p = dispute(forged_from(3), STATES)
    p.voucher("c", "c", 0, COUNT)
    [(rid, index)] = p.asked()["c"]
    p.hear("c", retraction("c", 5))
    assert p.node.link(p.numbers["c"], rid) == (STATES[index], BLOB)
    p.checked("c", rid)
    assert p.of(cmd.Keep) == []
    assert p.present == []
    assert p.blob().missing >> index & 1 or p.node.downloads.of_piece(BLOB, index)


def test_a_piece_that_is_to_settle_a_dispute_counts_no_more_when_the_dispute_is_over() -> None:
    """It is checked against the newcomer's link from its first byte on: it must not come to count by ours."""
    p = dispute(STATES, forged_from(3))
    p.voucher("c", "c", 0, COUNT, states=forged_from(3))
    [(rid, index)] = p.asked()["c"]
    p.started("c", rid)
    p.now += PIECE_S + 1
    p.voucher("b", "late", 0, 5, states=FORGED)
    p.checked("c", rid)
    assert index not in p.present


def test_a_newcomer_whose_piece_does_not_fit_its_own_list_is_the_liar() -> None:
    p = dispute(STATES, forged_from(3), held=(1,))
    p.voucher("c", "c", 0, COUNT, states=forged_from(3))
    [(rid, index)] = p.asked()["c"]
    p.checked("c", rid, held=False)
    for _ in range(2):
        assert GetLinks(BLOB, index, 1) in p.sent("c", GetLinks)
        p.voucher("c", "c", 0, COUNT, states=forged_from(3))
    assert p.blamed() == [("c", "a piece that does not fit its link")]


def test_a_newcomer_who_changed_its_list_meanwhile_is_not() -> None:
    """It pulled that piece itself, and its own computing counts for more than the list that it showed before."""
    p = dispute(STATES, forged_from(3), held=(1,))
    p.voucher("c", "c", 0, COUNT, states=forged_from(3))
    [(rid, index)] = p.asked()["c"]
    p.checked("c", rid, held=False)
    p.hear("c", vouch("c", BLOB, SIZE, index, STATES[index : index + 2]))
    assert p.blamed() == []


def test_a_piece_that_is_here_has_settled_it_already() -> None:
    p = dispute(STATES, forged_from(3), held=(COUNT - 1,))
    p.voucher("c", "c", 0, COUNT, states=forged_from(3))
    assert "c" not in p.asked()
    assert p.blob().chain.link(5) == (STATES[5], STATES[6])


def test_disputes_of_one_blob_are_bounded() -> None:
    p = hungry("b", *(f"n{i}" for i in range(20)))
    p.voucher("b", "b", 0, COUNT)
    asked = 0
    for number in range(20):
        p.join(f"n{number}", 1)
        p.voucher(f"n{number}", f"n{number}", 2, 6, states=[bytes([number + 1]) * 32] * COUNT)
        asked += bool(p.sent(f"n{number}", GetLinks))
        p.now += 11
    assert asked == 8


def test_while_there_is_a_holder_nothing_is_disputed() -> None:
    p = hungry("b", "c", holder="b")
    p.voucher("b", "b", 0, COUNT, term=3)
    p.join("c", 1)
    p.voucher("c", "c", 0, 5, states=forged_from(3))
    assert p.told(GetLinks) == {}


# -- nothing comes, although others have it ---------------------------------------------------------------------------


def stuck_beside(p: Play, source: str) -> None:
    """No piece comes for as long as it takes to doubt the own list; who has all of the blob is asked for its list."""
    p.down("b")
    for _ in range(20):
        p.wait(0.5)
        if p.sent(source, GetLinks):
            break
    assert p.sent(source, GetLinks) == [GetLinks(BLOB, 0, COUNT)]


def test_a_liar_who_held_the_lease_is_found_out_by_who_has_proven_the_blob() -> None:
    """It counts for more than they, and what they have rests on another list: nothing comes any more."""
    p = hungry("b", "c", holder="b")
    p.voucher("b", "b", 0, COUNT, states=forged_from(3), term=3)
    fetch(p, "b", 1, 2, 4)
    p.join("c", *range(COUNT))
    p.voucher("c", "c", 0, COUNT, term=PROVED_TERM)
    assert p.sent("c", GetLinks) == []
    stuck_beside(p, "c")
    p.voucher("c", "c", 0, COUNT, term=PROVED_TERM)
    [(rid, index)] = p.asked()["c"]
    assert index == COUNT - 1
    p.checked("c", rid)
    assert p.present == [1, 2, COUNT - 1]
    p.up("d")
    p.voucher("d", "b", 3, 6, states=forged_from(3), term=3)
    assert p.blob().chain.link(4) == (STATES[4], STATES[5])  # no lease counts against the digest
    fetch(p, "c", *range(COUNT))
    assert p.blob().proven
    assert (key("b"), 3) in convicted(p)


def test_what_a_signer_took_back_is_had_from_who_has_proven_it() -> None:
    """All of it, the true vouchers, too: with these its neighbours have proven the blob, and they hand them on."""
    p = hungry("b", "c")
    p.voucher("b", "b", 0, COUNT, term=5)
    p.hear("b", retraction("b", 5))
    p.join("c", *range(COUNT))
    p.voucher("c", "b", 0, COUNT, term=5)
    assert p.asked() == {}
    assert not p.blob().available()
    stuck_beside(p, "c")
    p.voucher("c", "c", 0, COUNT, term=PROVED_TERM)
    assert p.asked()["c"]
    fetch(p, "c", *range(COUNT))
    assert p.blob().proven


def test_a_list_that_is_no_better_than_ours_changes_nothing() -> None:
    p = hungry("b", "c", holder="b")
    p.voucher("b", "b", 0, COUNT, term=3)
    fetch(p, "b", COUNT - 1)
    p.join("c", *range(COUNT))
    p.voucher("c", "c", 0, COUNT, states=forged_from(3), term=PROVED_TERM)
    stuck_beside(p, "c")
    p.voucher("c", "c", 0, COUNT, states=forged_from(3), term=PROVED_TERM)
    assert p.asked() == {}
    assert p.blob().chain.link(5) == (STATES[5], STATES[6])
    assert COUNT - 1 in p.present


def test_who_has_it_all_and_hides_it_is_asked_for_its_list() -> None:
    """It seeds, and shows its pieces one by one: that it wants nothing more is all that it tells."""
    p = hungry("b", "c", "d", holder="b")
    p.voucher("b", "b", 0, COUNT, states=forged_from(3), term=3)
    p.join("d")
    p.join("c", wanting=False)
    stuck_beside(p, "c")
    p.voucher("c", "c", 0, COUNT, term=PROVED_TERM)
    assert [index for _, index in p.asked()["c"]] == [COUNT - 1]


def test_another_is_asked_when_the_first_shows_no_list() -> None:
    p = hungry("b", "c", "d", holder="b")
    p.voucher("b", "b", 0, COUNT, states=forged_from(3), term=3)
    for name in "cd":
        p.join(name, *range(COUNT))
        p.voucher(name, name, 0, COUNT, term=PROVED_TERM)
    p.down("b")
    asked = set()
    for _ in range(60):
        p.wait(1.0)
        asked |= {name for name in "cd" if p.sent(name, GetLinks)}
    assert asked == {"c", "d"}
