"""Wishes, files and the core in step: with a real store and a real core, alone and in virtual time."""

from __future__ import annotations

import os

import pytest
import trio

from p2pd.content.arrival import Arrival, raw
from p2pd.content.arrivals import FLUSH_S, KEEP_WANTING_S
from p2pd.content.records import pack_record
from p2pd.store import Partial, StoreFailed, StoreFull
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.pieces import BLOB_SIZE_MAX
from p2pd.upstream import Unreachable
from tests.content.conftest import Maker, World
from tests.content.fakes import HOST, PIECE, REPOSITORY, Blob, Body, Threads, blob, disk_full, until


def want(world: World, one: Blob, size: int | None = None) -> Arrival:
    arrival = world.arrivals.want("blob", HOST, REPOSITORY, one.digest, one.size if size is None else size)
    assert arrival
    return arrival


def pins(partial: Partial) -> int:
    return partial._pins


async def settled(arrival: Arrival) -> Arrival:
    """It has ended, one way or the other."""
    await until(lambda: arrival.proven or arrival.failure)
    return arrival


async def half_here(world: World, one: Blob) -> Arrival:
    """The first pieces of it are here, then upstream is silent."""
    world.registry.serve(one, silent_at=2 * PIECE)
    arrival = want(world, one)
    await until(lambda: arrival.present == 0b11)
    return arrival


# -- the usual course ------------------------------


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, 5 * PIECE + 7])
async def test_a_wish_becomes_a_proven_blob(world: World, size: int) -> None:
    one = blob(size)
    world.registry.serve(one)
    arrival = await settled(want(world, one))
    await until(lambda: world.arrivals.get(one.digest) is None)
    assert arrival.proven
    assert world.holds(one)
    assert len(world.registry.asked) == 1
    assert arrival.from_upstream == size


async def test_a_size_that_nobody_knows_is_upstreams_to_say(world: World) -> None:
    one = blob(3 * PIECE)
    world.registry.serve(one)
    arrival = await settled(want(world, one, size=-1))
    assert arrival.size_is_sure
    assert world.holds(one)


async def test_two_wishes_are_one_arrival(world: World) -> None:
    one = blob(2 * PIECE)
    world.registry.serve(one)
    first, second = want(world, one), want(world, one)
    await settled(first)
    await until(lambda: world.holds(one))
    assert first is second
    assert len(world.registry.asked) == 1


async def test_nothing_is_pinned_and_nothing_left_after_a_proof(world: World) -> None:
    one = blob(3 * PIECE)
    world.registry.serve(one, rate=PIECE)
    arrival = want(world, one)
    await until(lambda: arrival.partial)
    partial = arrival.partial
    assert partial and pins(partial) == 1
    await settled(arrival)
    await until(lambda: not world.arrivals.all())
    assert pins(partial) == 0
    assert world.store.partials() == []


# -- the end of a wish ------------------------------


async def test_a_wish_ends_a_while_after_its_last_client(world: World) -> None:
    one = blob(4 * PIECE)
    arrival = await half_here(world, one)
    with world.arrivals.client(arrival):
        await trio.sleep(3 * KEEP_WANTING_S)
        assert world.core(one).want
    await trio.sleep(KEEP_WANTING_S - 2)
    assert world.core(one).want
    await trio.sleep(4)
    assert world.core(one).want is None
    await until(lambda: world.registry.open_now == 0, within_s=1)


async def test_what_holds_of_an_ended_wish_stays_to_be_found_again(world: World) -> None:
    one = blob(4 * PIECE)
    arrival = await half_here(world, one)
    await trio.sleep(KEEP_WANTING_S + 2)
    kept = world.arrivals.get(one.digest)
    assert kept and kept is not arrival and kept.present == 0b11
    assert kept.partial and pins(kept.partial) == 0, "what nobody wants may be evicted"
    world.registry.serve(one)
    again = await settled(want(world, one))
    assert again is kept
    await until(lambda: world.holds(one))
    assert world.registry.asked[-1].start == 2 * PIECE


async def test_an_ended_wish_of_which_nothing_holds_leaves_no_file(world: World) -> None:
    one = blob(4 * PIECE)
    world.registry.serve(one, silent_at=0)
    want(world, one)
    await until(lambda: world.store.partials())
    await trio.sleep(KEEP_WANTING_S + 2)
    assert world.arrivals.all() == []
    assert world.store.partials() == []
    assert world.core(one) is None


async def test_a_wish_ends_while_the_disk_is_slow(world: World, threads: Threads) -> None:
    """One sweep takes long over another blob's flush; what it looks at next may be gone by then."""
    slow, failing = blob(3 * PIECE, 1), blob(3 * PIECE, 2)
    await half_here(world, slow)
    await trio.sleep(KEEP_WANTING_S - 3)
    world.registry.serve(failing, silent_at=0)
    arrival = want(world, failing)
    arrival.keep_until = 0.0
    threads.before_s = 2.5
    world.arrivals.get(slow.digest).partial.mark(0, b"more")  # type: ignore[union-attr]
    await trio.sleep(1.5)
    world.arrivals.fail(failing.digest, "missing")
    await trio.sleep(10)
    assert world.arrivals.get(failing.digest) is None


# -- failures ------------------------------


async def test_when_nobody_can_get_it_the_clients_hear_why(world: World) -> None:
    arrival = await settled(want(world, blob(PIECE)))
    assert arrival.failure == "missing"
    assert world.arrivals.all() == []


async def test_a_failure_is_told_to_other_wanters_by_hold(world: World) -> None:
    held: list[tuple[str, int]] = []
    world.arrivals.on_hold = lambda upstream, seconds: held.append((upstream, seconds))
    one = blob(PIECE)
    want(world, one)
    world.arrivals.fail(one.digest, "limited", 30)
    assert held == [(HOST, 30)]


async def test_a_part_that_was_found_at_start_may_fail_without_an_upstream(world: World) -> None:
    """Nobody has said yet where it comes from."""
    world.arrivals.on_hold = lambda upstream, seconds: world.puller._upstreams.get(upstream).hold(seconds)
    one = blob(PIECE)
    world.arrivals._all[one.digest] = Arrival(one.digest, "blob", "", "")
    world.arrivals.fail(one.digest, "limited", 30)


async def test_after_wrong_bytes_a_healed_upstream_gives_the_right_ones(world: World) -> None:
    one = blob(5 * PIECE)
    world.registry.bodies[one.digest] = [Body(one.spoiled())]
    await settled(want(world, one))
    world.registry.serve(one)
    arrival = await settled(want(world, one))
    assert arrival.proven
    await until(lambda: world.holds(one))


async def test_no_room_in_the_store_makes_it_fail(make_world: Maker) -> None:
    world = make_world(limit=PIECE)
    one = blob(4 * PIECE)
    world.registry.serve(one)
    arrival = await settled(want(world, one))
    assert arrival.failure == "storage"
    await until(lambda: world.core(one) is None)


@pytest.mark.parametrize("size", [0, BLOB_SIZE_MAX + 1, 1 << 49])
async def test_a_size_that_no_blob_has_makes_it_fail(world: World, size: int) -> None:
    """A manifest may claim anything."""
    arrival = await settled(want(world, blob(PIECE), size=size))
    assert arrival.failure == "bad-answer"


async def test_a_manifest_is_not_given_the_room_of_a_layer(world: World) -> None:
    kept = blob(3 * PIECE)
    world.registry.serve(kept)
    await settled(want(world, kept))
    one = blob(PIECE, 9)
    world.registry.bodies[one.digest] = [Body(one.body, size=99_000_000)]
    arrival = world.arrivals.want("manifest", HOST, REPOSITORY, one.digest, -1)
    assert arrival
    await settled(arrival)
    assert arrival.failure == "bad-answer"
    assert world.holds(kept), "it was evicted for an impossible manifest"


async def test_a_full_disk_in_mid_blob_keeps_what_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = blob(6 * PIECE)
    world.registry.serve(one, rate=PIECE)
    arrival = want(world, one)
    await until(lambda: arrival.present == 0b11)
    with disk_full(monkeypatch, "write_all"):
        await settled(arrival)
        assert arrival.failure == "storage"
        await trio.sleep(1)
    kept = world.arrivals.get(one.digest)
    assert kept and kept.present & 0b11 == 0b11
    assert not world.core(one).term, "the lease must go to a node that has room"
    await trio.sleep(40)  # its own directory asks it no sooner
    assert (await settled(want(world, one))).proven
    await until(lambda: world.holds(one))
    assert world.registry.asked[-1].start >= 2 * PIECE


async def test_a_full_disk_while_upstream_is_faster_than_the_disk(
    world: World, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiving task waits to hand over a chunk in the moment in which the writing one fails."""
    one = blob(6 * PIECE)
    world.registry.serve(one)
    threads.before_s = 1.0
    arrival = want(world, one)
    await until(lambda: arrival.own_end)
    with disk_full(monkeypatch, "write_all"):
        await settled(arrival)
    assert arrival.failure == "storage"


async def test_a_broken_disk_at_the_commit_begins_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = blob(3 * PIECE)
    world.registry.serve(one)
    with disk_full(monkeypatch, "sync_data", error=StoreFailed):
        arrival = want(world, one)
        await until(lambda: arrival.failure)
    assert world.store.partials() == []
    await settled(want(world, one))
    await until(lambda: world.holds(one))


@pytest.mark.parametrize("call", ["unlink", "sync_directory"])
async def test_a_disk_that_removes_nothing_is_no_crash(
    world: World, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    one = blob(4 * PIECE)
    world.registry.serve(one, silent_at=0)
    want(world, one)
    await until(lambda: world.store.partials())
    with disk_full(monkeypatch, call, error=StoreFailed):
        await trio.sleep(KEEP_WANTING_S + 5)


# -- races with a wish that ends while its file is being made ------------------------------


async def test_a_wish_that_fails_while_its_file_is_made_leaves_no_pin(world: World, threads: Threads) -> None:
    one = blob(4 * PIECE)
    threads.after_s = 5.0
    arrival = want(world, one)
    await trio.sleep(1)
    world.arrivals.fail(one.digest, "missing")
    await trio.sleep(30)
    assert arrival.partial is None
    assert world.store.partials() == [], "a pinned file that nobody knows of"
    assert world.core(one) is None


async def test_a_wish_renewed_while_its_file_is_made_gets_the_file(world: World, threads: Threads) -> None:
    one = blob(4 * PIECE)
    threads.after_s = 0.5
    want(world, one)
    await trio.sleep(0.1)
    world.arrivals.fail(one.digest, "missing")
    world.registry.serve(one)
    arrival = await settled(want(world, one))
    assert arrival.proven
    await until(lambda: world.holds(one))
    assert world.store.partials() == []


# -- sizes that other nodes tell ------------------------------


@pytest.mark.parametrize("lie", [0, 3 * PIECE, 40 * PIECE, BLOB_SIZE_MAX + 1])
async def test_a_wrong_hint_does_not_keep_the_blob_away(world: World, lie: int) -> None:
    one = blob(4 * PIECE)
    world.registry.serve(one)
    world.registry.answers_after_s = 2.0
    arrival = want(world, one, size=-1)
    world.engine.execute([cmd.SizeHint(raw(one.digest), lie)])
    await trio.sleep(1)
    world.registry.answers_after_s = 0.0
    await settled(arrival)
    assert arrival.proven and arrival.size == one.size
    await until(lambda: world.holds(one))


async def test_a_manifests_size_goes_before_a_wrong_hint(world: World) -> None:
    one = blob(4 * PIECE)
    world.registry.serve(one)
    world.registry.answers_after_s = 5.0
    arrival = want(world, one, size=-1)
    world.engine.execute([cmd.SizeHint(raw(one.digest), 7 * PIECE)])
    await until(lambda: arrival.partial)
    want(world, one)
    await until(lambda: arrival.size == one.size)
    assert arrival.size_is_sure
    world.registry.answers_after_s = 0.0
    await until(lambda: world.holds(one))


# -- restarts ------------------------------


async def test_a_whole_blob_that_was_not_committed_is_committed_at_the_start(
    make_world: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, one = make_world(), blob(3 * PIECE)
    world.registry.serve(one)
    with disk_full(monkeypatch, "rename", error=StoreFull):
        arrival = want(world, one)
        await until(lambda: arrival.failure)
    (partial,) = world.store.partials()
    partial.flush()
    make_world.kill(world)
    world = make_world()
    await until(lambda: world.holds(one))
    assert world.registry.asked == []


@pytest.mark.parametrize("what", ["another version's record", "a state that contradicts the first one"])
async def test_a_recorded_piece_that_does_not_count_is_written_anew(make_world: Maker, what: str) -> None:
    """A file keeps the bytes of its marked pieces, so a mark that the core does not share would keep wrong bytes."""
    one = blob(4 * PIECE)
    states = one.states()

    def prepare(world: World) -> None:
        partial = world.store.partial(one.digest, one.size, PIECE)
        partial.write(0, one.piece(0))
        partial.mark(0, pack_record(states[0], states[1], None))
        partial.write(PIECE, bytes(PIECE))  # wrong bytes
        strange = b"?" if what.startswith("another") else pack_record(b"x" * 32, states[2], None)
        partial.mark(1, strange)
        partial.flush()

    world = make_world(prepare=prepare)
    world.registry.serve(one)
    assert world.core(one).present == 0b01
    assert (await settled(want(world, one))).proven
    await until(lambda: world.holds(one))


async def test_a_partial_cut_in_another_way_is_begun_anew(make_world: Maker) -> None:
    one = blob(4 * PIECE)

    def prepare(world: World) -> None:
        partial = world.store.partial(one.digest, one.size, 2 * PIECE)
        partial.write(0, bytes(2 * PIECE))
        partial.mark(0, bytes(64))

    world = make_world(prepare=prepare)
    world.registry.serve(one)
    assert (await settled(want(world, one))).proven
    await until(lambda: world.holds(one))


async def test_a_journal_of_an_impossible_blob_is_no_crash_at_the_start(make_world: Maker) -> None:
    digest = blob(1).digest

    def prepare(world: World) -> None:
        world.store.size_limit = 1 << 50
        partial = world.store.partial("sha256:" + "0" * 64, 1 << 10, 64)
        object.__setattr__(partial, "size", BLOB_SIZE_MAX + 1)

    world = make_world(prepare=prepare)
    assert world.arrivals.get(digest) is None


async def test_stored_blobs_are_told_to_the_core_at_the_start(make_world: Maker) -> None:
    one = blob(1000)
    world = make_world(prepare=lambda world: world.store.put(one.digest, one.body))
    assert world.engine.node.state.stored == {raw(one.digest): one.size}


# -- recording ------------------------------


async def test_a_checked_piece_is_recorded_within_seconds(world: World) -> None:
    one = blob(8 * PIECE)
    world.registry.serve(one, rate=PIECE / 4)
    arrival = want(world, one)
    await until(lambda: arrival.present)
    partial = arrival.partial
    assert partial
    for _ in range(20):
        await trio.sleep(1)
        if partial.unflushed_bytes:
            await trio.sleep(FLUSH_S + 1.5)
            assert len(partial._durable) >= 1


# -- eviction ------------------------------


async def stored(world: World, *blobs: Blob) -> None:
    for one in blobs:
        world.registry.serve(one)
        await settled(want(world, one))
        await until(lambda one=one: world.holds(one))  # type: ignore[misc]


async def test_the_core_hears_of_an_evicted_blob(make_world: Maker) -> None:
    world = make_world(limit=5 * PIECE)
    first, second = blob(3 * PIECE, 1), blob(3 * PIECE, 2)
    await stored(world, first, second)
    assert not world.holds(first)
    assert list(world.engine.node.state.stored) == [raw(second.digest)]
    assert world.core(first) is None


async def test_an_evicted_blob_can_be_had_again(make_world: Maker) -> None:
    world = make_world(limit=5 * PIECE)
    first, second = blob(3 * PIECE, 1), blob(3 * PIECE, 2)
    await stored(world, first, second, first)


async def test_a_blob_that_is_wanted_in_the_moment_of_its_eviction_can_be_had(world: World) -> None:
    """The wish comes before the core has heard that the store removed it."""
    one = blob(3 * PIECE)
    await stored(world, one)
    world.store.size_limit = 0
    assert world.store.evict() == [one.digest]
    world.store.size_limit = 1 << 30
    arrival = want(world, one)
    assert (await settled(arrival)).proven
    await until(lambda: world.holds(one))


async def test_a_blob_that_somebody_removed_by_hand_can_be_had_again(world: World) -> None:
    one = blob(3 * PIECE)
    await stored(world, one)
    os.unlink(world.store.root / "sha256" / one.digest[7:])
    assert world.store.open_blob(one.digest) is None
    assert (await settled(want(world, one))).proven
    await until(lambda: world.holds(one))


async def test_a_kept_part_is_forgotten_by_the_core_when_it_is_evicted(world: World) -> None:
    one = blob(4 * PIECE)
    await half_here(world, one)
    await trio.sleep(KEEP_WANTING_S + 2)
    assert world.core(one).present == 0b11
    world.store.size_limit = 0
    assert world.store.evict() == [one.digest]
    await trio.sleep(0.1)
    assert world.arrivals.get(one.digest) is None
    assert world.core(one) is None


async def test_a_kept_part_that_is_wanted_in_the_moment_of_its_eviction_is_begun_anew(world: World) -> None:
    one = blob(4 * PIECE)
    await half_here(world, one)
    await trio.sleep(KEEP_WANTING_S + 2)
    world.store.size_limit = 0
    assert world.store.evict() == [one.digest]
    world.store.size_limit = 1 << 30
    world.registry.serve(one)
    assert (await settled(want(world, one))).proven
    await until(lambda: world.holds(one))


# -- the core's commands ------------------------------


async def test_a_piece_of_a_blob_that_was_given_up_makes_the_core_forget_it(world: World) -> None:
    digest = raw(blob(PIECE).digest)
    world.engine.post(ev.Resumed(digest, 2 * PIECE, {}))
    assert world.engine.node.blob(digest)
    world.engine.execute([cmd.Keep(digest, 0, bytes(32), bytes(32), None)])
    assert world.engine.node.blob(digest) is None


async def test_a_proof_of_a_blob_that_was_given_up_is_no_proof(world: World) -> None:
    digest = raw(blob(PIECE).digest)
    world.engine.node.state.stored[digest] = PIECE
    world.engine.execute([cmd.Prove(digest)])
    assert digest not in world.engine.node.state.stored


async def test_the_states_of_a_stored_blob(world: World) -> None:
    one = blob(4 * PIECE + 5)
    await stored(world, one)
    computed: list[ev.ChainComputed] = []
    world.engine.post = computed.append  # type: ignore[assignment,method-assign]
    world.engine.execute([cmd.ComputeChain(raw(one.digest), one.size)])
    await until(lambda: computed)
    assert computed == [ev.ChainComputed(raw(one.digest), tuple(one.states()[1:]))]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
async def test_a_damaged_blob_is_not_handed_out_and_can_be_had_again(world: World, damage: str) -> None:
    one = blob(4 * PIECE)
    await stored(world, one)
    path = world.store.root / "sha256" / one.digest[7:]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(one.spoiled() if damage == "flipped" else one.body[:-1])
    computed: list[ev.ChainComputed] = []
    post = world.engine.post
    world.engine.post = lambda event: (computed.append(event), post(event))  # type: ignore
    world.engine.execute([cmd.ComputeChain(raw(one.digest), one.size)])
    await until(lambda: computed)
    assert computed == [ev.ChainComputed(raw(one.digest), None)]
    assert world.store.proven(one.digest) is None
    assert (await settled(want(world, one))).proven


async def test_few_blobs_are_hashed_at_a_time(world: World, threads: Threads) -> None:
    """A warm node that is asked for all it has must keep memory and threads for the rest."""
    blobs = [blob(1000, number) for number in range(20)]
    for one in blobs:
        world.store.put(one.digest, one.body)
    threads.before_s, threads.most = 1.0, 0
    for one in blobs:
        world.engine.execute([cmd.ComputeChain(raw(one.digest), one.size)])
    await trio.sleep(60)
    assert threads.most == 2


async def test_a_disk_that_can_not_remove_a_damaged_blob_is_no_crash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = blob(4 * PIECE)
    await stored(world, one)
    (world.store.root / "sha256" / one.digest[7:]).write_bytes(one.spoiled())
    with disk_full(monkeypatch, "unlink", error=StoreFailed):
        world.engine.execute([cmd.ComputeChain(raw(one.digest), one.size)])
        await trio.sleep(1)


# -- for the network ------------------------------


async def test_sources_and_sinks_of_what_is_not_here(world: World) -> None:
    assert world.arrivals.source(bytes(32)) is None
    assert world.arrivals.sink(bytes(32)) is None


async def test_a_source_that_was_evicted_is_none(world: World) -> None:
    one = blob(4 * PIECE)
    await half_here(world, one)
    await trio.sleep(KEEP_WANTING_S + 2)
    world.store.size_limit = 0
    world.store.evict()
    assert world.arrivals.source(raw(one.digest)) is None


async def test_a_peers_piece_that_finds_the_disk_full(world: World) -> None:
    one = blob(4 * PIECE)
    arrival = await half_here(world, one)
    world.arrivals.sink_failed(raw(one.digest), StoreFull("no space"))
    assert arrival.failure == "storage"
    await until(lambda: world.registry.open_now == 0, within_s=1)


async def test_an_upstream_that_breaks_off_is_asked_again(world: World) -> None:
    one = blob(6 * PIECE)
    world.registry.bodies[one.digest] = [Body(one.body, breaks_at=2.5 * PIECE), Body(one.body)]
    arrival = await settled(want(world, one))
    assert arrival.proven
    assert [a.start for a in world.registry.asked] == [0, 2 * PIECE]


async def test_an_unreachable_upstream(world: World) -> None:
    one = blob(PIECE)
    world.registry.bodies[one.digest] = [Body(error=Unreachable("no route"))]
    assert (await settled(want(world, one))).failure == "unreachable"


async def test_a_pull_under_way_ends_with_the_node(make_world: Maker) -> None:
    """Its end is no reason to begin the next one."""
    one = blob(3 * PIECE)
    async with trio.open_nursery() as nursery:
        maker = Maker(nursery, make_world.root)
        world = maker()
        world.registry.serve(one, silent_at=PIECE)
        want(world, one)
        await until(lambda: world.registry.open_now == 1)
        nursery.cancel_scope.cancel()
    assert (world.registry.open_now, len(world.registry.asked)) == (0, 1)
