"""Playbooks of the seeder: what it pulls, how far ahead, to whom it shows what, and how it ends."""

from __future__ import annotations

import pytest

from p2pd.swarm.announcing import CLAIM_ASK_S
from p2pd.swarm.commands import Allow, Blame, Connect, Count, Drop, Failed, Prove, Pull, Send, StopPull, Upload
from p2pd.swarm.events import PullEnded, Resumed, SizeKnown, Unwant
from p2pd.swarm.messages import Announce, GetLinks, Have, Join, Refuse, Release, Retract, Vouch
from p2pd.swarm.settings import Settings
from p2pd.swarm.state import NEVER
from p2pd.swarm.voucher import retraction_holds
from tests.swarm.fakes import contact, key, true_states, verify, vouch
from tests.swarm.play import ALL, BLOB, COUNT, LENGTH, SIZE, STATES, Play, seeder

WRONG = [STATES[0], *(bytes([i]) * 32 for i in range(1, COUNT)), BLOB]


def shown(p: Play) -> dict[str, list[int]]:
    """What the last event told, and to whom."""
    return {name: [i for m in messages for i in m.pieces] for name, messages in p.told(Have).items()}


# -- the pull ---------------------------------------------------------------------------------------------------------


def test_a_fresh_lease_pulls_at_once() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.lease(term=3)
    assert p.of(Pull, Allow) == [Pull(BLOB, 0, COUNT, STATES[0]), Allow(BLOB, 8)]
    assert p.blob().term == 3
    p.blob().check()


def test_alone_it_runs_eight_pieces_ahead_of_what_came() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.lease()
    p.stored(0)
    assert p.of(Allow) == [Allow(BLOB, 9)]
    p.stored(1)
    assert p.of(Allow) == [Allow(BLOB, 10)]


def test_of_an_unknown_size_all_is_pulled() -> None:
    p = Play()
    p.tracker()
    p.want(size=-1)
    p.lease()
    assert p.of(Pull) == [Pull(BLOB, 0, -1, b"")]
    p.event(SizeKnown(BLOB, SIZE))
    assert p.of(Allow) == [Allow(BLOB, 8)]
    assert p.blob().pulling == ALL
    p.stored(0)
    assert p.present == [0]


def test_while_others_want_it_the_seeder_is_two_pieces_ahead() -> None:
    p = seeder("b", "c", pieces=0)
    assert p.of(Allow) == [Allow(BLOB, 2)]
    p.stored(0, 1)
    assert [c for c in p.ever if isinstance(c, Allow)][-1] == Allow(BLOB, 2)  # nothing has left yet
    claimant = next(name for name in "bc" if 0 in p.blob().neighbours[p.numbers[name]].shown)
    p.request(claimant, 1, 0)
    p.now += 0.02
    p.uploaded(claimant, 1)
    assert p.of(Allow) == [Allow(BLOB, 3)]


def test_what_is_on_its_way_out_is_not_at_stake() -> None:
    p = seeder("b", "c", pieces=2, own_client_share=0.0)
    claims = {i: name for name in "bc" for i in p.blob().neighbours[p.numbers[name]].shown}
    p.request(claims[0], 1, 0)
    assert Allow(BLOB, 3) in p.wait(0.3)
    p.request(claims[1], 2, 1)
    assert Allow(BLOB, 4) in p.wait(0.3)


def test_its_own_client_gets_half_of_upstreams_rate() -> None:
    p = seeder("b", "c", pieces=0)
    for _ in range(2):
        p.now += 0.1
        p.stored(len(p.present), seconds=0.1)
    for _ in range(40):
        p.wait(0.1)
        if p.node.seeder._of[BLOB].allowed > len(p.present):
            p.stored(len(p.present), seconds=0.1)
    assert len(p.present) == COUNT  # nobody takes anything, and yet it ends


def test_a_second_holder_first_hears_what_the_swarm_has() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.lease(term=2, fresh=False)
    assert p.of(Pull) == []
    p.join("b", 0, 1, 2, 3)
    p.voucher("b", "first", 0, 4)
    p.wait(1.1)
    assert p.of(Pull) == [Pull(BLOB, 4, COUNT, STATES[4])]


def test_where_the_state_is_missing_it_is_asked_for() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.lease(term=2, fresh=False)
    p.join("b", 0, 1, 2, 3)
    p.wait(1.1)
    assert p.of(Pull) == []
    assert GetLinks(BLOB, 3, 1) in p.sent("b", GetLinks)
    p.voucher("b", "first", 0, 4)
    p.wait(0.6)
    assert p.of(Pull) == [Pull(BLOB, 4, COUNT, STATES[4])]


def second_holder(has: int, silent: tuple[int, ...]) -> Play:
    """The swarm has so many pieces; those of "silent" only somebody says he has who let us wait."""
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.up("silent")
    p.lease(term=2, fresh=False)
    p.join("b", *range(has))
    p.voucher("b", "first", 0, has)
    p.join("silent", *silent)
    for asked in p.node.downloads.of_blob(BLOB):
        p.hear(p.names[asked.peer], Refuse(asked.rid, "busy", 99))
    peer = p.node.state.peers[p.numbers["silent"]]
    peer.silent, peer.not_before = True, NEVER
    return p


def test_what_only_a_silent_node_says_it_has_is_pulled_last() -> None:
    """A slow one says so of what it pulled and has not got rid of yet, and it is true."""
    p = second_holder(4, (4, 5))
    p.voucher("b", "first", 4, 6)
    assert [c for c in p.wait(2) if isinstance(c, Pull)] == [Pull(BLOB, 6, COUNT, STATES[6])]


def test_where_nobody_tells_the_state_behind_that_it_is_not() -> None:
    p = second_holder(4, (4,))
    assert [c for c in p.wait(2) if isinstance(c, Pull)] == [Pull(BLOB, 4, COUNT, STATES[4])]


def test_only_what_nobody_has_is_pulled() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.lease(term=2, fresh=False)
    p.join("b", 0, 1, 5, 6)
    p.voucher("b", "first", 0, 7)
    p.wait(1.1)
    assert p.of(Pull) == [Pull(BLOB, 2, 5, STATES[2])]
    p.stored(2, 3, 4)
    p.event(PullEnded(BLOB, "end"))
    assert p.of(Pull) == [Pull(BLOB, 7, COUNT, STATES[7])]


def test_a_node_that_cannot_pull_hands_the_lease_back() -> None:
    p = Play()
    p.tracker()
    p.want(can_pull=False)
    p.lease()
    assert p.sent("tracker", Release) == [Release(BLOB, 1, "busy", 0)]
    assert p.of(Pull) == []


def test_a_failed_pull_hands_it_back_with_the_reason() -> None:
    p = seeder("b", pieces=2)
    p.event(PullEnded(BLOB, "limited", 40))
    assert p.sent("tracker", Release) == [Release(BLOB, 1, "limited", 40)]
    assert shown(p) == {"b": [0, 1]}  # nothing is hidden any more
    assert p.blob().term == 0
    p.request("b", 1, 0)
    assert p.of(Upload)  # it keeps serving


def test_alone_is_outside_the_lease() -> None:
    p = Play()
    p.tracker()
    p.want(alone=True)
    assert p.of(Pull) == [Pull(BLOB, 0, COUNT, STATES[0])]
    assert p.blob().term == 0
    p.event(PullEnded(BLOB, "denied"))
    assert p.of(Failed) == [Failed(BLOB, "denied", 0)]


def test_a_pull_that_is_unwanted_stops() -> None:
    p = seeder(pieces=3)
    p.event(Unwant(BLOB))
    assert p.of(StopPull) == [StopPull(BLOB)]
    assert p.sent("tracker", Release) == [Release(BLOB, 1, "unwanted", 0)]
    assert p.present == [0, 1, 2]


def test_the_holder_goes_on_while_a_peer_asks() -> None:
    p = seeder("b", pieces=3)
    p.event(Unwant(BLOB))
    assert p.of(StopPull) == []
    assert p.sent("tracker", Release) == []
    p.stored(3)
    assert p.present == [0, 1, 2, 3]


# -- showing ----------------------------------------------------------------------------------------------------------


def test_a_new_piece_is_shown_to_one() -> None:
    p = seeder("b", "c", pieces=0)
    p.stored(0)
    first = shown(p)
    assert [len(pieces) for pieces in first.values()] == [1]
    p.stored(1)
    assert set(shown(p)) == {"b", "c"} - set(first)


def test_a_claimed_piece_is_gone_for_others() -> None:
    p = seeder("b", "c", pieces=0)
    p.stored(0)
    [claimant] = shown(p)
    [other] = {"b", "c"} - {claimant}
    p.request(other, 1, 0)
    assert p.refused(other) == [(1, "gone")]
    assert [type(c) for c in p.request(claimant, 1, 0)] == [Upload]


def test_a_claimed_piece_goes_before_what_has_left() -> None:
    p = seeder("b", "c", "d", pieces=2, places=1)
    claims = {name: index for name in "bcd" for index in p.blob().neighbours[p.numbers[name]].shown}
    first, second = sorted(claims, key=lambda name: claims[name])
    [third] = set("bcd") - {first, second}
    p.request(first, 1, 0)
    p.now += 0.05
    p.uploaded(first, 1)
    p.request(first, 2, 0)  # once more: it has left already
    p.request(first, 3, 0)
    p.request(third, 2, 0)
    assert p.refused(third) == [(2, "busy")]
    p.request(second, 1, 1)
    assert p.refused(second) == []
    p.now += 0.05
    p.uploaded(first, 2)
    assert [(c.peer, c.index) for c in p.of(Upload)] == [(p.numbers[second], 1)]
    assert p.refused(first) == [(3, "busy")]


def test_a_claim_that_does_not_move_is_open_again() -> None:
    p = seeder("b", "c", pieces=0)
    p.stored(0)
    [first] = shown(p)
    shows = [shown_to for _ in range(40) for shown_to in (p.wait(0.1), shown(p))[1]]
    assert {"b", "c"} <= {first, *shows}
    assert len(p.blob().neighbours[p.numbers["b"]].shown) + len(p.blob().neighbours[p.numbers["c"]].shown) == 1


def test_who_takes_nothing_of_what_it_is_shown_hears_how_far_the_pull_is() -> None:
    """It may have all that it is shown, of a chain that a liar signed, and wait for the rest in vain."""
    p = seeder("b", pieces=4)
    [voucher] = {m for _ in range(40) for m in (p.wait(0.1), p.sent("b", Vouch))[1]}
    assert (voucher.key, voucher.links, voucher.states) == (key("me"), range(4), tuple(STATES[:5]))


def test_who_takes_what_it_is_shown_hears_of_no_link_unasked() -> None:
    p = seeder("b", pieces=4)
    rids = iter(range(1, COUNT))
    for _ in range(40):
        for index in list(p.blob().neighbours[p.numbers["b"]].shown):
            rid = next(rids)
            p.request("b", rid, index)
            p.uploaded("b", rid)
        assert not any(isinstance(c, Send) and isinstance(c.message, Vouch) for c in p.wait(0.1))


def test_a_claim_that_is_being_sent_is_not_open() -> None:
    p = seeder("b", "c", pieces=0)
    p.node.uploads.rate = LENGTH / 1.0  # a slow line: a piece takes a second
    p.stored(0)
    [first] = shown(p)
    p.request(first, 1, 0)
    for _ in range(50):
        p.wait(0.1)
        assert 0 in p.blob().neighbours[p.numbers[first]].shown
        assert shown(p) == {}


def test_a_claim_that_goes_out_slowly_is_open_again() -> None:
    p = seeder("b", "c", pieces=0)
    p.node.uploads.rate = LENGTH / 0.05
    p.stored(0)
    [first] = shown(p)
    [other] = {"b", "c"} - {first}
    p.request(first, 1, 0)
    shows = [name for _ in range(100) for name in (p.wait(0.1), shown(p))[1]]
    assert other in shows
    p.blob().neighbours[p.numbers[first]].shown.pop(0, None)
    p.blob().neighbours[p.numbers[other]].shown[0] = p.now
    assert [type(c) for c in p.request(other, 1, 0)] == [Upload]  # beside the slow one


def test_who_takes_pieces_slowly_is_shown_new_ones_last() -> None:
    p = seeder("slow", "b", "c", pieces=3, ahead_pieces=COUNT)
    for name, seconds in (("b", 0.05), ("c", 0.05), ("slow", 0.9)):
        [index] = p.blob().neighbours[p.numbers[name]].shown
        p.request(name, 1, index)
        p.now += seconds
        p.uploaded(name, 1)
    assert p.node.uploads.is_slow(p.numbers["slow"])
    for index in range(3, 8):  # two to each
        p.stored(index)
    of = {name: len(p.blob().neighbours[p.numbers[name]].shown) for name in ("slow", "b", "c")}
    assert of == {"slow": 1, "b": 2, "c": 2}


def test_nobody_hears_of_a_piece_that_is_another_ones() -> None:
    p = seeder("b", "c", pieces=1)
    p.up("d")
    p.join("d")
    [join] = p.sent("d", Join) or [m for c in p.ever if hasattr(c, "message") and c.peer == p.numbers["d"]
                                   and isinstance(m := c.message, Join)][:1]  # fmt: skip
    assert join.pieces == bytes(2)


def test_to_the_only_neighbour_all_is_shown() -> None:
    p = seeder("b", pieces=2)
    assert sorted(p.blob().neighbours[p.numbers["b"]].shown) == [0, 1]


def test_what_arrived_elsewhere_has_left() -> None:
    p = seeder("b", "c", pieces=1)
    p.have("c", 0)
    assert p.blob().left == 1
    assert p.set(p.blob().left) == [0]


def test_a_claimant_that_leaves_makes_room() -> None:
    p = seeder("b", "c", pieces=0)
    p.stored(0)
    [first] = shown(p)
    [other] = {"b", "c"} - {first}
    p.down(first)
    assert shown(p) == {other: [0]}


def test_the_last_piece_is_shown_as_a_claim_although_the_lease_is_back() -> None:
    p = seeder("b", "c")
    assert [c for c in p.ever if isinstance(c, Prove)] == [Prove(BLOB)]
    assert p.blob().term == 0
    p.ever.clear()
    last = []
    for _ in range(60):
        p.wait(0.1)
        for name in "bc":
            last += [m.term for m in p.sent(name, Have)]
    assert last
    assert set(last) == {1}


def test_when_all_has_left_all_is_told() -> None:
    p = seeder("b", "c")
    p.have("b", *range(COUNT))
    assert not p.blob().seeding
    assert shown(p)["c"] == list(range(COUNT))


def test_nothing_is_hidden_when_nobody_wants() -> None:
    p = seeder()
    assert not p.blob().seeding
    assert p.of(Have) == []


# -- wrong bytes ------------------------------------------------------------------------------------------------------


def test_a_chain_that_misses_the_digest_is_taken_back() -> None:
    p = seeder("b", pieces=0)
    wrong = [*true_states(bytes(32), COUNT)[:COUNT], bytes(32)]
    p.stored(*range(COUNT - 1), states=wrong)
    assert len(p.present) == COUNT - 1
    p.stored(COUNT - 1, states=wrong)
    [retraction] = p.sent("b", Retract)
    assert (retraction.key, retraction.digest, retraction.term) == (key("me"), BLOB, 1)
    assert retraction_holds(retraction, verify)
    assert p.sent("tracker", Release) == [Release(BLOB, 1, "wrong-bytes", 0)]
    assert p.of(Drop) == [Drop(BLOB, ALL >> 1)]
    assert p.of(StopPull)
    assert p.of(Prove) == []
    assert p.present == []
    assert p.sent("b", Join)[-1].pieces == bytes(2)
    assert p.blob().chain.states == {0: STATES[0], COUNT: BLOB}


def test_after_that_its_own_vouchers_count_again() -> None:
    """With a term above the one that was taken back, also where it pulls without a lease."""
    p = Play()
    p.tracker()
    p.want(alone=True)
    p.up("b")
    p.join("b")
    wrong = [*true_states(bytes(32), COUNT)[:COUNT], bytes(32)]
    p.stored(*range(COUNT), states=wrong)
    [retraction] = p.sent("b", Retract)
    p.event(PullEnded(BLOB, "stopped"))
    p.want(alone=True)
    p.wait(1.1)
    p.stored(0)
    [upload] = p.request("b", 5, 0)
    assert upload.vouchers[0].term > retraction.term


def test_its_own_retraction_that_comes_back_is_nothing_new() -> None:
    p = seeder("b", "c", pieces=0)
    wrong = [*true_states(bytes(32), COUNT)[:COUNT], bytes(32)]
    p.stored(*range(COUNT), states=wrong)
    [retraction] = p.sent("b", Retract)
    assert p.hear("c", retraction) == []


def test_own_computing_counts_for_more_than_anothers_word() -> None:
    """A voucher that came from nowhere must not make the seeder believe that upstream lies."""
    p = seeder("b", "c", pieces=2)
    p.voucher("b", "liar", 4, 8, states=WRONG)
    p.stored(2, 3)
    assert [c for c in p.ever if isinstance(c, Blame)] == [
        Blame(b"", key("liar").hex()[:16], "a link that no piece fits", BLOB, 4)
    ]
    assert p.present == [0, 1, 2, 3]
    assert not [c for c in p.ever if isinstance(c, StopPull | Drop)]
    p.stored(*range(4, COUNT))
    assert p.of(Prove)


def test_a_forged_chain_from_the_start_on() -> None:
    p = seeder("b", pieces=0)
    p.voucher("b", "liar", 0, 8, states=WRONG)
    p.stored(0)
    assert p.present == [0]
    assert p.blob().chain.link(0) == (STATES[0], STATES[1])


def test_what_the_pull_stands_on_is_taken_back() -> None:
    """The predecessor's links fall: the pull begins anew, and nobody says that this upstream lied."""
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.lease(term=2, fresh=False)
    p.join("b", 0, 1, 2, 3)
    p.voucher("b", "first", 0, 4, states=WRONG)
    p.wait(1.1)
    assert p.of(Pull) == [Pull(BLOB, 4, COUNT, WRONG[4])]
    p.hear("b", retraction_of("first"))
    p.join("b")
    p.stored(4)
    assert p.of(StopPull) == [StopPull(BLOB)]
    assert p.sent("tracker", Release) == []
    for asked in p.node.downloads.of_blob(BLOB):
        p.hear("b", Refuse(asked.rid, "absent", 0))
    p.event(PullEnded(BLOB, "stopped"))
    assert p.of(Pull) == [Pull(BLOB, 0, COUNT, STATES[0])]


def retraction_of(name: str, term: int = 1) -> Retract:
    from p2pd.swarm.voucher import make_retraction
    from tests.swarm.fakes import signer

    return make_retraction(signer(key(name)), key(name), BLOB, term)


def test_a_strangers_retraction_takes_nothing_from_the_seeder() -> None:
    p = seeder("b", "c", pieces=4)
    p.hear("b", retraction_of("stranger", 9))
    assert p.of(Drop, StopPull) == []
    assert p.present == [0, 1, 2, 3]
    p.stored(4)
    assert p.present == [0, 1, 2, 3, 4]


# -- rivals -----------------------------------------------------------------------------------------------------------


def test_the_higher_term_wins() -> None:
    p = seeder("b", pieces=2)
    p.down("tracker")
    p.voucher("b", "b", 2, 4, term=2)
    p.join("b", term=2)
    assert p.of(StopPull) == [StopPull(BLOB)]
    assert p.blob().term == 0
    assert p.blob().holder == contact("b").node_id
    assert p.present == [0, 1]


def test_a_claim_without_a_link_behind_it_moves_nothing() -> None:
    """The node asks its directory, and goes on."""
    p = seeder("b", pieces=2)
    p.down("tracker")
    p.join("b", term=1 << 40)
    p.voucher("b", "another", 2, 4, term=1 << 40)
    p.have("b", term=1 << 40)
    assert p.of(StopPull) == []
    assert p.blob().term == 1
    assert p.node.deadline <= p.now + 0.5


def test_while_there_is_a_tracker_its_word_counts_not_a_neighbours() -> None:
    p = seeder("b", pieces=2)
    p.join("b", term=9)
    assert p.of(StopPull) == []
    assert p.blob().term == 1


def test_a_lower_term_does_not() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.lease(term=5)
    p.down("tracker")
    p.join("b", term=4)
    assert p.of(StopPull) == []
    assert p.blob().term == 5


def test_with_one_term_the_lower_id_wins() -> None:
    names = sorted(("me", "b", "c", "d", "e"), key=lambda name: contact(name).node_id)
    place = names.index("me")
    for name in set(names) - {"me"}:
        p = seeder(name, pieces=2)
        p.down("tracker")
        p.voucher(name, name, 2, 4)
        p.join(name, term=1)
        assert bool(p.of(StopPull)) == (names.index(name) < place)


def test_the_directory_names_another() -> None:
    p = seeder("b", pieces=2)
    p.answer(holder="b", term=4)
    assert p.of(StopPull) == [StopPull(BLOB)]


def test_who_lost_the_lease_asks_again_but_not_at_once() -> None:
    """Two directories that name different holders would be asked in turn without end."""
    p = seeder("b", pieces=2)
    p.answer(holder="b", term=4)
    assert p.sent("tracker", Announce) == []
    p.wait(CLAIM_ASK_S - 0.01)
    assert p.sent("tracker", Announce) == []
    p.wait(0.02)
    assert len(p.sent("tracker", Announce)) == 1


def test_a_new_pull_waits_for_the_end_of_the_old_one() -> None:
    p = seeder("b", pieces=2)
    p.answer(holder="b", term=4)
    p.lease(term=5)
    assert p.of(Pull) == []
    p.event(PullEnded(BLOB, "stopped"))  # of the first pull
    assert p.of(Pull) == [Pull(BLOB, 2, COUNT, STATES[2])]


def test_the_end_of_an_old_pull_does_not_cut_the_grace_short() -> None:
    p = seeder("b", pieces=2)
    p.answer(holder="b", term=4)
    p.lease(term=5, fresh=False)
    p.event(PullEnded(BLOB, "stopped"))
    assert p.of(Pull) == []
    p.wait(1.1)
    assert p.of(Pull) == [Pull(BLOB, 2, COUNT, STATES[2])]


def test_what_was_here_before_is_not_hidden_by_a_second_lease() -> None:
    p = Play()
    p.event(Resumed(BLOB, SIZE, {i: (STATES[i], STATES[i + 1], None) for i in range(4)}))
    p.tracker()
    p.want()
    p.lease(term=2, fresh=False)
    p.up("b")
    p.join("b")
    assert p.sent("b", Join)[-1].pieces[0] == 0b1111
    p.request("b", 1, 2)
    assert p.sent("b", Refuse) == []
    assert vouch("me", BLOB, SIZE, 0, STATES[:5], 2) in p.of(Upload)[0].vouchers


# -- a slow line ------------------------------------------------------------------------------------------------------


def lines(p: Play, *rates: float) -> None:
    """Neighbours say how fast they send, in MB/s."""
    for name, rate in zip("bcdefg", rates, strict=False):
        p.hear(name, Have(BLOB, (), 0, 0, int(rate * 1e6), 0))


def one_left(p: Play, seconds: float) -> None:
    """The first piece leaves, in so long."""
    neighbours = p.blob().neighbours
    name = next(name for name, number in p.numbers.items() if number in neighbours and 0 in neighbours[number].shown)
    p.request(name, 1, 0)
    p.now += seconds
    p.uploaded(name, 1)


def handed_on(p: Play) -> bool:
    """Whether the next ticks hand the lease on."""
    p.wait(0.6)
    return [m for m in p.sent("tracker", Release) if m.reason == "slow"] == [Release(BLOB, 1, "slow", 0)]


def slow_holder(pieces: int = 6) -> Play:
    """Has just handed the lease on: its line takes three seconds for what the others' carry in 0.01 s."""
    p = seeder(*"bcde", pieces=pieces)
    one_left(p, 3.0)
    lines(p, 10, 10, 10)
    assert handed_on(p)
    return p


def test_a_holder_whose_line_is_far_slower_than_the_others_hands_the_lease_on() -> None:
    p = slow_holder()
    assert p.of(StopPull) == [StopPull(BLOB)]
    assert p.of(Count) == [Count("handed on", 1)]
    assert (p.blob().term, p.blob().holder) == (0, b"")
    p.event(PullEnded(BLOB, "stopped"))
    assert p.of(Pull) == []
    assert [c for c in p.wait(5) if isinstance(c, Pull | Failed)] == []


@pytest.mark.parametrize(
    ("seconds", "rates"),
    [
        (3.0, (10, 10)),  # too few have said anything
        (3.0, (10, 0.1, 0.1, 0.1)),  # most of them are as slow
        (3.0, (0.1, 0.1, 0.1)),  # so much faster they are not
        (0.01, (100, 100, 100)),  # all of it leaves soon enough
    ],
)
def test_else_it_keeps_the_lease(seconds: float, rates: tuple[float, ...]) -> None:
    p = seeder(*"bcde", pieces=6)
    one_left(p, seconds)
    lines(p, *rates)
    assert not handed_on(p)


def test_nor_where_each_transfer_takes_long_but_all_of_it_leaves() -> None:
    """On a busy machine: four pieces in three seconds, each in three."""
    p = seeder(*"bcde", pieces=6, places_first=4)
    shown = {name: next(iter(p.blob().neighbours[p.numbers[name]].shown)) for name in "bcde"}
    for rid, (name, index) in enumerate(shown.items()):
        p.request(name, rid, index)
        assert [u.index for u in p.of(Upload)] == [index]
    p.now += 3.0
    for rid, name in enumerate(shown):
        p.uploaded(name, rid)
    lines(p, 10, 10, 10)
    assert not handed_on(p)


def test_nor_while_a_client_has_nowhere_else_to_go() -> None:
    p = seeder(*"bcde", pieces=6)
    p.want(alone=True)
    one_left(p, 3.0)
    lines(p, 10, 10, 10)
    assert not handed_on(p)


def test_nor_before_it_had_time_to_show() -> None:
    p = seeder(*"bcde", pieces=0)
    p.now += 2.0
    p.stored(*range(6))
    one_left(p, 1.2)
    lines(p, 10, 10, 10)
    assert not handed_on(p)
    p.wait(0.6)
    assert [m.reason for m in p.sent("tracker", Release)] == ["slow"]


def test_nor_for_the_last_piece() -> None:
    p = seeder(*"bcde")
    p.have("b", *range(COUNT - 1))
    one_left(p, 3.0)
    lines(p, 10, 10, 10)
    assert not handed_on(p)


def test_before_anything_has_left_nothing_is_known() -> None:
    p = seeder(*"bcde", pieces=6)
    lines(p, 10, 10, 10)
    assert not handed_on(p)


def test_it_hands_the_lease_on_once() -> None:
    """Where nobody else can pull, the directory gives it back."""
    p = slow_holder()
    p.event(PullEnded(BLOB, "stopped"))
    p.lease(term=2, fresh=False)
    pulled = [c for c in p.wait(1.5) if isinstance(c, Pull)]
    assert pulled == [Pull(BLOB, 6, COUNT, STATES[6])]
    assert not handed_on(p)
    assert p.blob().term == 2


def test_what_nobody_else_has_is_still_shown_to_one_at_a_time() -> None:
    p = slow_holder()
    claims = [i for n in p.blob().neighbours.values() for i in n.shown]
    assert sorted(claims) == [1, 2, 3, 4, 5]
    p.now += 0.5
    claimant = next(name for name in "bcde" if 1 in p.blob().neighbours[p.numbers[name]].shown)
    other = next(name for name in "bcde" if name != claimant)
    p.request(other, 7, 1)
    assert p.refused(other) == [(7, "busy")]  # not that it is gone: the next holder would pull it again
    p.request(claimant, 8, 1)
    [upload] = [c for c in (*p.done, *p.wait(3)) if isinstance(c, Upload)]
    assert (upload.index, [v.term for v in upload.vouchers]) == (1, [1])  # signed while it held the lease


def test_the_next_holder_hears_of_it_at_once() -> None:
    p = slow_holder()
    p.answer(holder="c", term=2)
    assert p.sent("c", Have) == [Have(BLOB, (1, 2, 3, 4, 5), 0, 0, p.sent("c", Have)[0].rate, 0)]
    assert p.told(Have).keys() == {"c"}


def test_the_next_holder_is_met_even_if_there_are_neighbours_enough() -> None:
    p = slow_holder()
    p.node.state.settings = Settings(neighbours_enough=1)
    p.answer("z", "y", holder="z", term=2)
    assert [c.contact.name for c in p.of(Connect)] == ["z"]
    p.up("z")
    p.join("z")
    assert (1, 2, 3, 4, 5) in [m.pieces for m in p.sent("z", Have)]


def test_when_all_of_it_has_left_it_is_a_node_like_any_other() -> None:
    p = slow_holder()
    p.have("b", 1, 2, 3)
    p.have("c", 4, 5)
    assert not p.blob().seeding
    told = {name: sorted(i for m in messages for i in m.pieces) for name, messages in p.told(Have).items()}
    assert told == {name: [0, 1, 2, 3, 4, 5] for name in "bcde"}


def test_what_comes_from_others_needs_no_claim() -> None:
    p = slow_holder()
    p.event(PullEnded(BLOB, "stopped"))
    p.voucher("b", "next", 6, 8, term=2)
    p.have("b", 6)
    [asked] = p.node.downloads.of_blob(BLOB)
    p.checked("b", asked.rid)
    assert 6 in p.present
    assert 6 not in [i for n in p.blob().neighbours.values() for i in n.shown]


def test_an_answer_that_crossed_the_release_is_no_new_lease() -> None:
    """A refusal comes as fast as the directory's answer to the first announcement of the lease."""
    p = seeder("b", pieces=0)
    p.event(PullEnded(BLOB, "limited", 1))
    p.lease(term=1, fresh=False)
    assert [c for c in p.wait(3) if isinstance(c, Pull)] == []
    assert p.blob().term == 0
    p.lease(term=2)
    assert p.blob().term == 2


def test_a_term_that_a_liar_named_does_not_keep_others_from_it() -> None:
    p = seeder("b", pieces=0)
    p.event(PullEnded(BLOB, "unreachable"))
    p.lease(term=1 << 33, fresh=False)
    p.event(PullEnded(BLOB, "unreachable"))
    p.lease(term=2)
    assert p.blob().term == 2
