"""Playbooks of sending: places, shares, claims, refusals, and who is told that there is room again."""

from __future__ import annotations

from random import Random
from statistics import mean

import pytest

from p2pd.swarm.commands import Count, Send, StopUpload, Upload
from p2pd.swarm.events import Stored
from p2pd.swarm.messages import Cancel, GetLinks, Have, Refuse, Request, Vouch
from p2pd.swarm.peer import RATE_MAX, blend
from p2pd.swarm.state import PROVED_TERM
from p2pd.swarm.uploads import FIRST_ONES, SLOW_FACTOR, TURN_LEAST, TURN_PIECES
from p2pd.swarm.voucher import voucher_holds
from tests.swarm.fakes import digest_of, key, verify
from tests.swarm.play import BLOB, COUNT, LENGTH, STATES, Play, seeder, wanter


def holder(*neighbours: str, pieces: int = COUNT - 1, **settings: object) -> Play:
    """A node that has pieces, hides none of them, and wants the rest."""
    p = wanter("source", **settings)
    p.join("source", *range(COUNT))
    while len(p.present) < pieces:
        p.checked("source", p.node.downloads.of_blob(BLOB)[0].rid)
    p.down("source")
    for name in neighbours:
        p.up(name)
        p.join(name)
    return p


def test_a_request_is_served() -> None:
    p = holder("b")
    p.request("b", 7, 2, linked=True)
    assert p.done == [Upload(p.numbers["b"], 7, BLOB, 2, ())]


def test_the_voucher_goes_before_the_piece_where_it_is_not_known() -> None:
    p = holder("b")
    [upload] = p.request("b", 7, 2, linked=False)
    [voucher] = upload.vouchers
    assert voucher.key == key("seeder")  # handed on as it was made
    assert voucher.first <= 2 < voucher.first + len(voucher.states) - 1


# -- places -----------------------------------------------------------------------------------------------------------


def receivers(p: Play, *names: str, sources: int = 4) -> None:
    """Each asks for piece 0 and says how many it asks."""
    for name in names:
        p.request(name, 1, 0, sources=sources)


def uploads(p: Play) -> list[tuple[str, int, int]]:
    """(peer, rid, piece) of what is sent now."""
    return [(p.names[c.peer], c.rid, c.index) for c in p.of(Upload)]


def test_who_asks_at_four_takes_a_quarter_and_the_fifth_is_refused() -> None:
    p = holder(*"bcdef")
    for name, load in zip("bcde", (25, 50, 75, 100), strict=True):
        p.request(name, 1, 0, sources=4)
        assert uploads(p) == [(name, 1, 0)]
        assert p.node.uploads.load == load
    p.request("f", 1, 0, sources=4)
    assert p.sent("f") == [Refuse(1, "busy", 100)]
    assert p.of(Count) == [Count("refused", 1)]
    assert uploads(p) == []
    assert sorted(p.names[n] for n in p.node.uploads.served()) == list("bcde")


@pytest.mark.parametrize(("sources", "places"), [(1, 1), (2, 2), (3, 3), (4, 4), (6, 4), (64, 4)])
def test_a_receivers_sources_say_what_it_takes_of_the_line(sources: int, places: int) -> None:
    p = holder(*"bcdefg")
    receivers(p, *"bcdefg", sources=sources)
    assert len(p.node.uploads.served()) == places


def test_a_receiver_of_this_line_alone_leaves_no_room_until_it_asks_elsewhere_too() -> None:
    p = holder("b", "c", "d")
    p.request("b", 1, 0, sources=1)
    p.request("c", 1, 0, sources=2)
    assert p.refused("c") == [(1, "busy")]
    p.request("b", 2, 1, sources=2)  # behind its first: it has found another source
    assert p.node.uploads.load == 50
    p.request("c", 2, 0, sources=2)
    assert uploads(p) == [("c", 2, 0)]


def test_a_peer_keeps_its_place_piece_after_piece() -> None:
    p = holder(*"bcdef")
    receivers(p, *"bcde")
    p.request("f", 1, 0, sources=4)
    for rid in range(2, 7):
        index = p.present[rid]
        assert p.request("b", rid, index, sources=4) == []  # queued in its own place
        p.now += 0.02
        p.uploaded("b", rid - 1)
        assert uploads(p) == [("b", rid, index)]
        assert p.told(Have) == {}
        p.request("f", rid, 0, sources=4)
        assert p.refused("f") == [(rid, "busy")]


def test_a_place_without_a_next_request_is_free_at_once() -> None:
    p = holder(*"bcdef")
    receivers(p, *"bcde")
    p.now += 0.1
    p.uploaded("b", 1)
    assert p.node.uploads.load == 75
    p.request("f", 1, 0, sources=4)
    assert uploads(p) == [("f", 1, 0)]
    p.request("b", 2, 1, sources=4)  # too late
    assert p.refused("b") == [(2, "busy")]


def test_what_is_queued_in_a_place_is_bounded() -> None:
    p = holder("b", queued_at_place=3)
    for rid in range(6):
        p.request("b", rid, p.present[rid])
        assert p.refused("b") == ([(rid, "busy")] if rid > 3 else [])
    for rid in range(1, 4):
        p.now += 0.1
        p.uploaded("b", rid - 1)
        assert uploads(p) == [("b", rid, p.present[rid])]


def test_who_was_refused_hears_when_there_is_room() -> None:
    p = holder(*"bcdefgh")
    receivers(p, *"bcdefgh")  # f, g and h are refused
    p.now += 0.1
    p.uploaded("b", 1)
    notice = [Have(BLOB, (), 0, 75, int(p.node.uploads.rate), 0)]
    assert p.told(Have) == {"f": notice, "g": notice}  # one of two may have gone elsewhere
    p.now += 0.1
    p.uploaded("c", 1)
    assert list(p.told(Have)) == ["h"]
    p.now += 0.1
    p.uploaded("d", 1)
    assert p.told(Have) == {}
    assert p.uploaded("d", 1) == []


def test_while_somebody_was_refused_the_news_call_nobody_else() -> None:
    p = holder("b", "c")
    receivers(p, "b", "c", sources=1)
    assert p.node.uploads.told_load == 100
    p.request("b", 2, p.present[1], sources=4)
    assert (p.node.uploads.load, p.node.uploads.told_load) == (25, 99)


def test_an_idle_node_does_not_say_that_it_is_full() -> None:
    """Those that were told of room need not come: others are to hear of it then."""
    names = [f"n{i}" for i in range(6)]
    p = holder("b", *names)
    receivers(p, "b", *names, sources=1)
    p.now += 0.1
    p.uploaded("b", 1)
    assert len(p.told(Have)) == 2
    assert (p.node.uploads.load, p.node.uploads.told_load) == (0, 0)


def test_who_was_refused_twice_hears_once() -> None:
    p = holder("b", "c")
    p.request("b", 1, 0)
    for rid in range(3):
        p.request("c", rid, 0)
        assert p.refused("c") == [(rid, "busy")]
    p.now += 0.1
    p.uploaded("b", 1)
    assert len(p.told(Have)["c"]) == 1
    p.wait(1)
    assert p.told(Have) == {}


def test_who_was_refused_and_did_not_come_again_is_forgotten() -> None:
    p = holder("b", "c")
    p.request("b", 1, 0)
    p.request("c", 1, 0)
    assert p.refused("c") == [(1, "busy")]
    p.now += 1
    assert p.node.uploads.told_load == p.node.uploads.load
    p.uploaded("b", 1)
    assert p.told(Have) == {}


def test_a_place_that_nobody_came_for_is_offered_to_the_next() -> None:
    names = "bcdefghijk"
    p = holder(*names)
    receivers(p, *names)  # f to k are refused
    p.now += 0.05
    p.uploaded("b", 1)
    assert list(p.told(Have)) == ["f", "g"]
    p.wait(0.03)
    told = [p.names[c.peer] for c in p.ever if isinstance(c, Send) and isinstance(c.message, Have)]
    assert told[:4] == ["f", "g", "h", "i"]


def test_who_was_refused_and_is_gone_is_passed_over() -> None:
    p = holder("b", "c", "d")
    receivers(p, "b", "c", "d", sources=1)
    p.down("c")
    p.now += 0.1
    p.uploaded("b", 1)
    assert list(p.told(Have)) == ["d"]


def test_a_slow_receiver_does_not_occupy_the_line() -> None:
    p = holder("slow", "b", "c")
    for rid in range(5):  # our own rate becomes known
        p.request("b", rid, p.present[rid])
        p.now += 0.1
        p.uploaded("b", rid)
    p.request("slow", 1, 0)
    p.request("c", 1, 0)
    assert p.refused("c") == [(1, "busy")]
    p.now += 0.3
    p.request("c", 2, 0)
    assert p.refused("c") == [(2, "busy")]
    p.now += 1
    p.request("c", 3, 0)
    assert uploads(p) == [("c", 3, 0)]


def test_a_place_more_gives_those_beside_it_more_time() -> None:
    """Each has a fifth of the line then, not a quarter. Else one that is slow makes all of them slow."""
    p = holder(*"bcdefg")
    for rid in range(5):  # a piece takes 0.1 s of our line
        p.request("b", rid, p.present[rid])
        p.now += 0.1
        p.uploaded("b", rid)
    receivers(p, *"bcde")
    p.now += 0.1 * SLOW_FACTOR * 4 - 0.05
    p.request("f", 1, 0, sources=4)
    assert p.refused("f") == [(1, "busy")]
    p.now += 0.1
    p.request("f", 2, 0, sources=4)
    assert uploads(p) == [("f", 2, 0)]
    p.request("g", 1, 0, sources=4)
    assert p.refused("g") == [(1, "busy")]
    p.now += 0.1 * SLOW_FACTOR
    p.request("g", 2, 0, sources=4)
    assert uploads(p) == [("g", 2, 0)]


def test_who_took_the_last_pieces_slowly_does_not_count() -> None:
    p = holder("slow", "b", "c")
    for rid in range(3):
        p.request("b", rid, rid)
        p.now += 0.1
        p.uploaded("b", rid)
    assert not p.node.uploads.is_slow(p.numbers["b"])
    p.request("slow", 1, 0)
    p.now += 0.8
    p.uploaded("slow", 1)
    assert p.node.uploads.is_slow(p.numbers["slow"])
    p.request("slow", 2, 1)
    assert p.node.uploads.load == 0
    p.request("c", 1, 0)
    assert uploads(p) == [("c", 1, 0)]
    for rid in range(3, 9):  # it recovers, in the place that it has
        p.request("slow", rid, 2)
        p.now += 0.1
        p.uploaded("slow", rid - 1)
    assert not p.node.uploads.is_slow(p.numbers["slow"])
    assert p.node.uploads.load == 200  # each of the two has a line's worth


def test_slow_receivers_take_no_more_than_all_places() -> None:
    names = [f"slow {i}" for i in range(8)]
    p = holder(*names, "b", places_most=8)
    for name in names:
        p.request(name, 1, 0)
        p.wait(2)
    assert p.node.uploads.load == 99
    p.request("b", 1, 0)
    assert p.refused("b") == [(1, "busy")]
    assert len([c for c in p.ever if isinstance(c, Upload)]) == 8


def test_a_slow_transfer_beside_another_does_not_keep_the_node_awake() -> None:
    """The deadline is never in the past: else the node would spin until the other one is done."""
    p, shown = claimed("slow", "b", "c", places=1)
    p.request("slow", 1, shown["slow"])
    p.wait(1.1)
    p.request("b", 1, shown["b"])
    assert uploads(p) == [("b", 1, shown["b"])]
    p.request("c", 1, shown["c"])  # a claim: it waits
    assert uploads(p) == []
    assert p.now < p.node.deadline <= p.node.uploads.deadline == p.now + 1
    p.wait(1.1)
    assert uploads(p) == [("c", 1, shown["c"])]
    assert p.node.uploads.deadline > p.now


def test_a_claim_that_waits_is_looked_after_in_time() -> None:
    """Nothing else may happen until the transfer under way counts as slow."""
    p, shown = claimed("slow", "c", places=1)
    p.request("slow", 1, shown["slow"])
    p.wait(0.9)
    p.request("c", 1, shown["c"])
    assert p.done == []
    assert p.node.deadline <= p.node.uploads.deadline
    p.wait(0.11)
    assert uploads(p) == [("c", 1, shown["c"])]


# -- claims -----------------------------------------------------------------------------------------------------------


def claimed(*neighbours: str, **settings: object) -> tuple[Play, dict[str, int]]:
    """A seeder that has shown one piece to each neighbour; what was shown, by name."""
    p = seeder(*neighbours, pieces=len(neighbours), **settings)
    shown = {name: list(p.blob().neighbours[p.numbers[name]].shown) for name in neighbours}
    assert all(len(pieces) == 1 for pieces in shown.values())
    return p, {name: pieces[0] for name, pieces in shown.items()}


def left(p: Play, name: str, rid: int, index: int) -> None:
    """This piece went out: from now on anybody may have it."""
    p.request(name, rid, index)
    p.now += 0.05
    p.uploaded(name, rid)


def test_a_claim_goes_out_in_any_place_whatever_the_others_take_of_the_line() -> None:
    """The whole fleet waits for it."""
    p, shown = claimed(*"bcdef", places_first=4)
    for name in "bcde":
        p.request(name, 1, shown[name], sources=1)
        assert uploads(p) == [(name, 1, shown[name])]
    p.request("f", 1, shown["f"], sources=1)
    assert p.done == []  # all places are taken: it waits
    p.now += 0.05
    p.uploaded("c", 1)
    assert uploads(p) == [("f", 1, shown["f"])]


def test_the_first_claims_go_out_two_at_a_time() -> None:
    """So the first piece is out sooner, and a slow line shows sooner."""
    p, shown = claimed(*"bcdefgh")
    for name in "bcdefgh":
        p.request(name, 1, shown[name], sources=1)
    out = list("bc")
    for _ in range(FIRST_ONES - 1):
        p.now += 0.05
        p.uploaded(out.pop(0), 1)
        [(name, _, _)] = uploads(p)
        out.append(name)
    p.now += 0.05
    p.uploaded(out.pop(0), 1)
    assert len(uploads(p)) == 2  # one for the one that ended, and now also in other places


def test_a_slow_receiver_does_not_keep_the_first_claims_waiting() -> None:
    p, shown = claimed(*"bcd")
    for name in "bcd":
        p.request(name, 1, shown[name], sources=1)
    assert p.done == []
    assert [c.index for c in p.wait(1.1) if isinstance(c, Upload)] == [shown["d"]]


def test_a_claim_takes_over_the_place_of_who_asks_for_what_has_left() -> None:
    p, shown = claimed("b", "c", "d", places=1)
    left(p, "b", 1, shown["b"])
    for rid in (2, 3, 4):
        p.request("b", rid, shown["b"])
    p.request("c", 1, shown["c"])
    assert p.refused("c") == []  # not refused, although the line is taken
    p.now += 0.05
    p.uploaded("b", 2)
    assert uploads(p) == [("c", 1, shown["c"])]
    assert p.refused("b") == [(3, "busy"), (4, "busy")]
    assert [p.names[n] for n in p.node.uploads.served()] == ["c"]


def test_a_claim_does_not_take_over_the_place_of_another_claim() -> None:
    p, shown = claimed("b", "c", places=1)
    left(p, "b", 1, shown["b"])
    p.stored(*range(len(shown), COUNT))
    [first, *_] = p.blob().neighbours[p.numbers["b"]].shown
    p.request("b", 2, shown["b"])
    p.request("b", 3, first)
    p.request("c", 1, shown["c"])
    p.now += 0.05
    p.uploaded("b", 2)
    assert uploads(p) == [("b", 3, first)]
    p.now += 0.05
    p.uploaded("b", 3)
    assert uploads(p) == [("c", 1, shown["c"])]


def test_in_its_own_place_a_claim_goes_before_the_rest() -> None:
    p, shown = claimed("b", "c")
    left(p, "b", 1, shown["b"])
    p.stored(*range(len(shown), COUNT))
    [first, *_] = p.blob().neighbours[p.numbers["b"]].shown
    for rid in (2, 3):
        p.request("b", rid, shown["b"])
    p.request("b", 4, first)
    p.now += 0.05
    p.uploaded("b", 2)
    assert uploads(p) == [("b", 4, first)]
    p.now += 0.05
    p.uploaded("b", 4)
    assert uploads(p) == [("b", 3, shown["b"])]


def test_while_a_claim_waits_nobody_else_gets_the_place() -> None:
    p, shown = claimed("b", "c", "d", places=1)
    left(p, "b", 1, shown["b"])
    p.request("b", 2, shown["b"])
    p.request("c", 1, shown["c"])
    p.request("d", 1, shown["b"])
    assert p.refused("d") == [(1, "busy")]
    p.hear("c", Cancel(1))
    p.now += 0.05
    p.uploaded("b", 2)
    assert uploads(p) == []
    assert "d" in p.told(Have)


def test_the_same_claim_over_and_over_fills_no_memory() -> None:
    """A peer that repeats its request for the piece that it was shown is held to the bounds."""
    for asks_before in (True, False):  # with a place of its own, and waiting for one
        p, shown = claimed("b", "c")
        p.request("b" if asks_before else "c", 1, shown["b" if asks_before else "c"])
        for rid in range(2, 200):
            p.request("b", rid, shown["b"])
        assert p.refused("b") == [(199, "busy")]
        assert p.node.uploads.held <= 2 + 2 * p.node.state.settings.queued_at_place


# -- what is not sent -------------------------------------------------------------------------------------------------


def test_what_is_not_here_is_refused() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.up("c")
    p.join("b")
    for name, index in (("b", 3), ("c", 0), ("b", 60_000)):
        p.request(name, 9, index)
        assert p.refused(name) == [(9, "absent")]


def test_of_an_unknown_blob_nothing_is_sent() -> None:
    p = Play()
    p.up("b")
    p.request("b", 9, 0)
    assert p.refused("b") == [(9, "absent")]


def test_who_takes_no_part_gets_nothing() -> None:
    p = holder("b")
    p.up("stranger")
    p.request("stranger", 1, 0)
    assert p.refused("stranger") == [(1, "absent")]


def test_a_cancelled_transfer_stops_and_its_peers_next_one_starts() -> None:
    p = holder("b", "c")
    p.request("b", 1, 0)
    p.request("b", 2, 1)
    assert p.hear("b", Cancel(1)) == [StopUpload(p.numbers["b"], 1)]
    p.uploaded("b", 1, whole=False)
    assert uploads(p) == [("b", 2, 1)]


def test_the_place_of_a_cancelled_transfer_is_free() -> None:
    p = holder("b", "c")
    p.request("b", 1, 0)
    p.request("c", 1, 0)
    p.hear("b", Cancel(1))
    p.uploaded("b", 1, whole=False)
    assert list(p.told(Have)) == ["c"]
    p.request("c", 2, 0)
    assert uploads(p) == [("c", 2, 0)]


def test_a_cancelled_request_leaves_the_queue() -> None:
    p = holder("b")
    for rid in (0, 1, 2):
        p.request("b", rid, rid)
    assert p.hear("b", Cancel(1)) == []
    p.now += 0.1
    p.uploaded("b", 0)
    assert uploads(p) == [("b", 2, 2)]


def test_a_receiver_that_is_gone_makes_room() -> None:
    p = holder("b", "c")
    p.request("b", 1, 0)
    p.request("b", 2, 1)
    p.request("c", 1, 0)
    p.down("b")
    assert list(p.told(Have)) == ["c"]
    assert p.node.uploads.load == 0
    assert p.uploaded("b", 1) == []
    p.request("c", 2, 0)
    assert uploads(p) == [("c", 2, 0)]


# -- vouchers ---------------------------------------------------------------------------------------------------------


def test_a_voucher_for_what_this_node_computed() -> None:
    p = seeder("b", pieces=5)
    [upload] = p.request("b", 1, 2)
    [voucher] = upload.vouchers
    assert voucher.key == key("me")
    assert voucher.states == tuple(STATES[:6])  # one signature over the run that has gathered
    assert voucher.term == 1
    assert voucher_holds(voucher, verify)


def test_links_are_sent_when_asked_for() -> None:
    p = holder("b")
    p.hear("b", GetLinks(BLOB, 0, 64))
    assert {v.key for v in p.sent("b", Vouch)} == {key("seeder")}
    assert len(p.sent("b", Vouch)) == 1
    p.hear("b", GetLinks(digest_of("other"), 0, 64))
    assert p.done == []


def test_who_has_proven_a_blob_vouches_for_its_links_itself() -> None:
    """Others may have taken back all that the seeder signed, true or not."""
    p = holder("b", pieces=COUNT)
    assert p.blob().proven
    p.hear("b", GetLinks(BLOB, 2, 64))
    [voucher] = p.sent("b", Vouch)
    assert (voucher.key, voucher.term, voucher.links) == (key("me"), PROVED_TERM, range(COUNT))
    assert voucher.states == tuple(STATES)
    assert voucher_holds(voucher, verify)
    p.hear("b", GetLinks(BLOB, COUNT, 64))
    assert p.done == []
    [upload] = p.request("b", 1, 2)
    assert {v.key for v in upload.vouchers} == {key("seeder")}


def test_what_is_proven_is_vouched_for_for_good() -> None:
    from p2pd.swarm.commands import ComputeChain
    from p2pd.swarm.events import ChainComputed

    p = Play()
    p.event(Stored(BLOB, COUNT << 17))
    p.up("b")
    p.join("b")
    assert p.of(ComputeChain) == [ComputeChain(BLOB, COUNT << 17)]
    p.event(ChainComputed(BLOB, tuple(STATES[1:])))
    [upload] = p.request("b", 1, 2)
    assert upload.vouchers[0].term == PROVED_TERM
    assert upload.vouchers[0].states == tuple(STATES)


def test_a_peer_leaves_its_place_to_one_that_was_refused_after_a_turn() -> None:
    p = holder("greedy", "b")
    p.hear("greedy", Request(0, BLOB, 0, False, 1))
    p.hear("b", Request(1, BLOB, 0, False, 1))
    assert p.refused("b") == [(1, "busy")]
    for rid in range(1, TURN_PIECES + 1):
        p.hear("greedy", Request(rid, BLOB, 0, True, 1))
        p.now += 0.1
        if rid == TURN_PIECES:
            p.hear("b", Request(2, BLOB, 0, False, 1))  # it still waits
        p.uploaded("greedy", rid - 1)
    assert p.refused("greedy") == [(TURN_PIECES, "busy")]
    assert [m.pieces for m in p.sent("b", Have)] == [()]  # there is room


@pytest.mark.parametrize(
    ("has", "others", "leaves"),
    [
        (5, 0, True),
        (3, 0, True),
        (2, 0, False),  # near enough
        (5, 4, False),
    ],
)
def test_a_peer_leaves_its_place_to_one_that_is_far_behind_it(has: int, others: int, leaves: bool) -> None:
    p = holder("ahead", "b", behind_pieces=2)
    p.have("ahead", *range(has))
    p.have("b", *range(others))
    p.request("ahead", 0, p.present[-1], sources=1)
    p.request("b", 1, p.present[-1])
    assert p.refused("b") == [(1, "busy")]
    for rid in range(1, TURN_LEAST + 1):
        p.request("ahead", rid, p.present[-1], sources=1)
        p.request("b", 1 + rid, p.present[-1])  # it still waits
        p.uploaded("ahead", rid - 1)
        assert p.refused("ahead") == ([(rid, "busy")] if leaves and rid == TURN_LEAST else [])
    assert [m.pieces for m in p.sent("b", Have)] == ([()] if leaves else [])  # there is room


def test_but_not_to_one_that_takes_pieces_slowly() -> None:
    p = holder("ahead", "slow", behind_pieces=2)
    for rid in range(3):
        p.request("ahead", rid, p.present[-1])
        p.now += 0.1
        p.uploaded("ahead", rid)
    p.request("slow", 1, p.present[-1])
    p.now += 0.8
    p.uploaded("slow", 1)
    p.have("ahead", *range(5))
    p.request("ahead", 10, p.present[-1], sources=1)
    for rid in range(11, 12 + TURN_LEAST):
        p.request("ahead", rid, p.present[-1], sources=1)
        p.node.uploads.refuse(p.node.state.peers[p.numbers["slow"]], Request(rid, BLOB, 0, False, 1), "busy")
        p.now += 0.1
        p.uploaded("ahead", rid - 1)
        assert p.refused("ahead") == []


def test_nor_to_one_that_asked_for_another_blob() -> None:
    """What it has of this one says nothing then."""
    p = holder("ahead", "b", behind_pieces=2)
    p.have("ahead", *range(5))
    p.request("ahead", 0, p.present[-1], sources=1)
    for rid in range(1, TURN_LEAST + 2):
        p.request("ahead", rid, p.present[-1], sources=1)
        p.node.uploads.refuse(
            p.node.state.peers[p.numbers["b"]], Request(rid, digest_of("another"), 0, False, 1), "busy"
        )
        p.uploaded("ahead", rid - 1)
        assert p.refused("ahead") == []


def test_of_those_that_were_refused_the_ones_that_have_least_hear_first() -> None:
    p = holder(*"bcdefgh")
    for name, count in zip("fgh", (5, 3, 4), strict=True):
        p.have(name, *range(count))
    receivers(p, *"bcde")
    for name in "fgh":
        p.request(name, 1, p.present[-1], sources=4)
    p.now += 0.1
    p.uploaded("b", 1)
    assert list(p.told(Have)) == ["g", "h"]


@pytest.mark.parametrize("seed", range(3))
def test_transfers_that_end_at_random_make_a_line_seem_no_faster_than_it_is(seed: int) -> None:
    """Else who shares it fairly counts as slow, more are sent to beside him, and all of them count as slow."""
    random, true_rate = Random(seed), 10 * LENGTH
    p = holder(*"bcde")
    rids = dict.fromkeys("bcde", 0)
    receivers(p, *rids)
    rates = []
    for rid in range(2, 2000):
        name = random.choice("bcde")
        p.request(name, rid, 0)
        p.wait(random.expovariate(true_rate / LENGTH))
        p.uploaded(name, rids[name] or 1)
        rids[name] = rid
        rates.append(p.node.uploads.rate)
    assert 0.8 < mean(rates[50:]) / true_rate < 1.2


def test_a_first_estimate_that_is_far_too_high_does_not_last() -> None:
    """The first pieces may have left into the kernel's buffers."""
    p = holder("b")
    rids = iter(range(1, 1000))

    def pieces(count: int, seconds: float) -> float:
        p.request("b", rid := next(rids), 0)
        for _ in range(count):
            p.request("b", following := next(rids), 0)
            p.now += seconds
            p.uploaded("b", rid)
            rid = following
        p.uploaded("b", rid)
        return p.node.uploads.rate

    assert pieces(32, 0.01) > 90 * LENGTH
    assert pieces(128, 0.5) < 4 * LENGTH


def test_a_rate_stays_finite_however_many_pieces_take_no_time() -> None:
    rate = blend(0.0, 131072, 1e-9, 0.05)
    for _ in range(20_000):
        rate = blend(rate, 131072, 0.0, 0.05)
    assert rate == RATE_MAX
    assert blend(rate, 131072, 1.0, 0.05) < 1e7
