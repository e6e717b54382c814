"""Playbooks of receiving: what is asked of whom, and what comes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pd.swarm.blob import Neighbour
from p2pd.swarm.commands import Abandon, Blame, Close, Count, Fetch, Keep, Prove, Send
from p2pd.swarm.downloads import SLOW_AGAIN_S
from p2pd.swarm.events import PullEnded, Reading
from p2pd.swarm.messages import Cancel, Join, Refuse, Request
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
    p.now += 0.1
    [(rid, _), _] = p.asked()["c"]
    p.checked("c", rid)
    assert list(p.asked()) == ["c"]  # the next one at the same: its line stays full
    assert len(p.asked()["c"]) == 1


def test_a_fast_uploader_is_asked_for_what_its_line_takes() -> None:
    """So that nothing stands still while a request travels; but for no more than a few."""
    p = wanter("b", at_one_most=5)
    p.join("b", *range(COUNT))
    [(rid, _), _] = p.asked()["b"]
    p.now += 0.001  # 262 MB/s: 30 pieces in pipeline_s
    p.checked("b", rid)
    assert p.node.state.peers[p.numbers["b"]].asked == 5


# -- sources ----------------------------------------------------------------------------------------------------------


def sources(p: Play) -> list[str]:
    """Whom it asks now."""
    return sorted({p.names[a.peer] for a in p.node.downloads.of_blob(BLOB)})


def all_have(p: Play, *names: str, upto: int = COUNT) -> None:
    for name in names:
        p.join(name, *range(upto))


def test_at_most_four_are_asked_at_a_time() -> None:
    p = wanter(*"bcdef", at_one_uploader=1)
    all_have(p, *"bcdef")
    assert sources(p) == list("bcde")
    p.down("c")
    assert sources(p) == list("bdef")


def test_a_request_says_how_many_are_asked() -> None:
    p = wanter(*"bcdef", at_one_uploader=1)
    said = []
    for name in "bcde":
        p.join(name, *range(COUNT))
        said += [m.sources for m in p.sent(name, Request)]
    assert said == [1, 2, 3, 4]
    p.now += 0.05
    p.checked("b", p.node.downloads.of_blob(BLOB)[0].rid)
    assert [m.sources for m in p.sent("b", Request)] == [4]
    p.down("c")
    assert len(sources(p)) == 3
    p.checked("b", next(a.rid for a in p.node.downloads.of_blob(BLOB) if p.names[a.peer] == "b"))
    assert [m.sources for m in p.sent("b", Request)] == [3]


def test_news_of_one_more_make_no_fifth_source() -> None:
    p = wanter(*"bcdef", at_one_uploader=1)
    all_have(p, *"bcde", upto=5)
    p.join("f")
    p.have("f", 7)
    assert p.asked() == {}
    p.down("b")
    assert "f" in sources(p)


def test_a_source_whose_pieces_all_came_makes_room_for_another() -> None:
    p = wanter("b", "c", sources=1)
    p.join("b", 0)
    p.join("c", *range(COUNT))
    assert sources(p) == ["b"]
    p.now += 0.05
    p.checked("b", p.node.downloads.of_blob(BLOB)[0].rid)
    assert sources(p) == ["c"]


def test_who_pulls_from_upstream_asks_one() -> None:
    """What comes from upstream feeds everybody: peers must not take its share of the line."""
    p = Play()
    p.tracker()
    other = digest_of("other")
    p.want(digest=other)
    p.lease(digest=other)
    assert other in p.node.state.pulls
    p.want()
    for name in "bcd":
        p.up(name)
    all_have(p, *"bcd")
    assert sources(p) == ["b"]
    p.event(PullEnded(other, "missing"))
    assert sources(p) == list("bcd")


def test_who_pulls_and_falls_behind_asks_two_unless_that_slows_the_pull() -> None:
    p = Play(behind_pieces=2, at_one_uploader=1)
    p.tracker()
    other = digest_of("other")
    p.want(digest=other)
    p.lease(digest=other)
    p.want()
    for name in "bcd":
        p.up(name)
        p.join(name)
    told_counts(p, 5, "d")
    all_have(p, *"bcd")
    assert sources(p) == ["b", "c"]
    p.node.state.pull_slowed = True
    asked = {name: p.node.downloads.of_blob(BLOB) for name in "bc"}
    for request in list(asked["b"]):
        p.now += 0.01
        p.checked(p.names[request.peer], request.rid)
    assert len(sources(p)) == 1  # none beside it


def told_counts(p: Play, count: int, *names: str) -> None:
    """The neighbours say that they have so many pieces, often enough to be believed."""
    for _ in range(30):
        for name in names:
            p.have(name, count=count)
    p.now += 0.1


@pytest.mark.parametrize(
    ("count", "wanting", "asked"), [(0, True, 4), (2, True, 4), (5, True, 5), (9, True, 6), (9, False, 4)]
)
def test_who_is_behind_its_neighbours_asks_more(count: int, wanting: bool, asked: int) -> None:
    """Those who have finished are no measure."""
    p = wanter(*"bcdefghi", at_one_uploader=1, behind_pieces=2)
    for name in "bcdefgh":
        p.join(name)
    p.join("i", wanting=wanting)
    told_counts(p, count, "i")
    all_have(p, *"bcdefgh")
    assert len(sources(p)) == asked


def test_who_is_ahead_of_its_neighbours_asks_fewer() -> None:
    p = wanter("s", *"bcdef", at_one_uploader=1, behind_pieces=4)
    p.join("s", *range(6))
    while p.node.downloads.out:
        p.now += 0.01
        p.checked("s", p.node.downloads.of_blob(BLOB)[0].rid)
    p.down("s")
    for name in "bcdef":
        p.join(name)
    told_counts(p, 1, "b")  # six here, one there
    all_have(p, *"bcdef")
    assert len(sources(p)) == 3


def test_beside_slow_sources_more_are_asked() -> None:
    p = wanter(*"bcdefgh", at_one_uploader=1, sources_most=6)
    all_have(p, *"bcde", upto=8)
    typical = 1e7
    p.node.downloads._typical = typical
    for name in "bcde":
        p.node.state.peers[p.numbers[name]].rate = typical / 10
    all_have(p, *"fgh")
    assert len(sources(p)) == p.node.state.settings.sources_most


def test_who_has_more_room_and_a_usual_rate_goes_before() -> None:
    p = wanter("x", "b", "c", "d", sources=1)
    p.join("x", 0)
    p.join("b", *range(1, COUNT), load=75)
    p.join("c", *range(1, COUNT), load=0)
    p.join("d", *range(1, COUNT), load=0)
    p.node.downloads._typical = 1e7
    p.node.state.peers[p.numbers["d"]].rate = 1e5  # idle because nobody likes to wait for it
    p.node.state.peers[p.numbers["c"]].rate = p.node.state.peers[p.numbers["b"]].rate = 1e7
    p.down("x")
    assert sources(p) == ["c"]


def test_no_piece_is_asked_twice() -> None:
    p = wanter("b", "c", "d")
    for name in "bcd":
        p.join(name, 1, 2)
    assert sorted(a.index for a in p.node.downloads.of_blob(BLOB)) == [1, 2]


def test_the_rarest_first() -> None:
    p = wanter("b", "c", "d", sources=8)
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


def with_a_second_blob() -> tuple[Play, bytes]:
    """Of the first of two blobs, as much is asked at "b" as it may be; a client waits for the second, which "c" has."""
    other = bytes(range(32))
    p = wanter("b", "c", sources=1)
    p.join("b", *range(COUNT))
    p.want(digest=other)
    p.join("c", *range(COUNT), digest=other)
    assert p.node.downloads.of_blob(BLOB)
    assert p.node.downloads.of_blob(other) == []
    return p, other


def test_a_client_that_stands_still_at_another_blob_gets_its_piece_alone() -> None:
    p, other = with_a_second_blob()
    p.join("b", *range(COUNT), digest=other)
    p.event(Reading(other, 7))
    assert [(a.peer, a.index) for a in p.node.downloads.of_blob(other)] == [(p.numbers["b"], 7)]  # it serves us already
    for asked in p.node.downloads.of_blob(BLOB):
        p.voucher("b", "seeder", 0, COUNT)
        p.checked("b", asked.rid)
    assert [a.index for a in p.node.downloads.of_blob(other)] == [7]  # the line is the first one's again
    assert p.node.downloads.of_blob(BLOB)


def test_a_client_that_stands_still_is_helped_by_who_does_not_serve_us_yet() -> None:
    p, other = with_a_second_blob()
    p.event(Reading(other, 7))
    assert (p.numbers["c"], 7) in [(a.peer, a.index) for a in p.node.downloads.of_blob(other)]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_busy_is_asked_again_after_a_while() -> None:
    p = wanter("b")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.hear("b", Refuse(rid, "busy", 100))
    assert p.of(Abandon) == [Abandon(p.numbers["b"], rid)]
    assert p.asked() == {}
    p.wait(0.02)
    assert p.asked() == {}
    p.wait(0.02)  # with nothing else going on
    assert only(p.asked())[::2] == ("b", 3)


@pytest.mark.parametrize(("usual_s", "again_s"), [(0.01, 0.03), (0.2, 0.2), (3.0, 0.5)])
def test_busy_is_asked_again_after_what_a_piece_takes(usual_s: float, again_s: float) -> None:
    p = wanter("b", "c")
    p.join("c", 0)
    _, rid, _ = only(p.asked())
    p.now += usual_s
    p.checked("c", rid)
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.hear("b", Refuse(rid, "busy", 100))
    p.wait(again_s - 0.01)
    assert p.asked() == {}
    p.wait(0.02)
    assert only(p.asked())[::2] == ("b", 3)


def test_who_was_busy_and_has_news_is_asked_after_the_while() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.join("c", 3)
    p.hear("b", Refuse(rid, "busy", 100))
    _, rid, _ = only(p.asked())
    p.checked("c", rid)
    p.have("b", 5, load=100)
    assert p.asked() == {}
    p.wait(0.02)
    assert p.asked() == {}
    p.wait(0.02)
    assert only(p.asked())[::2] == ("b", 5)


def test_busy_is_asked_again_at_its_notice() -> None:
    p = wanter("b")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.hear("b", Refuse(rid, "busy", 100))
    p.now += 0.01
    p.have("b", load=75)
    assert only(p.asked())[::2] == ("b", 3)


def test_busy_is_asked_elsewhere_at_once() -> None:
    p = wanter("b", "c")
    p.join("b", 3)
    _, rid, _ = only(p.asked())
    p.join("c", 3)
    p.hear("b", Refuse(rid, "busy", 100))
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
    assert p.hear("c", Refuse(rid, "busy", 100)) == []
    assert p.hear("b", Refuse(rid + 7, "busy", 100)) == []


def test_a_full_uploader_is_passed_over() -> None:
    p = wanter("b", "c")
    p.join("b", load=100)
    p.have("b", 4, load=99)
    assert p.asked() == {}  # it said that it is full
    p.join("c", 4)
    assert only(p.asked())[::2] == ("c", 4)


def test_a_full_uploader_whose_place_is_ours_is_asked() -> None:
    p = wanter("b")
    p.join("b", 3)
    p.have("b", 4, load=100)  # our own request is a part of that
    assert only(p.asked())[::2] == ("b", 4)


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


def test_two_pieces_that_come_at_once_count_as_two() -> None:
    """Both were waited for: the second one says nothing of a line that takes no time at all."""
    p = wanter("b")
    usual(p, "b")
    peer = p.node.state.peers[p.numbers["b"]]
    usual_rate = peer.rate
    for first in range(2, 8, 2):
        p.join("b", *range(first + 2))
        p.now += 0.2
        for index in (first, first + 1):
            p.checked("b", p.node.downloads.of_piece(BLOB, index)[0].rid)
    assert usual_rate / 2 < peer.rate < usual_rate * 2


def test_who_was_slow_is_tried_again_after_a_while() -> None:
    """One bad sample is not for ever: who is never asked can never show that it is as fast as the others."""
    p = wanter("b", "c")
    state, downloads, blob = p.node.state, p.node.downloads, p.blob()
    for name, rate, load in (("b", 1e6, 75), ("c", 1e4, 0)):
        number = p.numbers[name]
        peer = state.peers[number]
        neighbour = blob.neighbours.setdefault(number, Neighbour(peer))
        peer.rate, peer.load, peer.asked_at = rate, load, state.now
        blob.neighbour_has(neighbour, 1 << 5)
    downloads._typical = 1e6
    found = []
    for _ in range(2):
        uploader = downloads._uploader(blob, 1 << 5)
        assert uploader
        found.append(p.names[uploader[0].number])
        state.now += SLOW_AGAIN_S
    assert found == ["b", "c"]


def test_two_who_send_nothing_do_not_hold_a_piece_between_them() -> None:
    p = wanter("b", "c", "d")
    usual(p, "b")
    p.join("c", 5)
    p.join("d", 5)
    p.wait(0.5)
    assert {p.names[a.peer] for a in p.node.downloads.of_piece(BLOB, 5)} == {"c", "d"}
    p.join("b", 5)
    p.wait(0.2)
    assert "b" in {p.names[a.peer] for a in p.node.downloads.of_piece(BLOB, 5)}


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
    p.now = last.sent + 2.5 * p.node.downloads._usual_s  # so late it is expected then, but not late yet
    assert last.late_at > p.now
    p.have("b", last.index, load=0)
    hedged = [a for a in p.node.downloads.of_piece(BLOB, last.index) if a.peer == p.numbers["b"]]
    assert len(hedged) == 1


def last_one_at(rate: float) -> tuple[Play, int]:
    """All pieces but one are here; "c", of which such a rate is known, has begun to send the last one."""
    p = wanter("b", "c")
    usual(p, "b")
    p.join("c", *range(2, COUNT), wanting=False)
    while p.blob().missing or len(p.node.downloads.of_blob(BLOB)) > 1:
        asked = p.node.downloads.of_blob(BLOB)[0]
        p.started("c", asked.rid)
        p.now += 0.1
        p.checked("c", asked.rid)
    [last] = p.node.downloads.of_blob(BLOB)
    p.node.state.peers[p.numbers["c"]].rate = rate
    p.started("c", last.rid)
    return p, last.index


@pytest.mark.parametrize(("pieces_a_second", "asked_of"), [(0.5, {"b", "c"}), (20.0, {"c"})])
def test_at_the_end_what_drips_in_is_asked_of_another(pieces_a_second: float, asked_of: set[str]) -> None:
    """What is left of it at its sender's rate counts, against what a piece usually takes (0.1 s)."""
    p, last = last_one_at(pieces_a_second * LENGTH)
    p.join("b", 0, 1, last)
    assert {p.names[a.peer] for a in p.node.downloads.of_piece(BLOB, last)} == asked_of


def test_one_slow_piece_does_not_change_what_is_typical() -> None:
    p = wanter("b", "c")
    usual(p, "b")
    typical = p.node.downloads._typical
    p.join("c", 5)
    _, rid, _ = only(p.asked())
    p.started("c", rid)
    p.now += 3
    p.checked("c", rid)
    assert p.node.downloads._typical > 0.7 * typical


# -- claims -----------------------------------------------------------------------------------------------------------


def test_what_the_seeder_shows_is_asked_at_once_even_beside_a_full_set() -> None:
    p = wanter("s", "b", "c", sources=2)
    p.join("b", 0, 1)
    p.join("c", 2, 3)
    assert p.node.downloads.out == 4
    p.join("s", term=1)
    p.have("s", 9, term=1)
    assert only(p.asked())[::2] == ("s", 9)


def test_what_others_tell_is_no_claim() -> None:
    p = wanter("s", "b", "c", sources=2)
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


def test_what_one_keeps_to_itself_of_whom_nothing_ever_came_is_asked_of_the_seeder() -> None:
    """It says that it has all. A seeder that waits for us to fetch what only we are shown would stand still."""
    p = wanter("liar", "s", at_one_uploader=COUNT)
    p.join("s", term=1)
    p.join("liar", *range(COUNT))
    assert 9 in p.set(p.blob().flying)
    p.have("s", 9, term=1)
    [(rid, index)] = p.asked()["s"]
    assert index == 9
    p.have("s", 9, term=1)
    assert p.asked() == {}
    p.checked("s", rid)
    assert 9 in p.present


@pytest.mark.parametrize("brought", [True, False])
def test_what_comes_from_somebody_is_not_asked_of_the_seeder(brought: bool) -> None:
    p = wanter("b", "s", at_one_uploader=COUNT)
    p.join("s", term=1)
    p.join("b", *range(COUNT))
    rids = {index: rid for rid, index in p.asked()["b"]}
    if brought:
        p.checked("b", rids[0])
    else:
        p.started("b", rids[9])
    p.have("s", 9, term=1)
    assert p.asked() == {}


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
    p = Play(requests_most=2, at_one_uploader=4)
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
