"""Who fetches a piece into its zone, and what the others do when nobody does."""

from __future__ import annotations

from p2pd.swarm.commands import Fetch
from p2pd.swarm.downloads import BUSY, SLOW_AGAIN_S
from p2pd.swarm.events import Members
from p2pd.swarm.messages import Have, Refuse
from p2pd.swarm.zones import LEVELS, LIFTED_AFTER, RANKED, Crossing, outranks
from tests.swarm.fakes import contact, digest_of
from tests.swarm.play import BLOB, COUNT, Play, seeder, wanter

A, B, C = (contact(name).node_id for name in "abc")
WIDE = {"sources": 20, "sources_most": 20, "requests_most": 64, "at_one_uploader": 20, "at_one_most": 20}


def theirs(*near: str) -> set[int]:
    """The pieces that one of these ranks higher for than "me@r1"."""
    me, pieces = contact("me@r1").node_id, 0
    for name in near:
        pieces |= outranks(BLOB, contact(name).node_id, me, COUNT)
    return {index for index in range(COUNT) if pieces >> index & 1}


def pieces_asked(p: Play) -> dict[str, set[int]]:
    return {name: {index for _, index in asked} for name, asked in p.asked().items()}


# -- ranks ------------------------------------------------------------------------------------------------------------


def test_of_two_nodes_one_ranks_higher_and_both_see_the_same() -> None:
    for count in (1, 10, RANKED, RANKED + 1, 3 * RANKED + 7):
        assert outranks(BLOB, A, B, count) ^ outranks(BLOB, B, A, count) == (1 << count) - 1


def test_each_wins_its_share() -> None:
    everything = (1 << RANKED) - 1
    wins = [
        (everything & ~(outranks(BLOB, one, me, RANKED) | outranks(BLOB, two, me, RANKED))).bit_count()
        for me, one, two in ((A, B, C), (B, A, C), (C, A, B))
    ]
    assert sum(wins) == RANKED
    assert all(RANKED / 4 < count < RANKED / 2.4 for count in wins)


def test_the_ranks_of_another_blob_are_others() -> None:
    assert outranks(BLOB, A, B, RANKED) != outranks(digest_of("another"), A, B, RANKED)


def test_beyond_so_many_pieces_the_ranks_repeat() -> None:
    long = outranks(BLOB, A, B, 2 * RANKED + 3)
    first = outranks(BLOB, A, B, RANKED)
    assert long & ((1 << RANKED) - 1) == long >> RANKED & ((1 << RANKED) - 1) == first
    assert long >> 2 * RANKED == first & 7


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_what_waits_is_open_to_twice_as_many_after_each_pause() -> None:
    crossing = Crossing()
    crossing.members_changed([0b1111, 0b0111, 0b0011, 0b0001], near=4)  # above this node: 4, 3, 2, 1 and none
    opened = []
    for pause in range(5):
        opened.append(crossing.open & 0b11111)
        crossing.look(0b11111, 100.0 + pause, 1.0)
    assert opened == [0b10000, 0b10000, 0b11000, 0b11110, 0b11111]


def test_what_came_meanwhile_begins_to_wait_anew() -> None:
    crossing = Crossing()
    crossing.members_changed([0b1], near=1)
    crossing.look(0b1, 100.0, 1.0)
    crossing.look(0b0, 101.0, 1.0)
    crossing.look(0b1, 102.0, 1.0)
    assert not crossing.open & 1
    crossing.look(0b1, 103.0, 1.0)
    assert crossing.open & 1


def test_the_memory_of_what_waits_is_bounded() -> None:
    crossing = Crossing()
    crossing.members_changed([-1] * 200, near=200)
    for pause in range(50):
        crossing.look(0b1, 100.0 + pause, 1.0)
    assert len(crossing.waited) == LEVELS
    assert not crossing.open & 1  # 200 would have to ask: after 128 it is the reader's part, and the hedge's


def test_without_a_near_neighbour_everything_is_open() -> None:
    crossing = Crossing()
    assert crossing.open == -1
    crossing.members_changed([0b11], near=1)
    assert crossing.open & 0b11 == 0
    crossing.members_changed([], near=0)
    assert crossing.open == -1


# -- a node -----------------------------------------------------------------------------------------------------------


def test_a_node_without_a_zone_asks_anybody() -> None:
    p = wanter("far@r2", **WIDE)
    p.join("far@r2", *range(COUNT))
    assert pieces_asked(p) == {"far@r2": set(range(COUNT))}


def test_a_node_alone_in_its_zone_asks_anybody() -> None:
    p = wanter("far@r2", name="me@r1", **WIDE)
    p.join("far@r2", *range(COUNT))
    assert pieces_asked(p) == {"far@r2": set(range(COUNT))}


def test_of_two_in_a_zone_each_asks_across_for_its_own_part() -> None:
    p = wanter("near@r1", "far@r2", name="me@r1", **WIDE)
    p.join("near@r1")
    p.join("far@r2", *range(COUNT))
    assert pieces_asked(p) == {"far@r2": set(range(COUNT)) - theirs("near@r1")}
    assert 0 < len(theirs("near@r1")) < COUNT
    brought = min(theirs("near@r1"))
    p.have("near@r1", brought)
    assert pieces_asked(p) == {"near@r1": {brought}}


def test_what_is_in_the_zone_is_asked_for_there() -> None:
    p = wanter("near@r1", "far@r2", name="me@r1", **WIDE)
    p.join("near@r1", *range(COUNT))
    assert pieces_asked(p) == {"near@r1": set(range(COUNT))}
    p.join("far@r2", *range(COUNT))
    assert pieces_asked(p) == {}


def test_who_needs_nothing_brings_nothing_in() -> None:
    p = wanter("near@r1", "far@r2", name="me@r1", **WIDE)
    p.join("near@r1", wanting=False)
    p.join("far@r2", *range(COUNT))
    assert pieces_asked(p) == {"far@r2": set(range(COUNT))}


def test_when_the_other_leaves_its_part_is_ours() -> None:
    p = wanter("near@r1", "far@r2", name="me@r1", **WIDE)
    p.join("near@r1")
    p.join("far@r2", *range(COUNT))
    p.down("near@r1")
    assert pieces_asked(p) == {"far@r2": theirs("near@r1")}


def test_what_nobody_brings_in_is_asked_for_after_a_while() -> None:
    p = wanter("near@r1", "far@r2", name="me@r1", **WIDE)
    p.join("near@r1")
    p.join("far@r2", *range(COUNT))
    p.wait(0.9 * p.node.state.settings.across_late_s)
    assert pieces_asked(p) == {}
    p.wait(2.2 * p.node.state.settings.across_late_s)
    assert pieces_asked(p) == {"far@r2": theirs("near@r1")}


def test_who_is_near_and_says_no_is_gone_round_in_the_end() -> None:
    """It has everything, as it says, and no place for us: it lies, or all of its zone is on its slow line."""
    p = wanter("near@r1", "far@r2", name="me@r1", **WIDE)
    p.join("near@r1", *range(COUNT), load=150)
    p.join("far@r2", *range(COUNT))
    assert pieces_asked(p) == {}
    pauses = 0
    while not [c for c in p.ever if isinstance(c, Fetch) and c.peer == p.numbers["far@r2"]]:
        for rid, _ in p.asked().get("near@r1", ()):
            p.hear("near@r1", Refuse(rid, "busy", 150))
        p.wait(p.node.state.settings.across_late_s)
        pauses += 1
        assert pauses <= LIFTED_AFTER + 6
    assert pauses >= LIFTED_AFTER


def test_who_says_it_has_all_and_sends_nothing_is_in_the_zone_for_nobody() -> None:
    p = wanter("liar@r1", "far@r2", name="me@r1", **WIDE)
    p.join("liar@r1", *range(COUNT))
    p.join("far@r2", *range(COUNT))
    assert p.asked() == {}
    p.wait(2 * p.node.state.settings.late_first_s)
    assert pieces_asked(p)["far@r2"] == set(range(COUNT))
    assert p.blob().crossing.open == -1
    assert p.blob().crossing.near == 0


def test_a_false_zone_changes_nothing_for_those_of_others() -> None:
    p = wanter("liar@r1", "far@r2", name="me@r3", **WIDE)
    p.join("liar@r1")
    p.join("far@r2", *range(COUNT))
    assert pieces_asked(p) == {"far@r2": set(range(COUNT))}


def test_a_zone_whose_pieces_come_slowly_is_asked_last() -> None:
    p = wanter("near@r1", "slow@r2", "fast@r3", "more@r2", "other@r3", name="me@r1", sources=2, at_one_uploader=1)
    p.join("near@r1")
    mine = sorted(set(range(COUNT)) - theirs("near@r1"))
    assert len(mine) >= 3
    p.join("slow@r2", mine[0])
    [(rid, _)] = p.asked()["slow@r2"]
    p.join("fast@r3", mine[1])
    [(other, _)] = p.asked()["fast@r3"]
    p.now += 0.01
    p.checked("fast@r3", other)
    p.now += 1.0
    p.checked("slow@r2", rid)
    rates = {zone: line.rate for zone, line in p.node.downloads._lines.items()}
    assert rates["r2"] < BUSY * rates["r3"]
    p.join("more@r2", mine[2], load=150)  # not now
    p.join("other@r3", mine[2], load=150)
    assert p.asked() == {}
    for name, load in (("more@r2", 10), ("other@r3", 40)):
        p.node.state.peers[p.numbers[name]].load = load
    found = p.node.downloads._uploader(p.blob(), 1 << mine[2])
    assert found
    assert found[0].number == p.numbers["other@r3"]  # busier, but on the faster line
    p.now += SLOW_AGAIN_S
    p.node.state.now = p.now
    found = p.node.downloads._uploader(p.blob(), 1 << mine[2])
    assert found
    assert found[0].number == p.numbers["more@r2"]  # one slow moment is not for ever


# -- the seeder, and mDNS ---------------------------------------------------------------------------------------------


def test_the_seeder_shows_its_pieces_to_other_zones_first_each_in_its_turn() -> None:
    p = seeder("a@r1", "b@r1", "c@r2", "d@r2", "e@r3", pieces=0, name="me@r1", shown_to_one=1)
    shown: list[str] = []
    for index in range(5):
        p.stored(index)
        shown += [name.partition("@")[2] for name, haves in p.told(Have).items() for h in haves if h.pieces == (index,)]
    assert sorted(shown[:2]) == ["r2", "r3"]
    assert shown[2:] == ["r2", "r1", "r1"]


def test_half_of_those_that_mdns_found_are_called_in_one_s_zone() -> None:
    p = Play(name="me@r1")
    p.event(Members(tuple(contact(f"n{i}@r{1 + i % 4}") for i in range(80))))
    called = p.node.announcer._some_members(8)
    assert len(set(called)) == 8
    assert 4 <= sum(c.zone == "r1" for c in called) < 8
    assert len(set(p.node.announcer._some_members(100))) == 80
