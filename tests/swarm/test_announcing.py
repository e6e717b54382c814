"""Playbooks of speaking with directories: whom to ask, how often, and what an answer means."""

from __future__ import annotations

import pytest

from p2pd.swarm.announcing import GHOST_S, HOLD_TOLD_MAX_S, PATIENCE_S, STAND_BY_S
from p2pd.swarm.candidates import LOST_WAIT_S
from p2pd.swarm.commands import Connect, Failed, Pull, Send, SizeHint
from p2pd.swarm.directory import NEW_S
from p2pd.swarm.events import ConnectFailed, Evicted, Members, PeerUp, PullEnded, Renamed, Stored, Unwant
from p2pd.swarm.messages import Announce, Answer, Holdings, Release, Withdraw
from p2pd.swarm.rendezvous import highest
from p2pd.swarm.voucher import voucher_holds
from tests.swarm.fakes import contact, digest_of, key, signer, verify
from tests.swarm.play import BLOB, COUNT, SIZE, STATES, Play, seeder, wanter


def ranked(*names: str) -> list[str]:
    """The names as rendezvous hashing ranks them for the blob."""
    of = {contact(name).node_id: name for name in names}
    return [of[node] for node in highest(BLOB, of, len(of))]


def announcements(p: Play, name: str) -> list[Announce]:
    return p.sent(name, Announce)


# -- to a tracker -----------------------------------------------------------------------------------------------------


def test_a_wish_is_announced_at_once() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.wait(0)
    [a] = announcements(p, "tracker")
    assert (a.digest, a.size, a.upstream, a.repository, a.kind) == (BLOB, SIZE, "reg", "app", "blob")
    assert (a.primary, a.wanting, a.waiting, a.stuck, a.can_pull, a.complete) == (True, True, True, False, True, False)
    assert (a.term, a.progress, a.need) == (0, 0, 24)


def test_what_is_known_later_is_told() -> None:
    p = Play()
    p.tracker()
    p.want(size=-1, clients=0, can_pull=False)
    p.wait(0)
    [a] = announcements(p, "tracker")
    assert (a.size, a.waiting, a.can_pull) == (-1, False, False)
    p.want(clients=1, can_pull=True)
    p.wait(0)
    [a] = announcements(p, "tracker")
    assert (a.size, a.waiting, a.can_pull) == (SIZE, True, True)


def test_a_hungry_node_asks_every_two_seconds() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.wait(10)
    assert 4 <= len(announcements(p, "tracker")) - 1 <= 6
    assert announcements(p, "tracker")[-1].stuck


def test_what_is_due_at_almost_the_same_time_is_announced_together() -> None:
    """Many announcements in one record cost a tracker little more than one."""
    p = Play()
    p.tracker()
    digests = {digest_of(str(number)) for number in range(5)}
    for digest in digests:
        p.want(digest=digest)
        p.wait(0.05)
    announcements(p, "tracker")
    moments = []
    for _ in range(400):
        p.wait(0.05)
        if told := announcements(p, "tracker"):
            moments.append({a.digest for a in told})
            for digest in digests:
                p.hear("tracker", Answer(digest, SIZE, b"", 0, False, "", 0, ()))
    assert len(moments) >= 9
    assert moments == [digests] * len(moments)


def fed() -> tuple[Play, int]:
    """A node that got a piece a second from the holder, for four; and how often it told its tracker meanwhile."""
    p = wanter("b")
    p.wait(0)
    p.answer(holder="b")
    p.join("b", *range(5))
    p.wait(0)
    announcements(p, "tracker")
    told = 0
    for _ in range(4):
        p.now += 1
        asked = p.node.downloads.of_blob(BLOB)[0]
        p.checked("b", asked.rid)
        p.wait(0)
        told += len(announcements(p, "tracker"))
    return p, told


def test_a_node_that_is_fed_asks_rarely() -> None:
    p, told = fed()
    assert told <= 1
    p.wait(0.5)
    assert announcements(p, "tracker") == []


def test_a_node_that_is_fed_no_more_says_so_in_time() -> None:
    """Its directory has just been told that all is well; its clients do not wait for the next calm announce."""
    p, _ = fed()
    p.wait(9)
    assert announcements(p, "tracker")[-1].stuck


def test_a_holder_announces_its_progress() -> None:
    p = seeder("b", pieces=3)
    p.wait(2.3)
    a = announcements(p, "tracker")[-1]
    assert (a.term, a.progress) == (1, 3)


def test_all_of_it_is_here() -> None:
    p = seeder()
    p.wait(0)
    a = announcements(p, "tracker")[-1]
    assert (a.complete, a.wanting, a.term) == (True, False, 0)
    assert [m.reason for c in p.ever if hasattr(c, "message") and isinstance(m := c.message, Release)] == ["done"]


def test_nothing_is_left_of_a_wish_that_ended() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.wait(0)
    p.event(Unwant(BLOB))
    assert p.sent("tracker", Withdraw) == [Withdraw(BLOB)]
    assert p.wait(30) == []


def test_a_tracker_hears_what_is_stored() -> None:
    p = Play(holdings_most=3)
    blobs = [digest_of(str(i)) for i in range(5)]
    for digest in blobs:
        p.event(Stored(digest, 100))
    p.event(Stored(blobs[2], 100))
    p.tracker()
    assert p.sent("tracker") == [Holdings((blobs[2], blobs[4], blobs[3]))]


def test_the_second_tracker_is_a_stand_by() -> None:
    p = Play()
    p.tracker("second", 1)
    p.tracker("first", 0)
    p.tracker("third", 2)
    p.want()
    p.wait(0)
    assert {name: a.primary for name in ("first", "second") for a in announcements(p, name)} == {
        "first": True,
        "second": False,
    }
    assert announcements(p, "third") == []
    p.down("first")
    p.wait(0.1)
    assert [a.primary for a in announcements(p, "second")] == [True]
    assert [a.primary for a in announcements(p, "third")] == [False]


def test_nobody_to_ask_yet() -> None:
    p = Play()
    p.node.announcer._settles_at = p.now + 3
    p.want()
    assert p.wait(2.9) == []
    p.tracker()
    p.wait(0.1)
    assert announcements(p, "tracker")


# -- answers ----------------------------------------------------------------------------------------------------------


def test_neighbours_are_met() -> None:
    p = Play()
    p.tracker()
    p.up("known")
    p.want()
    p.answer("b", "c", "known", "me")
    assert [c.contact.name for c in p.of(Connect)] == ["b", "c"]


def test_no_more_than_is_enough() -> None:
    p = Play(neighbours_enough=3)
    p.tracker()
    p.want()
    p.answer(*"abcdefghijkl")
    assert len(p.of(Connect)) == 5


def test_a_size_is_a_hint() -> None:
    p = Play()
    p.tracker()
    p.want(size=-1)
    p.answer(size=SIZE)
    assert p.of(SizeHint) == [SizeHint(BLOB, SIZE)]
    assert p.blob().geometry is None  # the shell decides whether to believe it
    q = wanter()
    q.answer(size=7)
    assert q.of(SizeHint) == []


@pytest.mark.parametrize("hold_s", [0, 40])
def test_nobody_can_get_it(hold_s: int) -> None:
    p = Play()
    p.tracker()
    p.want()
    p.lease()
    p.event(PullEnded(BLOB, "denied"))
    p.hear("tracker", Answer(BLOB, -1, b"", 0, False, "denied", hold_s, ()))
    assert p.of(Failed) == [Failed(BLOB, "denied", hold_s)]


def test_nobody_can_get_it_and_this_node_could_not_try() -> None:
    p = Play()
    p.tracker()
    p.want(can_pull=False)
    p.answer(failure="missing")
    assert p.of(Failed) == [Failed(BLOB, "missing", 0)]


def test_a_registrys_pause_is_believed_for_a_limited_time() -> None:
    p = Play()
    p.tracker()
    p.want()
    p.hear("tracker", Answer(BLOB, -1, b"", 0, False, "limited", 86400, ()))
    assert p.of(Failed) == [Failed(BLOB, "limited", HOLD_TOLD_MAX_S)]


@pytest.mark.parametrize("failure", ["denied", "missing", "unreachable", "wrong-bytes"])
def test_a_directory_that_says_this_node_has_failed_is_passed_over(failure: str) -> None:
    """Every wanter has failed, it says; this one has not. The nodes are each other's directories then."""
    p = Play()
    p.tracker()
    p.want()
    p.wait(0.1)
    p.answer(failure=failure)
    assert p.of(Failed) == []
    assert p.blamed() == [("tracker", "a directory that says this node has failed, which it has not")]
    p.answer(failure=failure)
    assert p.of(Failed) == []
    p.wait(3.0)  # it knows nobody else, so it is its own directory
    assert p.of(Pull)
    assert p.blob().term


@pytest.mark.parametrize(("failure", "is_told"), [("unreachable", True), ("missing", False)])
def test_a_lost_lease_explains_no_more_than_that(failure: str, is_told: bool) -> None:
    """A directory takes the lease from a node of which it hears no progress; of what upstream has it knows nothing."""
    p = Play()
    p.tracker()
    p.want()
    p.wait(0.1)
    p.lease(term=1)
    p.answer(holder="b", term=2)
    p.answer(failure=failure)
    assert [c.reason for c in p.of(Failed)] == ([failure] if is_told else [])


def test_what_was_heard_of_a_failure_is_no_lie_a_moment_later() -> None:
    """The client asks once more; the directory still knows how the first wish ended."""
    p = Play()
    p.tracker()
    p.want()
    p.lease()
    p.event(PullEnded(BLOB, "missing"))
    p.answer(failure="missing")
    p.event(Evicted(BLOB))
    p.want()
    p.answer(failure="missing")
    assert p.blamed() == []
    assert p.of(Failed) == [Failed(BLOB, "missing", 0)]


def test_a_directory_under_which_nothing_moves_is_passed_over() -> None:
    p = wanter("b")
    p.wait(0)
    p.answer(holder="b")
    assert passed_over(p, PATIENCE_S - 1, ("tracker", "b")) == {}
    assert list(passed_over(p, 17.0, ("tracker", "b"))) == ["tracker"]


def passed_over(p: Play, seconds: float, *answers: tuple[str, str]) -> dict[str, float]:
    """The directories that are passed over in that time, and after how many seconds. `answers`: who names whom."""
    found: dict[str, float] = {}
    for step in range(int(seconds * 4)):
        p.wait(0.25)
        for name, _ in p.blamed():
            found[name] = step / 4
        asked = [(directory, holder) for directory, holder in answers if p.sent(directory, Announce)]
        for directory, holder in asked:
            p.hear(directory, Answer(BLOB, SIZE, contact(holder).node_id, 50, False, "", 0, ()))
    return found


def met(*names: str) -> Play:
    """A node without trackers that mDNS showed these, and that is connected to all; it wants the blob."""
    p = Play()
    p.event(Members(tuple(contact(name) for name in names)))
    for name in names:
        p.up(name)
    p.want()
    p.wait(0)
    return p


def test_a_directory_that_names_a_holder_whom_nobody_has_seen_is_passed_over_sooner() -> None:
    others = [f"n{i}" for i in range(30)]
    first, second, *_ = ranked(*others)
    assert passed_over(met(*others), 8.0, (first, "ghost"), (second, others[7]))[first] < GHOST_S + 3
    assert passed_over(met(*others), 8.0, (first, others[7]), (second, "ghost")) == {}


def test_a_stand_by_that_has_heard_it_all_has_less_time_to_mend_it() -> None:
    others = [f"n{i}" for i in range(30)]
    first, second, third, *_ = ranked(*others)
    names = [(name, others[7]) for name in (first, second, third)]
    found = passed_over(met(*others), 30.0, *names)
    assert PATIENCE_S < found[first] < PATIENCE_S + 3
    assert STAND_BY_S < found[second] - found[first] < STAND_BY_S + 3


def test_a_directory_that_was_passed_over_and_grants_the_lease_counts_again() -> None:
    """It took longer to mend it than this node waited, and now everybody waits for this node."""
    p = wanter("b")
    p.wait(0)
    p.answer(holder="b")
    assert any(passed_over(p, 0.25, ("tracker", "b")) for _ in range(60))
    p.answer(holder="c", term=2)
    assert p.blob().holder != contact("c").node_id
    p.hear("tracker", Answer(BLOB, SIZE, contact("me").node_id, 3, False, "", 0, ()))
    p.wait(1.5)  # first it hears what the others have
    assert len(p.of(Pull)) == 1
    p.wait(2.5)
    assert {m.term for m in p.sent("tracker", Announce)} == {3}


def test_a_lease_for_what_is_unwanted_goes_back() -> None:
    p = wanter("b")
    p.wait(0)
    p.join("b", 1)
    p.checked("b", p.node.downloads.of_blob(BLOB)[0].rid)
    p.event(Unwant(BLOB))
    p.lease(term=4)
    assert p.sent("tracker", Release) == [Release(BLOB, 4, "unwanted", 0)]
    assert p.of(Pull) == []


def test_an_answer_about_a_forgotten_blob() -> None:
    p = Play()
    p.tracker()
    p.answer("b", holder="me", failure="denied")
    assert p.done == []


def test_the_same_lease_twice_is_one() -> None:
    p = seeder(pieces=2)
    p.lease()
    assert p.of(Pull) == []


# -- without trackers -------------------------------------------------------------------------------------------------


def test_who_knows_nobody_is_its_own_directory() -> None:
    p = Play()
    p.want()
    done = p.wait(NEW_S + 0.5)
    assert [c for c in done if isinstance(c, Pull)] == [Pull(BLOB, 0, COUNT, STATES[0])]
    assert p.blob().term == 1


def test_who_knows_nobody_hears_that_it_cannot() -> None:
    p = Play()
    p.want()
    p.wait(NEW_S + 0.5)
    p.event(PullEnded(BLOB, "missing"))
    done = p.done + p.wait(0.5)
    assert {c for c in done if isinstance(c, Failed)} == {Failed(BLOB, "missing", 0)}


def test_the_two_that_rank_highest_are_asked() -> None:
    names = ["me", "b", "c", "d", "e"]
    p = Play()
    for name in names[1:]:
        p.up(name)
    p.want()
    p.wait(0)
    first, second = ranked(*names)[:2]
    asked = {name: a.primary for name in p.numbers for a in announcements(p, name)}
    assert asked == {name: name == first for name in (first, second) if name != "me"}


def test_a_found_node_that_ranks_highest_is_called_first() -> None:
    others = [f"n{i}" for i in range(30)]
    first = ranked("me", *others)[0]
    assert first != "me"
    p = Play()
    p.event(Members(tuple(contact(name) for name in others)))
    p.want()
    p.wait(0)
    assert contact(first) in [c.contact for c in p.of(Connect)]
    assert p.told(Announce) == {}
    p.up(first)
    p.wait(0.1)
    assert [a.primary for a in announcements(p, first)] == [True]


def test_one_that_cannot_be_reached_is_passed_over() -> None:
    others = [f"n{i}" for i in range(30)]
    first, second, *_ = ranked("me", *others)
    p = Play()
    p.event(Members(tuple(contact(name) for name in others)))
    p.want()
    p.wait(0)
    p.event(ConnectFailed(contact(first).node_id))
    p.wait(0.1)
    assert second == "me" or contact(second) in [c.contact for c in p.of(Connect)]
    p.up(second)
    p.wait(0.1)
    assert [a.primary for a in announcements(p, second)] == [True]


def test_where_many_are_not_there_the_next_ones_are_called_meanwhile() -> None:
    """A rack without power is in mDNS for minutes, and each call into it takes seconds."""
    others = [f"n{i}" for i in range(30)]
    dark = ranked("me", *others)[:6]
    assert "me" not in dark
    p = Play()
    p.event(Members(tuple(contact(name) for name in others)))
    p.want()
    called = {c.contact for c in p.wait(1.0) if isinstance(c, Connect)}
    assert {contact(name) for name in dark} < called
    for name in others:
        if contact(name) in called and name not in dark:
            p.up(name)
    told = {p.names[c.peer] for c in p.wait(1.5) if isinstance(c, Send) and isinstance(c.message, Announce)}
    assert told == set(ranked("me", *others)[6:8]) - {"me"}


def two_trackers() -> Play:
    """A node that wants the blob, connected to the trackers "one" and "two"."""
    p = Play()
    for number, name in enumerate(("one", "two")):
        p.event(PeerUp(77 + number, contact(name), key(name), True, number))
        p.names[77 + number], p.numbers[name] = name, 77 + number
    p.want()
    p.wait(0)
    return p


def test_a_lost_lease_is_not_taken_again_from_who_has_not_heard_of_it() -> None:
    """Two trackers name different holders: the node would lose the lease and take it, with each answer."""
    p = two_trackers()
    p.hear("two", Answer(BLOB, SIZE, contact("me").node_id, 8, True, "", 0, ()))
    p.wait(0)
    assert p.blob().term == 8
    p.hear("one", Answer(BLOB, SIZE, contact("other").node_id, 9, False, "", 0, ()))
    p.hear("two", Answer(BLOB, SIZE, contact("me").node_id, 8, False, "", 0, ()))
    assert p.blob().term == 0
    told = [c.message for c in p.wait(1.0) if isinstance(c, Send) and isinstance(c.message, Announce)]
    assert {(a.term, a.heard) for a in told} == {(0, 9)}
    assert len(told) == 2
    p.hear("two", Answer(BLOB, SIZE, contact("me").node_id, 10, False, "", 0, ()))
    assert p.blob().term == 10


def test_a_directory_that_was_passed_over_does_not_count_again_for_a_lease_that_is_held_anyway() -> None:
    """It would be passed over and count again with each announcement, a hundred times a second."""
    p = two_trackers()
    starving = digest_of("starving")
    p.want(digest=starving)
    said = 0
    for _ in range(200):
        p.wait(0.1)
        said += len(p.told(Announce).get("one", ()))
        for name in [name for name in ("one", "two") if p.sent(name, Announce)]:
            p.hear(name, Answer(BLOB, SIZE, contact("me").node_id, 1, True, "", 0, ()))
            p.hear(name, Answer(starving, SIZE, contact("b").node_id, 1, False, "", 0, ()))
    assert said < 40
    p.wait(1.9)
    assert p.told(Announce).get("one", []) == []


def test_a_directory_that_says_nothing_is_done_without_until_it_does() -> None:
    """Its machine may have lost its power: the connection's own bound is 20 s."""
    others = [f"n{i}" for i in range(30)]
    first, second, third, *_ = ranked("me", *others)
    p = met(*others)
    p.wait(1.0)
    p.hear(second, Answer(BLOB, SIZE, b"", 0, False, "", 0, ()))
    for _ in range(10):
        p.wait(0.25)
        if p.sent(second, Announce):
            p.hear(second, Answer(BLOB, SIZE, b"", 0, False, "", 0, ()))
    p.wait(2.5)
    assert [a.primary for a in p.sent(second, Announce)][-1:] == [True]
    assert p.sent(third, Announce)
    assert p.sent(first, Announce) == []
    assert p.blamed() == []
    p.hear(first, Answer(BLOB, SIZE, b"", 0, False, "", 0, ()))
    p.wait(0.5)
    assert [a.primary for a in p.sent(first, Announce)] == [True]


def test_a_tracker_that_says_nothing_leaves_it_to_the_other_one() -> None:
    p = two_trackers()
    for _ in range(16):
        p.wait(0.25)
        if p.sent("two", Announce):
            p.hear("two", Answer(BLOB, SIZE, b"", 0, False, "", 0, ()))
    p.wait(2.5)
    assert [a.primary for a in p.sent("two", Announce)][-1:] == [True]
    assert p.sent("one", Announce) == []


def test_the_only_tracker_has_more_time_to_answer() -> None:
    """Without its word the nodes may disagree. When it is lost in any case, they go on as if they had none."""
    p = Play()
    p.tracker()
    p.up("b")
    p.want()
    told = [(p.now, c.peer, c.message) for c in p.wait(1.5 + LOST_WAIT_S) if isinstance(c, Send)]
    assert {p.names[peer] for _, peer, message in told if isinstance(message, Announce)} == {"tracker"}
    p.wait(1.0)
    assert {a.primary for a in p.sent("b", Announce)} == {ranked("me", "b")[0] == "b"}
    p.wait(2.5)
    assert p.sent("tracker", Announce) == []
    p.answer(holder="b")
    p.wait(0.5)
    assert [a.primary for a in p.sent("tracker", Announce)] == [True]


def test_a_node_serves_as_a_directory() -> None:
    p = Play()
    p.now += NEW_S
    p.up("b")
    p.up("c")
    a = Announce(BLOB, SIZE, "blob", "reg", "app", True, True, True, False, True, False, 0, 0, 0, 5)
    p.hear("b", a)
    [answer] = p.sent("b", Answer)
    assert answer.holder == contact("b").node_id
    p.hear("c", a)
    [answer] = p.sent("c", Answer)
    assert answer.holder == contact("b").node_id
    assert [peer.name for peer in answer.peers] == ["b"]
    p.down("b")
    [answer] = p.sent("c", Answer)
    assert answer.holder == contact("c").node_id


def test_a_tracker_comes_back() -> None:
    p = Play()
    p.up("b")
    p.want()
    p.wait(0)
    p.event(PeerUp(77, contact("tracker"), key("tracker"), True, 0))
    p.names[77], p.numbers["tracker"] = "tracker", 77
    p.wait(0.1)
    assert [a.primary for a in announcements(p, "tracker")] == [True]
    assert announcements(p, "b") == []


def test_a_node_with_a_new_key_goes_on_with_what_it_holds() -> None:
    """Its certificate was renewed with another key. The tracker knows the old one no more, and hears of the lease."""
    p = Play()
    p.tracker()
    p.want()
    p.wait(0)
    p.lease(term=3)
    p.stored(0)
    old = p.node.state.me.node_id
    p.event(Renamed(contact("again"), key("again"), signer(key("again"))))
    p.down("tracker")
    p.tracker()
    p.wait(0.1)
    assert announcements(p, "tracker")[-1].term == 3
    assert p.blob().holder == p.node.state.me.node_id == contact("again").node_id != old
    p.answer(holder="again", term=3)
    assert p.blob().term == 3
    (voucher, *_) = p.node.state.vouchers_for(p.blob(), 0)
    assert voucher.key == key("again")
    assert voucher_holds(voucher, verify)


def test_ones_own_directory_knows_the_new_id() -> None:
    p = Play(settle_s=0.0)
    p.want()
    p.wait(3)
    assert p.blob().term == 1
    p.event(Renamed(contact("again"), key("again"), signer(key("again"))))
    p.wait(3)
    holder, term = p.node.announcer.directory.lease(BLOB) or (b"", 0)
    assert holder == contact("again").node_id
    assert term == p.blob().term > 0
