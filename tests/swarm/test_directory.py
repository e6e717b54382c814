"""The directory: one lease for each blob, who gets it, how it is lost, and when nobody can."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pd.swarm.directory import (
    FAILURE_S,
    FLOOD_MAX,
    GATHER_S,
    MESSAGES_BURST,
    NEW_S,
    PROGRESS_LINKS,
    PROGRESS_S,
    REASONS,
    SLOW_LOSSES,
    SLOW_S,
    STARVED_S,
    TERM_MAX,
    YOUNG_S,
)
from p2pd.swarm.messages import Have, Ping
from tests.swarm.fakes import contact, digest_of
from tests.swarm.office import BLOB, Office

# -- the first lease --------------------------------------------------------------------------------------------------


def test_the_first_wanter_gets_the_lease() -> None:
    o = Office("a", "b")
    answer = o.announce("a")
    assert (answer.holder, answer.term, answer.fresh) == (contact("a").node_id, 1, True)
    assert o.announce("b").holder == contact("a").node_id
    assert o.announce("b").fresh is False
    assert o.holder() == "a"


def test_nobody_gets_it_just_after_the_start() -> None:
    o = Office("a", settled=False)
    assert o.announce("a").holder == b""
    o.wait(NEW_S - 0.2)
    assert o.holder() == ""
    o.wait(0.3)
    assert o.holder() == "a"
    assert o.heard[-1][1].term == 1


def test_a_stand_by_that_is_taken_waits_to_hear_of_a_lease() -> None:
    o = Office("a", "b")
    o.announce("a", primary=False, term=0)
    assert o.holder() == ""
    o.announce("b", primary=True)  # b's first directory is gone
    assert o.holder() == ""
    o.wait(NEW_S / 2)
    o.announce("a", primary=True, term=7)  # the holder comes over
    assert (o.holder(), o.term()) == ("a", 7)


def test_a_stand_by_that_is_taken_grants_after_a_while() -> None:
    o = Office("a", "b")
    o.announce("a", primary=False)
    o.announce("b", primary=True)
    o.wait(NEW_S + 0.2)
    assert o.holder() == "b"


def test_who_heard_of_a_lease_elsewhere_is_not_granted_another_at_once() -> None:
    """Its tracker died, and this directory has never heard of the blob: the holder may still be on its way here."""
    o = Office("a", "b")
    assert o.announce("b", heard=7).holder == b""
    o.wait(NEW_S / 2)
    o.announce("a", term=7)
    assert (o.holder(), o.term()) == ("a", 7)


def test_a_lease_that_was_heard_of_and_does_not_come_is_followed_by_a_higher_term() -> None:
    o = Office("a", "b")
    o.announce("b", heard=7)
    o.wait(NEW_S + 0.2)
    assert (o.holder(), o.term()) == ("b", 8)


def test_a_holder_that_made_way_for_a_lease_elsewhere_holds_none_here() -> None:
    """Else it is named again, makes way again, and so on for as long as the other directory insists."""
    o = Office("a", "b")
    o.announce("a")
    assert o.announce("a", heard=1000).holder == b""
    o.wait(NEW_S + 0.2)
    assert o.term() == 1001, "higher than what the other directory names"
    o.announce(o.holder(), term=1001, heard=1000)
    assert o.term() == 1001


def test_a_grant_is_put_off_only_once_by_who_hears_of_leases() -> None:
    o = Office("a", "liar")
    o.announce("a")
    o.release("a", "unwanted")
    for term in range(100, 200):
        o.announce("liar", wanting=False, heard=term)
        o.wait(NEW_S / 10)
        if term == 112:
            o.announce("a")
    assert o.holder() == "a"


def test_what_was_heard_of_does_not_shut_out_the_true_holder() -> None:
    o = Office("a", "liar")
    o.announce("liar", wanting=False, heard=1 << 40)
    o.announce("a", term=3)
    assert (o.holder(), o.term()) == ("a", 3)


def test_a_stand_by_grants_nothing() -> None:
    o = Office("a")
    o.announce("a", primary=False)
    o.wait(30)
    assert o.holder() == ""


def test_a_node_that_cannot_pull_gets_no_lease() -> None:
    o = Office("a", "b")
    o.announce("a", can_pull=False)
    assert o.holder() == ""
    o.announce("b")
    assert o.holder() == "b"


def test_a_node_that_does_not_want_gets_no_lease() -> None:
    o = Office("a")
    o.announce("a", wanting=False, complete=True)
    o.wait(5)
    assert o.holder() == ""
    assert not o.directory.watching


def test_who_can_pull_later_gets_it_then() -> None:
    o = Office("a")
    o.announce("a", can_pull=False)
    assert o.failures() == []
    o.announce("a", can_pull=True)
    assert o.holder() == "a"


def test_a_waiting_client_comes_before_a_prefetch() -> None:
    for seed in range(10):
        o = Office("a", "b", "c", seed=seed, settled=False)
        for name in "abc":
            o.announce(name, waiting=name == "b")
        o.wait(NEW_S + 0.2)
        assert o.holder() == "b"


# -- adoption and terms -----------------------------------------------------------------------------------------------


def test_a_new_directory_adopts_the_lease_that_is_named() -> None:
    o = Office("a", "b", settled=False)
    o.announce("b")
    o.announce("a", term=5, progress=40)
    assert (o.holder(), o.term()) == ("a", 5)
    o.release("a", "unwanted")
    o.wait(NEW_S + 0.2)
    assert (o.holder(), o.term()) == ("b", 6)  # terms go on from there


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_of_two_holders_the_higher_term_wins(order: str) -> None:
    o = Office("a", "b", settled=False)
    for name in order:
        o.announce(name, term={"a": 3, "b": 4}[name])
    assert (o.holder(), o.term()) == ("b", 4)
    last = {name: answer for name, answer in o.heard}
    assert last["a"].holder == contact("b").node_id or order == "ab"
    assert ("a", contact("b").node_id) in [(name, answer.holder) for name, answer in o.heard]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_of_two_holders_with_one_term_the_lower_id_wins(order: str) -> None:
    o = Office("a", "b", settled=False)
    for name in order:
        o.announce(name, term=3)
    winner = min("ab", key=lambda name: contact(name).node_id)
    loser = max("ab", key=lambda name: contact(name).node_id)
    assert o.holder() == winner
    told = [answer.holder for name, answer in o.heard if name == loser]
    assert told[-1] == contact(winner).node_id


def test_a_lease_that_was_lost_meanwhile_is_not_adopted() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.disconnect("a")
    assert (o.holder(), o.term()) == ("b", 2)
    o.release("b", "denied")
    o.connect("a")
    o.announce("a", term=1, wanting=False)  # it has not heard yet
    assert o.holder() == ""
    o.announce("a", term=1)
    assert (o.holder(), o.term()) == ("a", 3)


def test_a_term_beyond_reason_is_not_adopted() -> None:
    """Else one liar could push the next grant's term beyond what the wire carries."""
    o = Office("a", "b")
    o.announce("a", term=1 << 40)
    assert o.term() <= TERM_MAX
    o.announce("b", term=TERM_MAX)
    o.disconnect("b")
    assert o.term() <= TERM_MAX + 1


def test_a_holder_cannot_push_its_own_term_beyond_reason() -> None:
    o = Office("a", "b")
    o.announce("a")
    assert o.holder() == "a"
    o.announce("a", term=1 << 40)
    assert o.term() <= TERM_MAX


# -- how a lease is lost ----------------------------------------------------------------------------------------------


def test_by_disconnecting() -> None:
    o = Office("a", "b", "c")
    o.announce("a")
    o.announce("b")
    assert o.disconnect("a") == ["b"]
    assert (o.holder(), o.term()) == ("b", 2)
    assert o.heard[-1][1].fresh is False


def test_by_leaving_the_blob() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.withdraw("a")
    assert o.holder() == "b"


def test_by_no_progress() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.wait(PROGRESS_S - 0.2)
    assert o.holder() == "a"
    o.wait(0.4)
    assert (o.holder(), o.term()) == ("b", 2)
    assert [name for name, _ in o.heard[-2:]] == ["b", "a"]  # the loser hears of it


def test_progress_keeps_it() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    for progress in range(1, 30):
        o.wait(PROGRESS_S / 2)
        o.announce("a", term=1, progress=progress)
    assert (o.holder(), o.term()) == ("a", 1)


def test_the_same_progress_twice_is_none() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    for _ in range(4):
        o.wait(PROGRESS_S / 3)
        o.announce("a", term=1, progress=0)
    assert o.holder() == "b"


def test_a_slow_link_has_four_times_its_last() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.wait(8.0)
    o.announce("a", term=1, progress=1)  # eight seconds for a link
    o.wait(PROGRESS_LINKS * 8.0 - 1)
    assert o.holder() == "a"
    o.wait(1.5)
    assert o.holder() == "b"


def test_many_links_in_one_announcement_count_each() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.wait(8.0)
    o.announce("a", term=1, progress=100)
    o.wait(PROGRESS_S + 0.2)
    assert o.holder() == "b"


def test_who_is_alone_keeps_it() -> None:
    o = Office("a")
    o.announce("a")
    o.wait(10 * PROGRESS_S)
    assert (o.holder(), o.term()) == ("a", 1)


def test_two_losses_in_a_row_mean_a_slow_upstream() -> None:
    o = Office("a", "b", "c", "d")
    for name in "abcd":
        o.announce(name)
    o.wait(PROGRESS_S + 0.2)
    first = o.holder()
    assert first != "a"
    assert SLOW_LOSSES == 2
    o.wait(2 * PROGRESS_S)
    assert (o.holder(), o.term()) == (first, 2)  # the lease stays, and the allowance doubles
    o.wait(2 * PROGRESS_S)
    assert o.holder() != first
    second = o.holder()
    o.wait(2.5 * PROGRESS_S)
    assert o.holder() == second
    o.announce(second, term=o.term(), progress=1)  # upstream moves again: back to the usual
    o.wait(0.2)
    o.announce(second, term=o.term(), progress=2)
    o.wait(PROGRESS_S + 0.3)
    assert o.holder() not in ("", second)


def test_who_lost_it_by_no_progress_is_not_asked_again_at_once() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.wait(PROGRESS_S + 0.2)
    o.disconnect("b")
    assert o.holder() == ""
    o.wait(FAILURE_S)
    assert o.holder() == "a"


# -- who can ----------------------------------------------------------------------------------------------------------

OTHER = digest_of("other")
FAULTS = sorted(set(REASONS) - {"done", "unwanted", "slow", "busy", "limited"})


@pytest.mark.parametrize("reason", FAULTS)
def test_a_holder_that_cannot_hands_it_on(reason: str) -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    assert "b" in o.release("a", reason)
    assert (o.holder(), o.term()) == ("b", 2)
    assert o.failures() == []
    o.announce("a")
    assert o.holder() == "b"


def test_a_holder_with_a_slow_line_gives_way() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    before = len(o.heard)
    o.release("a", "slow")
    assert o.holder() == "b"
    [answer] = [answer for to, answer in o.heard[before:] if to == "a"]
    assert (answer.holder, answer.peers) == (contact("b").node_id, (contact("b"),))  # they are to meet


def next_holders(wait_s: float) -> set[str]:
    """Who gets another blob's lease, that long after "a" found its line slow: over many throws of the dice."""
    found = set()
    for seed in range(20):
        o = Office("a", "b", "c", seed=seed)
        for name in "ab":
            o.announce(name)
        o.release("a", "slow")
        o.release("b", "done")
        o.wait(wait_s)
        for name in "cab":
            o.announce(name, OTHER)
        o.release("c", "denied", blob=OTHER)
        found.add(o.holder(OTHER))
    return found


def test_a_node_with_a_slow_line_comes_last_for_other_blobs_too() -> None:
    assert next_holders(0.0) == {"b"}


def test_that_is_not_for_ever() -> None:
    assert next_holders(SLOW_S + 1) == {"a", "b"}


def test_alone_it_gets_the_lease_back() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b", can_pull=False)
    o.release("a", "slow")
    assert (o.holder(), o.term()) == ("a", 2)
    assert o.failures() == []


@pytest.mark.parametrize("reason", ["denied", "missing", "busy"])
def test_a_lease_of_which_nothing_came_is_fresh_for_the_next(reason: str) -> None:
    o = Office("a", "b", "c")
    for name in "abc":
        o.announce(name)
    o.release(o.holder(), reason)
    assert o.heard[-1][1].fresh
    o.announce(o.holder(), term=o.term(), progress=3)
    o.release(o.holder(), reason)
    assert not o.heard[-1][1].fresh


@pytest.mark.parametrize("reason", ["unreachable", "bad-answer", "wrong-bytes"])
def test_a_lease_that_broke_off_is_not(reason: str) -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.release("a", reason)
    assert o.holder() == "b"
    assert not o.heard[-1][1].fresh


@pytest.mark.parametrize("reason", FAULTS)
def test_only_when_every_wanter_has_failed_is_it_a_failure(reason: str) -> None:
    o = Office("a", "b", "c")
    for name in "abc":
        o.announce(name)
    for count in range(3):
        assert o.failures() == []
        before = o.holder()
        o.release(before, reason)
        if reason == "wrong-bytes" and count == 1:
            break  # two are enough, below
    o.wait(YOUNG_S + 0.2)
    assert sorted(o.failures()) == [("a", reason), ("b", reason), ("c", reason)]
    assert o.holder() == ""


@pytest.mark.parametrize("reason", ["unreachable", "bad-answer"])
def test_one_bad_answer_to_who_came_first_is_nobody_s_failure_yet(reason: str) -> None:
    """The others of the rollout come some 100 ms later. Told so at once, its containerd would pull a second copy."""
    o = Office("a", "b")
    o.announce("a")
    o.release("a", reason)
    assert o.announce("a").failure == ""
    o.wait(YOUNG_S / 2)
    assert o.failures() == []
    assert o.announce("b").holder == contact("b").node_id


def test_a_failure_is_told_once() -> None:
    """Not by each tick, nor to all at each one's announcement: ten thousand wanters would be told a hundred million
    times."""
    names = [f"n{i}" for i in range(20)]
    o = Office(*names)
    for name in names:
        o.announce(name)
    for _ in names:
        o.release(o.holder(), "denied")
    assert sorted(name for name, _ in o.failures()) == sorted(names)
    since = len(o.heard)
    o.wait(5)
    assert o.failures(since) == []
    answer = o.announce(names[0])
    assert answer.failure == "denied"
    assert len(o.heard) == since + 1


def test_somebody_who_cannot_pull_has_not_failed() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b", can_pull=False)
    o.release("a", "denied")
    assert o.failures() == []
    o.announce("b", can_pull=True)
    assert o.holder() == "b"


def test_a_newcomer_may_be_able() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.release("a", "denied")
    assert o.failures() == [("a", "denied")]
    o.announce("b")
    assert o.holder() == "b"
    assert o.announce("a").failure == ""


def test_after_a_while_it_is_asked_again() -> None:
    o = Office("a")
    o.announce("a")
    o.release("a", "unreachable")
    o.wait(FAILURE_S - 1)
    assert o.holder() == ""
    o.wait(1.5)
    assert o.holder() == "a"


def test_a_new_wish_is_another_try() -> None:
    o = Office("a")
    o.announce("a")
    o.release("a", "unreachable")
    o.announce("a", wanting=False)
    o.wait(3)
    o.announce("a")
    o.wait(1.2)
    assert o.holder() == "a"


def test_whoever_has_all_of_it_there_is_no_failure() -> None:
    o = Office("a", "b")
    o.announce("b", wanting=False, complete=True)
    o.announce("a", stuck=True)
    o.release("a", "denied")
    assert o.failures() == []


@pytest.mark.parametrize("reason", ["busy", "unwanted"])
def test_handing_it_back_without_a_fault(reason: str) -> None:
    o = Office("a", "b")
    o.announce("a")
    o.release("a", reason)
    assert o.failures() == []
    o.announce("b")
    assert o.holder()


def test_an_unknown_reason_is_passed_over() -> None:
    o = Office("a")
    o.announce("a")
    o.release("a", "because")
    assert o.holder() == "a"


def test_who_does_not_hold_it_cannot_hand_it_back() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.release("b", "denied")  # it pulled by itself, and failed
    assert o.holder() == "a"
    o.release("a", "denied")
    assert sorted(o.failures()) == [("a", "denied"), ("b", "denied")]


def test_wrong_bytes_twice_is_a_failure() -> None:
    o = Office("a", "b", "c", "d")
    for name in "abcd":
        o.announce(name)
    o.release(o.holder(), "wrong-bytes")
    assert o.failures() == []
    assert o.holder()
    o.release(o.holder(), "wrong-bytes")
    assert sorted(o.failures()) == [(name, "wrong-bytes") for name in "abcd"]
    o.wait(FAILURE_S + 1)
    assert o.holder()  # upstream may have healed


def test_wrong_bytes_once_then_done() -> None:
    o = Office("a", "b", "c", "d")
    for name in "abcd":
        o.announce(name)
    for _ in range(3):
        o.release(o.holder(), "wrong-bytes")
        holder = o.holder()
        assert holder
        o.release(holder, "done")
        assert o.failures() == []
        o.withdraw(holder)
        for name in "abcd":
            o.wait(FAILURE_S)
            o.announce(name)


# -- a registry that asks to wait -------------------------------------------------------------------------------------


def test_limited_holds_the_whole_fleet_back() -> None:
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    o.release("a", "limited", 60)
    assert o.holder() == ""
    assert sorted(o.failures()) == [("a", "limited"), ("b", "limited")]
    assert all(answer.hold_s == 60 for _, answer in o.heard[-2:])
    o.wait(30)
    assert o.announce("b").hold_s == 30
    o.wait(30.2)
    assert o.holder()


def test_another_registry_is_not_held_back() -> None:
    o = Office("a", "b")
    other = digest_of("other")
    o.announce("a")
    o.release("a", "limited", 60)
    o.announce("b", blob=other, upstream="other")
    assert o.holder(other) == "b"
    assert o.heard[-1][1].hold_s == 0


def test_the_longest_hold_counts() -> None:
    o = Office("a", "b")
    other = digest_of("other")
    o.announce("a")
    o.announce("b", blob=other)
    o.release("a", "limited", 60)
    o.release("b", "limited", 5, blob=other)
    o.wait(10)
    assert o.holder() == ""


# -- when it is there -------------------------------------------------------------------------------------------------


def test_done_gives_the_lease_to_nobody() -> None:
    """The release comes before the announcement that the blob is complete: nobody must pull the rest in between."""
    o = Office("a", "b")
    o.announce("a")
    o.announce("b")
    assert o.release("a", "done") == []
    assert o.holder() == ""
    o.announce("a", wanting=False, complete=True)
    o.announce("b")
    o.wait(3)
    assert o.holder() == ""


def test_only_who_is_stuck_gets_the_lease_then() -> None:
    o = Office("a", "b", "c")
    o.announce("a", wanting=False, complete=True)
    o.announce("b")
    o.announce("c")
    assert o.holder() == ""
    o.announce("c", stuck=True)
    o.wait(STARVED_S / 2)
    assert o.holder() == ""
    o.wait(STARVED_S)
    assert o.holder() == "c"


def test_holdings_count_as_complete() -> None:
    o = Office("a", "b")
    o.holdings("a", BLOB, digest_of("other"))
    answer = o.announce("b", need=5)
    assert o.holder() == ""
    assert [peer.name for peer in answer.peers] == ["a"]


def test_when_the_last_copy_goes_the_lease_is_granted() -> None:
    o = Office("a", "b")
    o.holdings("a", BLOB)
    o.announce("b")
    o.disconnect("a")
    o.wait(NEW_S + 0.2)
    assert o.holder() == "b"


# -- several blobs ----------------------------------------------------------------------------------------------------


def test_the_leases_of_an_image_are_spread() -> None:
    names = [f"n{i}" for i in range(8)]
    layers = [digest_of(f"layer {i}") for i in range(8)]
    o = Office(*names)
    for name in names:  # all at once: the first has a head start with every layer
        for layer in layers:
            o.announce(name, blob=layer)
    o.wait(2 * GATHER_S)
    assert {o.holder(layer) for layer in layers} == set(names)


def test_who_holds_one_already_gets_another_if_nobody_else_asks() -> None:
    o = Office("a", "b")
    other = digest_of("other")
    o.announce("a")
    o.announce("a", blob=other)
    assert o.holder(other) == ""
    o.wait(GATHER_S + 0.1)
    assert o.holder(other) == "a"


def test_after_the_lease_is_back_the_node_counts_as_free() -> None:
    o = Office("a")
    o.announce("a")
    o.release("a", "done")
    other = digest_of("other")
    o.announce("a", blob=other)
    assert o.holder(other) == "a"
    assert o.directory.summary()["leases"] == 1


# -- neighbours -------------------------------------------------------------------------------------------------------


def test_neighbours_are_handed_out() -> None:
    names = [f"n{i}" for i in range(60)]
    o = Office(*names)
    for name in names:
        o.announce(name)
    seen: set[str] = set()
    for _ in range(40):
        peers = [peer.name for peer in o.announce("n0", need=10).peers]
        assert len(peers) == len(set(peers)) == 10
        assert "n0" not in peers
        seen.update(peers)
    assert len(seen) == 59  # at random, without favour
    assert len(o.announce("n0", need=64).peers) == 24
    assert o.announce("n0", need=0).peers == ()


def test_half_of_them_are_of_the_asker_s_zone() -> None:
    racks = [f"n{i}@rack{i % 3}" for i in range(90)]
    o = Office(*racks, "alone@cellar", "nowhere")
    for name in (*racks, "alone@cellar", "nowhere"):
        o.announce(name)
    for asker, near in (("n0@rack0", 10), ("n1@rack1", 10)):
        zone = asker.partition("@")[2]
        for _ in range(10):
            peers = [peer.name for peer in o.announce(asker, need=20).peers]
            assert len(set(peers)) == 20
            assert near <= sum(name.endswith(zone) for name in peers) <= near + 9
    for asker in ("alone@cellar", "nowhere"):
        assert len({peer.zone for peer in o.announce(asker, need=20).peers}) >= 3


def test_a_zone_of_few_is_handed_out_whole_and_without_who_left() -> None:
    few = ["a@small", "b@small", "c@small", "d@small"]
    many = [f"n{i}@big" for i in range(60)]
    o = Office(*few, *many)
    for name in (*few, *many):
        o.announce(name)
    o.withdraw("c@small")
    o.disconnect("d@small")
    peers = {peer.name for peer in o.announce("a@small", need=10).peers}
    assert "b@small" in peers
    assert not peers & {"c@small", "d@small"}
    o.withdraw("b@small")
    assert not {p.name for p in o.announce("a@small", need=24).peers} & set(few)


def test_neighbours_are_not_those_that_came_at_the_same_time() -> None:
    names = [f"n{i}" for i in range(300)]
    o = Office(*names)
    early = 0
    for name in names:
        peers = o.announce(name, need=24).peers
        early += sum(int(peer.name[1:]) < 150 for peer in peers) if name == "n299" else 0
    assert early >= 6  # of 24; by who was told to the fewest alone 0 to 3


def test_a_node_that_cannot_be_reached_is_not_handed_out() -> None:
    o = Office("a", "b")
    o.directory.connected(contact("b").__class__(contact("b").node_id, "b", "", "", 0))
    o.announce("b")
    assert o.announce("a", need=5).peers == ()


def test_a_node_that_connects_anew_is_handed_out_as_it_is_now() -> None:
    o = Office("a", "b")
    o.announce("b")
    o.directory.connected(replace(contact("b"), host="moved"))
    assert [peer.host for peer in o.announce("a", need=5).peers] == ["moved"]


def test_who_is_gone_is_not_handed_out() -> None:
    names = [f"n{i}" for i in range(10)]
    o = Office(*names)
    for name in names:
        o.announce(name)
    for name in names[::2]:
        o.disconnect(name)
    for name in names[1::4]:
        o.withdraw(name)
    left = set(names[3::4])
    for name in left:
        assert {peer.name for peer in o.announce(name, need=20).peers} == left - {name}
    assert o.directory.summary()["members"] == len(left)


def test_a_size_is_passed_on_as_a_hint() -> None:
    o = Office("a", "b")
    assert o.announce("a", size=-1).size == -1
    o.announce("a", size=500)
    assert o.announce("b", size=-1).size == 500
    o.announce("b", size=600)
    assert o.announce("a", size=-1).size == 500  # the first stays; it proves nothing anyway


# -- what is no message for it ----------------------------------------------------------------------------------------


def test_a_stranger_is_not_heard() -> None:
    o = Office("a")
    assert o.announce("stranger") is None
    assert o.directory.summary() == {"nodes": 1, "blobs": 0, "members": 0, "leases": 0}


def test_other_messages_are_passed_over() -> None:
    o = Office("a")
    assert o.tell("a", Ping()) == []
    assert o.tell("a", Have(BLOB, (1,), 1, 0, 0, 0)) == []


def test_words_about_an_unknown_blob() -> None:
    o = Office("a")
    assert o.withdraw("a") == []
    assert o.release("a", "denied") == []
    assert o.disconnect("nobody") == []


def test_nothing_stays_of_who_is_gone() -> None:
    o = Office("a", "b")
    for i in range(20):
        o.announce("a", blob=digest_of(str(i)))
        o.announce("b", blob=digest_of(str(i)))
    o.disconnect("a")
    o.disconnect("b")
    assert o.directory.summary() == {"nodes": 0, "blobs": 0, "members": 0, "leases": 0}
    assert not o.directory.watching


# -- a lease that is sat on -------------------------------------------------------------------------------------------


def announce_for(
    o: Office, seconds: float, *, holder: str, stuck: tuple[str, ...], others: tuple[str, ...] = ()
) -> None:
    """The holder says that it makes a little progress; some say that nothing comes."""
    for _ in range(int(seconds)):
        o.announce(holder, term=o.term() if o.holder() == holder else 0, progress=int(o.now) // 3)
        for name in stuck:
            o.announce(name, stuck=True)
        for name in others:
            o.announce(name)
        o.wait(1.0)


def test_a_lease_goes_on_when_most_of_the_others_get_nothing() -> None:
    o = Office("sitter", "b", "c")
    o.announce("sitter")
    announce_for(o, 7, holder="sitter", stuck=("b", "c"))
    assert o.holder() in ("b", "c")


def test_what_a_stand_by_sees_does_not_make_it_patient() -> None:
    """It was told of a lease that is sat on, and could give it to nobody. When its word counts, they have waited."""
    o = Office("sitter", "b", "c")
    o.announce("sitter", term=7, primary=False)
    for seconds, primary in ((20, False), (3, True)):
        assert o.holder() == "sitter"
        for _ in range(seconds):
            for name in "bc":
                o.announce(name, stuck=True, primary=primary)
            o.wait(1.0)
    assert o.holder() in ("b", "c")


def test_half_of_the_others_take_it_from_nobody() -> None:
    o = Office("a", "b", "c")
    o.announce("a")
    announce_for(o, 30, holder="a", stuck=("b",), others=("c",))
    assert o.holder() == "a"


def test_who_was_stuck_once_and_is_no_more_does_not_count() -> None:
    o = Office("a", "b")
    o.announce("a")
    for _ in range(10):
        announce_for(o, 2, holder="a", stuck=("b",))
        announce_for(o, 2, holder="a", stuck=(), others=("b",))
    assert o.holder() == "a"


def test_who_sat_on_a_lease_does_not_claim_it_back_by_a_high_term() -> None:
    o = Office("sitter", "b")
    o.announce("sitter", term=1000)
    assert o.holder() == "sitter"
    announce_for(o, 7, holder="sitter", stuck=("b",))
    assert o.holder() == "b"
    o.announce("sitter", term=5000, progress=99)
    assert o.holder() == "b"


# -- floods -----------------------------------------------------------------------------------------------------------


def test_a_node_is_answered_so_often_and_no_oftener() -> None:
    o = Office("flooder", "b")
    answered = sum(o.announce("flooder", digest_of(str(i % 50))) is not None for i in range(MESSAGES_BURST + 500))
    assert answered == MESSAGES_BURST
    assert o.announce("b") is not None
    o.now += 1.0
    assert o.announce("flooder") is not None


def test_who_goes_on_far_beyond_that_floods() -> None:
    o = Office("flooder", "b")
    node = contact("flooder").node_id
    for i in range(MESSAGES_BURST + FLOOD_MAX):
        o.announce("flooder", digest_of(str(i % 50)))
    assert not o.directory.is_flooded_by(node)
    o.announce("flooder")
    assert o.directory.is_flooded_by(node)
    assert not o.directory.is_flooded_by(contact("b").node_id)


def test_lists_of_holdings_cost_by_their_length() -> None:
    o = Office("a")
    for _ in range(MESSAGES_BURST // (1 + 64)):
        o.holdings("a", *[digest_of(str(i)) for i in range(1024)])
    assert sum(o.announce("a", digest_of(str(i))) is not None for i in range(100)) < 70


def test_one_pause_is_counted_once() -> None:
    """Whoever comes while it lasts meets the same one, and says so; the registry was asked once."""
    o = Office("a", "b", "c", "d", "e")
    for name in "abcde":
        o.announce(name)
    for name in "abcd":
        o.release(name, "limited", retry_s=2)
    assert o.failures() == []
    o.wait(2.2)
    assert o.holder() != ""


def test_a_short_pause_is_no_failure_to_who_met_it_alone() -> None:
    """The first node of a rollout: it announces again while nobody else wants the blob yet."""
    o = Office("a", "b")
    o.announce("a")
    o.release("a", "limited", retry_s=2)
    assert o.announce("a").failure == ""
    assert o.announce("b").failure == ""
    assert o.failures() == []
    o.wait(2.2)
    assert o.holder() != ""
