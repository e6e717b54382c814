"""Playbooks of a node's life: connections, wishes, the store, news, and refuted chains."""

from __future__ import annotations

import pytest

from p2pd.swarm.commands import (
    Abandon,
    Blame,
    Close,
    ComputeChain,
    Connect,
    Drop,
    Fetch,
    Keep,
    Prove,
    Send,
    StopUpload,
    Upload,
)
from p2pd.swarm.events import (
    ChainComputed,
    ConnectFailed,
    Evicted,
    Members,
    PeerDown,
    Resumed,
    Stored,
    Tick,
    Unwant,
    Want,
)
from p2pd.swarm.messages import Cancel, Have, Join, Leave, News, Ping, Refuse, Request, Retract, Withdraw
from p2pd.swarm.node import Node
from p2pd.swarm.pieces import pack
from tests.swarm.fakes import contact, digest_of, key, vouch
from tests.swarm.play import ALL, BLOB, COUNT, SIZE, STATES, Play, retraction, wanter

WRONG = [STATES[0], *(bytes([i]) * 32 for i in range(1, COUNT)), BLOB]


def fetch(p: Play, name: str, *pieces: int) -> None:
    """`name` tells of these pieces, and they come."""
    p.have(name, *pieces)
    while p.node.downloads.out:
        asked = p.node.downloads.of_blob(BLOB)[0]
        p.checked(p.names[asked.peer], asked.rid)


# -- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_is_outbound", [True, False])
def test_both_called_at_once_both_keep_the_same_call(first_is_outbound: bool) -> None:
    """The call of the node with the lower id stays, on both sides."""
    kept = {}
    for me, other in (("a", "b"), ("b", "a")):
        p = Play(me)
        outbound = first_is_outbound if me == "a" else not first_is_outbound
        first = p.up(other, outbound=outbound)
        second = p.up(other, outbound=not outbound)
        [closed] = [c.peer for c in p.of(Close)]
        stays = {first: second, second: first}[closed]
        assert list(p.node.state.peers) == [stays]
        assert p.node.state.by_node == {contact(other).node_id: stays}
        p.event(PeerDown(closed, "closed"))
        assert list(p.node.state.peers) == [stays]
        caller = me if (stays == first) == outbound else other
        kept[me] = caller
    assert kept["a"] == kept["b"] == min("ab", key=lambda name: contact(name).node_id)


def test_the_same_way_twice_keeps_the_first() -> None:
    p = Play()
    first = p.up("b")
    second = p.up("b")
    assert p.of(Close) == [Close(second, "connected already")]
    assert list(p.node.state.peers) == [first]


def test_what_the_dropped_connection_was_good_for_is_asked_anew() -> None:
    p = wanter("b", "c")
    outbound = contact("me").node_id < contact("b").node_id
    p.down("b")
    old = p.up("b", outbound=not outbound)
    p.join("b", 3)
    assert p.blob().flying == 1 << 3
    new = p.up("b", outbound=outbound)
    assert p.of(Close) == [Close(old, "connected twice")]
    assert p.blob().flying == 0
    p.join("b", 3)
    assert [c.peer for c in p.of(Fetch)] == [new]


def test_a_call_to_oneself_ends() -> None:
    p = Play()
    p.up("me")
    assert [c.why for c in p.of(Close)] == ["this is myself"]
    assert not p.node.state.peers


def called(p: Play, name: str) -> bool:
    """Whether the node calls another one of which the tracker tells."""
    p.answer(name)
    return [c.contact.name for c in p.of(Connect)] == [name]


def comes_and_goes(p: Play, name: str, times: int, seconds: float = 0.5) -> None:
    for _ in range(times):
        p.up(name)
        p.now += seconds
        p.down(name)


def test_who_ends_each_connection_at_once_is_left_alone_for_longer_and_longer() -> None:
    p = Play()
    p.tracker()
    p.want()
    comes_and_goes(p, "b", 2)
    assert called(p, "b")  # both sides may have called at once, and each ended one
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        comes_and_goes(p, "b", 1)
        p.now += pause - 0.01
        assert not called(p, "b")
        number = p.up("b", outbound=False)
        assert p.of(Close) == [Close(number, "comes and goes")]
        p.now += 0.02
        assert called(p, "b")


def test_but_not_who_stays_for_a_while() -> None:
    p = Play()
    p.tracker()
    p.want()
    comes_and_goes(p, "b", 20, seconds=1.0)
    assert called(p, "b")
    comes_and_goes(p, "b", 3)
    p.now += 1.0
    comes_and_goes(p, "b", 1, seconds=1.0)  # it is forgotten
    comes_and_goes(p, "b", 2)
    assert called(p, "b")


def test_who_comes_and_goes_is_no_directory() -> None:
    """It may rank highest for a blob: then nobody would ever be asked."""
    p = Play(settle_s=0.0)
    p.event(Members((contact("b"),)))
    for _ in range(6):
        p.now += 60
        comes_and_goes(p, "b", 1)
    p.want()
    assert [c for c in (*p.done, *p.wait(3)) if isinstance(c, Connect)] == []
    assert p.blob().term == 1  # of its own directory


def test_places_are_kept_free_to_reach_out() -> None:
    p = Play(inbound_max=2, connections_max=4)
    for name in "bcd":
        p.up(name, outbound=False)
    assert p.of(Close) == [Close(p.numbers["d"], "no place")]
    for name in "efg":
        p.up(name, outbound=True)
    assert p.of(Close) == [Close(p.numbers["g"], "no place")]
    assert len(p.node.state.peers) == 4


def test_a_message_of_who_is_gone_is_passed_over() -> None:
    p = wanter("b")
    p.down("b")
    assert p.hear("b", Join(BLOB, SIZE, bytes(2), True, 0, 0, 0)) == []
    assert p.checked("b", 1) == []


def test_a_peer_hears_what_this_node_has_and_wants() -> None:
    p = Play()
    p.event(Resumed(BLOB, SIZE, {2: (STATES[2], STATES[3], None)}))
    p.up("b")
    assert p.sent("b") == [Join(BLOB, SIZE, pack(1 << 2, COUNT), False, 0, 0, 0)]
    p.want()
    p.up("c")
    assert p.sent("c") == [Join(BLOB, SIZE, pack(1 << 2, COUNT), True, 0, 0, 0)]


def test_a_join_is_answered_once() -> None:
    p = Play()
    p.up("b")
    p.want()
    assert len(p.sent("b", Join)) == 1
    p.join("b")
    assert len(p.sent("b", Join)) == 1  # it may not have known this blob before
    p.join("b", 1)
    assert p.sent("b", Join) == []


def test_a_join_for_another_size_is_of_no_use() -> None:
    p = wanter("b")
    p.hear("b", Join(BLOB, SIZE - 1, pack(ALL, COUNT), True, 0, 0, 0))
    assert p.blob().neighbours == {}
    assert p.asked() == {}


@pytest.mark.parametrize("pieces", [b"\0", bytes(3), b"\xff\xff"])
def test_a_set_that_does_not_fit_convicts(pieces: bytes) -> None:
    p = wanter("b")
    p.hear("b", Join(BLOB, SIZE, pieces, True, 0, 0, 0))
    assert p.blamed() == [("b", "a set of pieces that does not fit the blob")]


def test_news_of_a_piece_that_there_is_not_convicts() -> None:
    p = wanter("b")
    p.join("b")
    p.have("b", COUNT)
    assert p.blamed() == [("b", "news of a piece that the blob does not have")]


def test_news_of_more_pieces_than_there_are_convict() -> None:
    """Else one of them would make a node believe for long that it is behind."""
    p = wanter("b", "c")
    p.join("b")
    p.have("b", count=COUNT)
    assert p.blamed() == []
    usual = p.blob().usual_count
    p.have("b", count=COUNT + 1)
    assert p.blamed() == [("b", "news of more pieces than the blob has")]
    assert p.blob().usual_count == usual


def test_who_leaves_takes_its_pieces_with_it() -> None:
    p = wanter("b")
    p.join("b", 3)
    p.hear("b", Leave(BLOB))
    assert p.blob().neighbours == {}
    assert p.blob().available() == 0


def test_unknown_matters_are_passed_over() -> None:
    p = Play()
    p.up("b")
    other = digest_of("other")
    for message in (
        Leave(other), Have(other, (1,), 1, 0, 0, 0), Cancel(5), Refuse(5, "busy", 1),
        vouch("x", other, 5, 0, STATES[:2]), Join(other, 5, b"\0", True, 0, 0, 0),
        retraction("x"), Ping(), Withdraw(other),
    ):  # fmt: skip
        p.hear("b", message)
        assert p.done == []
    assert p.event(ConnectFailed(bytes(20))) == []


# -- wishes -----------------------------------------------------------------------------------------------------------


def test_a_wish_that_ends_takes_its_requests_back() -> None:
    p = wanter("b")
    p.join("b", 3, 4)
    rids = sorted(rid for rid, _ in p.asked()["b"])
    p.event(Unwant(BLOB))
    assert sorted(m.rid for m in p.sent("b", Cancel)) == rids
    assert sorted(c.rid for c in p.of(Abandon)) == rids
    assert p.sent("b", Leave) == [Leave(BLOB)]
    assert p.node.blob(BLOB) is None
    assert p.node.downloads.out == 0


def test_what_was_got_is_still_served_after_the_wish() -> None:
    p = wanter("b")
    p.join("b")
    fetch(p, "b", 3, 4)
    p.event(Unwant(BLOB))
    [join] = p.sent("b", Join)
    assert (join.pieces, join.wanting) == (pack(0b11000, COUNT), False)
    assert [type(c) for c in p.request("b", 1, 3)] == [Upload]
    p.join("b", 3, 4, 5)
    assert p.asked() == {}
    p.want()
    assert p.asked() == {"b": [(p.of(Fetch)[0].rid, 5)]}


def test_a_blob_that_is_stored_is_not_wanted_again() -> None:
    p = Play()
    p.event(Stored(BLOB, SIZE))
    p.tracker()
    p.want()
    assert p.node.blob(BLOB) is None
    assert p.wait(5) == []


def test_the_same_wish_twice() -> None:
    p = wanter("b")
    p.want()
    assert p.done == []
    p.event(Unwant(BLOB))
    p.event(Unwant(BLOB))
    assert p.done == []


# -- the store --------------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_not_fetched_again() -> None:
    p = Play()
    voucher = vouch("seeder", BLOB, SIZE, 0, STATES[:5])
    links = {i: (STATES[i], STATES[i + 1], voucher if i < 3 else None) for i in (0, 1, 2, 7)}
    p.event(Resumed(BLOB, SIZE, links))
    assert p.present == [0, 1, 2, 7]
    assert p.of(Keep) == []
    p.tracker()
    p.want()
    p.up("b")
    p.join("b", *range(COUNT))
    while p.node.downloads.out:
        asked = p.node.downloads.of_blob(BLOB)[0]
        if asked.index not in p.blob().chain.vouchers:
            p.voucher("b", "other", 3, COUNT)
        p.checked("b", asked.rid)
    assert sorted(c.index for c in p.ever if isinstance(c, Fetch)) == [3, 4, 5, 6, 8, 9]
    assert Prove(BLOB) in p.ever


def test_all_was_recorded_but_not_the_proof() -> None:
    p = Play()
    p.event(Resumed(BLOB, SIZE, {i: (STATES[i], STATES[i + 1], None) for i in range(COUNT)}))
    assert p.of(Prove) == [Prove(BLOB)]


def test_records_of_two_chains_do_not_mix() -> None:
    p = Play()
    p.event(Resumed(BLOB, SIZE, {0: (STATES[0], STATES[1], None), 1: (WRONG[1], WRONG[2], None)}))
    assert p.present == [0]


def test_a_stored_blob_joins_when_a_peer_wants_it() -> None:
    p = Play()
    p.event(Stored(BLOB, SIZE))
    p.up("b")
    p.join("b", wanting=False)
    assert p.done == []
    p.join("b")
    assert p.of(ComputeChain) == [ComputeChain(BLOB, SIZE)]
    assert p.sent("b", Join) == []  # not before its states are known
    p.join("b")
    assert p.of(ComputeChain) == []
    p.event(ChainComputed(BLOB, tuple(STATES[1:])))
    assert [m.pieces for m in p.sent("b", Join)] == [pack(ALL, COUNT)]
    assert [type(c) for c in p.request("b", 1, 3)] == [Upload]


@pytest.mark.parametrize("states", [None, tuple(STATES[1:-1]), (*STATES[1:-1], bytes(32))])
def test_a_stored_file_that_is_not_the_blob(states: tuple[bytes, ...] | None) -> None:
    p = Play()
    p.event(Stored(BLOB, SIZE))
    p.up("b")
    p.join("b")
    p.event(ChainComputed(BLOB, states))
    assert p.node.blob(BLOB) is None
    p.request("b", 1, 3)
    assert p.refused("b") == [(1, "absent")]
    p.tracker()
    p.want()  # it is got anew
    assert p.blob().want


def test_an_evicted_blob_is_not_served() -> None:
    p = Play()
    p.event(Resumed(BLOB, SIZE, {i: (STATES[i], STATES[i + 1], None) for i in range(COUNT)}))
    p.up("b")
    p.join("b")
    p.event(Evicted(BLOB))
    assert p.sent("b", Leave) == [Leave(BLOB)]
    p.request("b", 1, 3)
    assert p.refused("b") == [(1, "absent")]


def test_idle_blobs_leave_the_memory() -> None:
    p = Play(swarms_most=3)
    p.up("b")
    small = [digest_of(str(i)) for i in range(6)]
    for digest in small:
        p.event(Stored(digest, 100))
        p.hear("b", Join(digest, 100, b"\0", True, 0, 0, 0))
        p.hear("b", Join(digest, 100, b"\1", False, 0, 0, 0))
    assert len(p.node.state.blobs) <= 3
    assert len(p.node.state.stored) == 6
    p.hear("b", Join(small[0], 100, b"\0", True, 0, 0, 0))
    assert [type(c) for c in p.hear("b", Request(1, small[0], 0, True, 1))] == [Upload]


# -- news -------------------------------------------------------------------------------------------------------------


def news(p: Play, name: str) -> list[tuple[int, ...]]:
    """The pieces that that peer was told of, as messages, since `p.ever` was cleared."""
    number = p.numbers[name]
    return [
        tuple(sorted(c.message.pieces))
        for c in p.ever
        if isinstance(c, Send) and c.peer == number and isinstance(c.message, Have)
    ]


def test_news_go_out_at_once_and_then_in_batches() -> None:
    p = wanter("b", "c")
    p.join("c")
    p.join("b")
    p.ever.clear()
    fetch(p, "b", 1)
    assert news(p, "c") == [(1,)]  # nothing was told for a while: no reason to wait
    fetch(p, "b", 2, 3)
    p.wait(0.02)
    assert news(p, "c") == [(1,)]
    p.wait(0.02)
    assert news(p, "c") == [(1,), (2, 3)]
    fetch(p, "b", 4)
    assert news(p, "c") == [(1,), (2, 3)]
    p.wait(0.06)
    assert news(p, "c") == [(1,), (2, 3), (4,)]
    p.wait(1)
    assert p.told(Have) == {}


def test_news_say_how_many_pieces_are_here() -> None:
    p = wanter("b", "c")
    p.join("c")
    p.join("b")
    p.ever.clear()
    fetch(p, "b", 1)
    fetch(p, "b", 2, 3)
    p.wait(0.1)
    told = [c.message for c in p.ever if isinstance(c, Send) and isinstance(c.message, Have)]
    assert [(m.count, m.load) for m in told] == [(1, 0), (3, 0)]  # to c: b has them all


def test_all_get_the_same_news_but_those_for_whom_nothing_in_it_is_new() -> None:
    p = wanter("b", "c", "d")
    p.join("c", 1)
    p.join("d")
    p.join("b")
    p.ever.clear()
    fetch(p, "b", 1, 2, 3)
    p.have("d", 3)
    p.wait(1)
    assert news(p, "b") == []  # it has them all
    assert news(p, "c") == [(2, 3)]  # it has the first
    assert news(p, "d") == [(1,), (2, 3)]
    p.ever.clear()
    p.have("d", 5)
    fetch(p, "b", 5)
    p.wait(1)
    assert (news(p, "c"), news(p, "d")) == ([(5,)], [])


def test_who_joins_is_told_of_all_by_that_and_of_the_rest_by_news() -> None:
    p = wanter("b", "c")
    p.join("b")
    fetch(p, "b", 1, 2)
    p.join("c")
    assert [m.pieces for m in p.sent("c", Join)] == [pack(0b110, COUNT)]
    p.ever.clear()
    p.wait(1)
    assert news(p, "c") == []
    fetch(p, "b", 3)
    p.wait(1)
    assert news(p, "c") == [(3,)]


def test_who_comes_anew_is_told_anew() -> None:
    p = wanter("b", "c")
    p.join("c")
    p.join("b")
    fetch(p, "b", 1, 2)
    p.wait(1)
    p.down("c")
    p.up("c")
    assert [m.pieces for m in p.sent("c", Join)] == [pack(0b110, COUNT)]


def test_the_holder_of_the_lease_is_told_of_what_it_has_too() -> None:
    """That is how a seeder sees that a piece has arrived elsewhere."""
    p = wanter("s", "b")
    p.join("b")
    p.join("s", term=1)
    p.ever.clear()
    p.have("s", 4, term=1)
    p.have("b", 5)
    p.now += 1
    p.checked("s", p.node.downloads.of_piece(BLOB, 4)[0].rid)
    p.wait(1)
    assert news(p, "s") == [(4,)]


def test_who_is_served_here_hears_at_once() -> None:
    p = wanter("b", "c", "d")
    for name in "cdb":
        p.join(name)
    fetch(p, "b", 1)
    p.request("c", 1, 1)
    p.ever.clear()
    fetch(p, "b", 2)
    assert (news(p, "c"), news(p, "d")) == ([(2,)], [])
    fetch(p, "b", 3, 4, 5, 6, 7)
    assert sorted(news(p, "c")) == [(i,) for i in range(2, 8)]
    assert news(p, "d") == []
    p.wait(0.1)
    assert len(news(p, "c")) == 6  # and not again
    assert news(p, "d") == [(2, 3, 4, 5, 6, 7)]


def with_neighbours(count: int) -> tuple[Play, list[str]]:
    """A node with an uploader, "b", and so many others that want all of the blob; it had news a moment ago."""
    names = [f"n{i}" for i in range(count - 1)]
    p = wanter("b", *names)
    for name in (*names, "b"):
        p.join(name)
    fetch(p, "b", 1)
    p.wait(0.2)
    p.ever.clear()
    return p, names


def test_many_neighbours_hear_in_turns() -> None:
    """Those who hear of a piece at once come for it at once, and most of them in vain."""
    p, names = with_neighbours(30)
    fetch(p, "b", 2)
    first = [name for name in names if news(p, name)]
    assert 9 <= len(first) <= 11
    fetch(p, "b", 3)
    p.wait(0.031)
    second = [name for name in names if news(p, name) == [(2, 3)]]
    assert 9 <= len(second) <= 11
    p.wait(0.06)
    assert [name for name in names if news(p, name) not in ([(2, 3)], [(2,), (3,)])] == []
    assert [name for name in names if news(p, name)[0] == (2,)] == first
    p.wait(1)
    assert max(len(news(p, name)) for name in names) == 2


def test_few_neighbours_hear_all_at_once() -> None:
    p, names = with_neighbours(12)
    fetch(p, "b", 2)
    assert [news(p, name) for name in names] == [[(2,)]] * 11


def test_a_piece_that_is_void_counts_as_told_to_nobody() -> None:
    p, _ = with_neighbours(30)
    fetch(p, "b", 2)
    p.wait(0.2)
    blob = p.blob()
    blob.lose(1 << 2)
    assert [told >> 2 & 1 for told in blob.told] == [0, 0, 0]


def test_the_news_of_several_blobs_go_in_one_message() -> None:
    other = bytes(range(32))
    p = wanter("b", "c")
    p.event(Want(other, COUNT << 17, "blob", "r", "x/y", 1, True))
    for digest in (BLOB, other):
        for name in "cb":
            p.hear(name, Join(digest, COUNT << 17, bytes(2), True, 0, 0, 0))
    p.ever.clear()
    p.now += 1
    p.node.teller._told_at = p.now
    states = {BLOB: p.node.blob(BLOB), other: p.node.blob(other)}
    for blob in states.values():
        assert blob
        blob.arrive(3)
        p.node.teller.arrived(blob)
    p.node.teller.deadline = p.now
    p.event(Tick())
    [message] = p.told(News)["c"]
    assert [(have.digest, have.pieces) for have in message.haves] == [(BLOB, (3,)), (other, (3,))]
    p.hear("b", News((Have(BLOB, (5,), 1, 0, 0, 0), Have(other, (6,), 1, 0, 0, 0))))
    number = p.numbers["b"]
    assert states[BLOB].neighbours[number].have >> 5 & 1
    assert states[other].neighbours[number].have >> 6 & 1


def test_what_was_lost_and_came_again_is_news_again() -> None:
    p = Play()
    p.tracker()
    p.want()
    for name in "bc":
        p.up(name)
        p.join(name)
    p.voucher("b", "bad", 0, COUNT)
    fetch(p, "b", 1, 2)
    p.wait(1)
    p.hear("b", retraction("bad"))
    assert p.present == []
    assert [m.pieces for m in p.sent("c", Join)] == [bytes(2)]
    p.voucher("b", "good", 0, COUNT)
    p.ever.clear()
    fetch(p, "b", 1)  # and 2, which it has still
    p.wait(1)
    assert sorted(sum(news(p, "c"), ())) == [1, 2]


def test_who_wants_nothing_gets_no_news() -> None:
    p = wanter("b", "c")
    p.join("c", wanting=False)
    p.join("b", wanting=False)
    fetch(p, "b", 1, 2, 3)
    p.wait(1)
    assert p.told(Have) == {}


def test_who_wants_again_is_told_of_what_came_meanwhile() -> None:
    """A node that was restarted has a part, wants nothing at first, and heard no news; then its client comes back."""
    p = wanter("b", "c")
    p.join("c", wanting=False)
    p.join("b", wanting=False)
    fetch(p, "b", 1, 2, 3)
    p.sent("c")
    p.join("c", 0)
    assert [m.pieces for m in p.sent("c", Join)] == [pack(0b1110, COUNT)]
    p.join("c", 0)
    assert p.sent("c", Join) == []


# -- refuted chains ---------------------------------------------------------------------------------------------------


def test_a_retraction_drops_what_rests_on_it() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.up("b")
    p.up("c")
    p.join("b")
    p.join("c")
    p.voucher("b", "good", 0, 3)
    p.voucher("b", "bad", 3, 6)
    fetch(p, "b", 1, 2, 3, 4)
    p.request("c", 9, 3)
    p.request("c", 10, 4)
    p.hear("c", retraction("bad"))
    assert p.of(Drop) == [Drop(BLOB, 0b11000)]
    assert p.present == [1, 2]
    assert p.sent("b", Retract) == [retraction("bad")]
    assert p.sent("c", Retract) == []
    assert [m.pieces for m in p.sent("b", Join)] == [pack(0b110, COUNT)]
    assert p.of(StopUpload) == [StopUpload(p.numbers["c"], 9)]
    assert p.refused("c") == [(10, "absent")]
    assert p.blamed() == []


def test_a_retraction_is_handed_on_once() -> None:
    p = wanter("b", "c", "d")
    for name in "bcd":
        p.join(name)
    p.hear("c", retraction("bad", 2))
    assert sorted(p.told(Retract)) == ["b", "d"]
    for again in (retraction("bad", 2), retraction("bad", 1)):
        assert p.hear("b", again) == []


def test_retractions_do_not_go_round_for_ever() -> None:
    """Of more signers than a node remembers, none is handed on twice."""
    p = wanter("b", "c")
    p.join("b")
    p.join("c")
    strangers = [f"stranger {i}" for i in range(80)]
    first = sum(bool(p.hear("b", retraction(name)) and p.told(Retract)) for name in strangers)
    second = sum(bool(p.hear("b", retraction(name)) and p.told(Retract)) for name in strangers)
    assert (first, second) == (64, 0)


def test_a_forged_retraction_convicts_who_brings_it() -> None:
    p = wanter("b", "c")
    p.join("b")
    p.join("c")
    fetch(p, "c", 1, 2)
    forged = Retract(key("seeder"), BLOB, 5, bytes(64))
    p.hear("b", forged)
    assert p.blamed() == [("b", "a retraction whose signature is wrong")]
    assert p.told(Retract) == {}
    assert p.present == [1, 2]


def test_requests_that_rest_on_it_are_taken_back() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    [(rid, _)] = p.asked()["b"]
    p.hear("c", retraction("seeder"))
    assert p.sent("b", Cancel) == [Cancel(rid)]
    assert p.checked("b", rid) == []
    assert p.present == []


def test_what_is_proven_cannot_be_taken_back() -> None:
    p = wanter("b")
    p.join("b")
    fetch(p, "b", *range(COUNT))
    assert p.blob().proven
    assert p.hear("b", retraction("seeder", 9)) == []
    assert len(p.present) == COUNT


def test_giving_up_forgets_all_of_it() -> None:
    p = wanter("b")
    p.join("b")
    fetch(p, "b", 1, 2)
    done = p.node.give_up(BLOB)
    assert Drop(BLOB, 0b110) in done
    assert p.node.blob(BLOB) is None
    p.want()
    assert p.blob().missing == ALL
    assert p.node.give_up(digest_of("other")) == []


def test_giving_up_does_not_touch_what_is_proven() -> None:
    p = wanter("b")
    p.join("b")
    fetch(p, "b", *range(COUNT))
    assert p.node.give_up(BLOB) == []
    assert len(p.present) == COUNT


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_is_not_followed() -> None:
    p = wanter("b")
    p.now += 10
    p.join("b", 1)
    p.now -= 5
    p.have("b", 2)
    assert p.node.state.now == p.now + 5


def test_an_idle_node_sleeps() -> None:
    p = Play()
    p.tracker()
    p.up("b")
    assert p.wait(100) == []
    assert isinstance(p.node, Node)
    assert p.node.deadline == float("inf")


def test_a_bad_piece_names_piece_and_blob() -> None:
    p = wanter("b")
    p.join("b", 3)
    [(rid, _)] = p.asked()["b"]
    p.misfit("b", rid)
    assert p.of(Blame) == [Blame(contact("b").node_id, "b", "a piece that does not fit its link", BLOB, 3)]
