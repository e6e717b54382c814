"""Playbooks of sending: places, the queue, refusals, and who is told that there is room again."""

from __future__ import annotations

from p2pd.swarm.commands import Count, StopUpload, Upload
from p2pd.swarm.events import Stored
from p2pd.swarm.messages import Cancel, GetLinks, Have, Refuse, Vouch
from p2pd.swarm.state import PROVED_TERM
from p2pd.swarm.voucher import voucher_holds
from tests.swarm.fakes import digest_of, key, verify
from tests.swarm.play import BLOB, COUNT, STATES, Play, seeder, wanter


def holder(*neighbours: str, pieces: int = COUNT - 1, **settings: object) -> Play:
    """A node that has pieces, hides none of them, and wants the rest."""
    p = wanter("source", **({"queued_most": 2} | settings))
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


def test_one_place_a_queue_and_a_refusal() -> None:
    p = holder("b", "c", "d", "e")
    assert [type(c) for c in p.request("b", 1, 0)] == [Upload]
    assert p.request("c", 1, 0) == []
    assert p.request("d", 1, 0) == []
    p.request("e", 1, 0)
    assert p.sent("e") == [Refuse(1, "busy", 3)]
    assert p.of(Count) == [Count("refused", 1)]
    p.now += 0.1
    done = p.uploaded("b", 1)
    assert Upload(p.numbers["c"], 1, BLOB, 0, p.of(Upload)[0].vouchers) in done


def test_who_was_refused_hears_when_there_is_room() -> None:
    p = holder("b", "c", "d", "e", "f")
    for name in "bcdef":
        p.request(name, 1, 0)
    p.now += 0.1
    p.uploaded("b", 1)
    assert p.told(Have) == {}
    p.now += 0.1
    p.uploaded("c", 1)
    assert p.told(Have) == {"e": [Have(BLOB, (), 1, int(p.node.uploads.rate), 0)]}
    p.now += 0.1
    p.uploaded("d", 1)
    assert list(p.told(Have)) == ["f"]
    assert p.uploaded("d", 1) == []


def test_an_idle_node_tells_all_that_it_has_room_for() -> None:
    p = holder("b", "c", "d", "e", "f")
    for name in "bcdef":
        p.request(name, 1, 0)
    for name in "cd":
        p.hear(name, Cancel(1))
    p.now += 0.1
    p.uploaded("b", 1)
    assert sorted(p.told(Have)) == ["e", "f"]


def test_a_slow_receiver_does_not_occupy_the_place() -> None:
    p = holder("slow", "b", "c")
    for rid in range(5):  # our own rate becomes known
        p.request("b", rid, rid)
        p.now += 0.1
        p.uploaded("b", rid)
    p.request("slow", 1, 0)
    assert p.request("c", 1, 0) == []
    assert [c for c in p.wait(0.15) if isinstance(c, Upload)] == []
    assert [c.peer for c in p.wait(0.15) if isinstance(c, Upload)] == [p.numbers["c"]]


def test_a_slow_transfer_beside_another_does_not_keep_the_node_awake() -> None:
    """The deadline is never in the past: else the node would spin until the other one is done."""
    p = holder("slow", "b", "c")
    p.request("slow", 1, 0)
    p.wait(0.3)
    p.request("b", 1, 0)
    p.request("c", 1, 0)
    assert p.node.uploads.deadline > p.now
    p.wait(0.2)
    assert p.node.uploads.deadline > p.now


def test_at_most_four_places() -> None:
    p = holder(*"abcdef", queued_most=10)
    for name in "abcdef":
        p.request(name, 1, 0)
        p.wait(2)
    assert p.node.uploads.load == 6
    assert len([c for c in p.ever if isinstance(c, Upload)]) == 4


def test_a_node_that_wants_nothing_queues_more() -> None:
    p = holder("b", pieces=COUNT)
    for rid in range(10):
        p.request("b", rid, 0)
    assert p.node.uploads.load == 1 + 6


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


def test_a_cancelled_transfer_stops_and_the_next_starts() -> None:
    p = holder("b", "c")
    p.request("b", 1, 0)
    p.request("c", 1, 0)
    assert p.hear("b", Cancel(1)) == [StopUpload(p.numbers["b"], 1)]
    p.uploaded("b", 1, whole=False)
    assert [c.peer for c in p.of(Upload)] == [p.numbers["c"]]


def test_a_cancelled_request_leaves_the_queue() -> None:
    p = holder("b", "c")
    p.request("b", 1, 0)
    p.request("c", 1, 0)
    assert p.hear("c", Cancel(1)) == []
    p.now += 0.1
    p.uploaded("b", 1)
    assert p.of(Upload) == []


def test_a_receiver_that_is_gone_makes_room() -> None:
    p = holder("b", "c")
    p.request("b", 1, 0)
    p.request("c", 1, 0)
    p.down("b")
    assert [c.peer for c in p.of(Upload)] == [p.numbers["c"]]
    assert p.uploaded("b", 1) == []


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


def test_what_is_proven_is_vouched_for_for_good() -> None:
    from p2pd.swarm.commands import ComputeChain
    from p2pd.swarm.events import ChainComputed

    p = Play()
    p.event(Stored(BLOB, COUNT << 18))
    p.up("b")
    p.join("b")
    assert p.of(ComputeChain) == [ComputeChain(BLOB, COUNT << 18)]
    p.event(ChainComputed(BLOB, tuple(STATES[1:])))
    [upload] = p.request("b", 1, 2)
    assert upload.vouchers[0].term == PROVED_TERM
    assert upload.vouchers[0].states == tuple(STATES)
