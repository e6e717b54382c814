"""Simulated rollouts with deaths, liars and slow nodes: everybody honest ends, and upstream sends little twice."""

from __future__ import annotations

from random import Random

import pytest

from tests.swarm.fakes import digest_of
from tests.swarm.test_world_calm import MIB, RATE, bound
from tests.swarm.world import Host, World

SIZE = 12 * MIB  # 48 pieces
PIECES = 48
COPIES_MAX = 1.05  # of upstream, with the seeder killed


def begin(world: World, blob: bytes, size: int = SIZE, hosts: list[Host] | None = None) -> float:
    """The nodes want the blob, from now on."""
    world.wait(3.0)
    for host in world.hosts if hosts is None else hosts:
        world.want(host, blob, size)
    return world.now


def end(world: World, blob: bytes, seconds: float = 120.0) -> None:
    world.run(lambda: world.all_proven(blob), seconds)


def pull_until(world: World, blob: bytes, share: float) -> Host:
    """Until upstream has sent that share of the blob; the holder."""
    world.run(lambda: world.fetched(blob) >= share * PIECES)
    holder = world.holder(blob)
    assert holder
    return holder


# -- deaths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_the_seeder_dies(seed: int) -> None:
    dice, blob = Random(seed), digest_of(f"blob {seed}")
    nodes, share = dice.choice([3, 6, 10]), dice.uniform(0.3, 0.7)
    print(f"{nodes} nodes, dies at {share:.2f}")
    world = World(nodes, seed)
    began = begin(world, blob)
    world.kill(pull_until(world, blob, share))
    end(world, blob)
    assert world.upstream_copies(blob) <= COPIES_MAX
    assert world.now - began <= 1.3 * bound(SIZE, nodes) + 2.5
    assert not any(h.blamed or h.failed for h in world.hosts)


@pytest.mark.parametrize("seed", range(4))
def test_two_seeders_die(seed: int) -> None:
    blob = digest_of(f"blob {seed}")
    world = World(7, seed)
    begin(world, blob)
    for share in (0.3, 0.6):
        world.kill(pull_until(world, blob, share))
    end(world, blob)
    assert world.upstream_copies(blob) <= 1 + 2 * (COPIES_MAX - 1)


@pytest.mark.parametrize("seed", range(6))
def test_the_seeder_dies_without_a_tracker(seed: int) -> None:
    blob = digest_of(f"blob {seed}")
    world = World(6, seed, trackers=0)
    world.announce_members()
    begin(world, blob)
    world.kill(pull_until(world, blob, 0.5))
    end(world, blob)
    assert world.upstream_copies(blob) <= COPIES_MAX + 0.02


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ghosts", [8, 60, 300])
def test_most_of_what_mdns_shows_is_not_there(seed: int, ghosts: int) -> None:
    """A rack has lost its power, or somebody on the network makes names up."""
    blob = digest_of(f"blob {seed}")
    world = World(6, seed, trackers=0)
    world.announce_members(ghosts)
    began = begin(world, blob)
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0
    assert world.now - began <= 1.3 * bound(SIZE, 6) + 3 + 2.5 * ghosts / 50


@pytest.mark.parametrize("seed", range(6))
def test_the_seeder_starts_again_with_what_it_had(seed: int) -> None:
    blob = digest_of(f"blob {seed}")
    world = World(5, seed)
    begin(world, blob)
    seeder = pull_until(world, blob, 0.5)
    world.kill(seeder)
    had = set(seeder.kept[blob])
    assert had
    world.wait(0.5)
    world.revive(seeder)
    world.wait(0.1)
    assert set(seeder.kept[blob]) >= had
    world.want(seeder, blob, SIZE)
    end(world, blob)
    assert blob in seeder.proven
    assert world.upstream_copies(blob) <= COPIES_MAX


@pytest.mark.parametrize("seed", range(3))
def test_a_lone_seeder_starts_again(seed: int) -> None:
    blob = digest_of(f"blob {seed}")
    world = World(1, seed)
    begin(world, blob)
    seeder = pull_until(world, blob, 0.5)
    world.kill(seeder)
    world.revive(seeder)
    begin(world, blob)
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_a_third_of_the_nodes_dies_one_by_one(seed: int) -> None:
    dice, blob = Random(seed), digest_of(f"blob {seed}")
    world = World(12, seed)
    began = begin(world, blob)
    for host in dice.sample(world.hosts, 4):
        world.at(began + dice.uniform(0.1, 1.2), lambda h=host: world.kill(h))
    end(world, blob)
    assert world.upstream_copies(blob) <= 1 + 4 * (COPIES_MAX - 1)
    assert world.now - began <= 1.6 * bound(SIZE, 12) + 4 * 2.5


@pytest.mark.parametrize("seed", range(6))
def test_the_tracker_dies(seed: int) -> None:
    dice, blob = Random(seed), digest_of(f"blob {seed}")
    world = World(8, seed)
    world.announce_members()
    began = begin(world, blob)
    world.at(began + dice.uniform(0.05, 1.2), lambda: world.kill_server(world.servers[0]))
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0
    assert world.now - began <= 1.3 * bound(SIZE, 8) + 0.5


@pytest.mark.parametrize("seed", range(4))
def test_the_tracker_dies_and_then_the_seeder(seed: int) -> None:
    blob = digest_of(f"blob {seed}")
    world = World(8, seed)
    world.announce_members()
    began = begin(world, blob)
    world.at(began + 0.3, lambda: world.kill_server(world.servers[0]))
    world.wait(0.4)
    world.kill(pull_until(world, blob, 0.6))
    end(world, blob)
    assert world.upstream_copies(blob) <= COPIES_MAX


@pytest.mark.parametrize("seed", range(4))
def test_one_of_two_trackers_dies(seed: int) -> None:
    blob = digest_of(f"blob {seed}")
    world = World(8, seed, trackers=2)
    began = begin(world, blob)
    world.at(began + 0.4, lambda: world.kill_server(world.servers[0]))
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_connections_break_at_random(seed: int) -> None:
    dice, blob = Random(seed), digest_of(f"blob {seed}")
    world = World(8, seed)
    began = begin(world, blob)

    def break_one() -> None:
        host = dice.choice(world.hosts)
        nodes = [number for number, (other, _) in host.peers.items() if isinstance(other, Host)]
        if nodes:
            world.close(host, dice.choice(nodes))

    for i in range(40):
        world.at(began + i * 0.03, break_one)
    end(world, blob)
    assert world.upstream_copies(blob) <= COPIES_MAX


# -- two holders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_two_halves_that_meet_keep_one_holder(seed: int) -> None:
    """Each half has its own tracker and its own holder; then all hear of each other."""
    blob = digest_of(f"blob {seed}")
    world = World(0, seed, trackers=2)
    both = world.servers
    for half in range(2):
        world.servers = both[half : half + 1]
        for _ in range(4):
            world.add_host(RATE)
        world.wait(0.1)
    world.servers = both
    began = begin(world, blob)
    world.wait(0.3)
    assert sum(1 for h in world.hosts if h.node.blob(blob).term) == 2
    world.announce_members()
    world.at(began + 0.3, lambda: world.kill_server(both[0]))
    world.at(began + 0.3, lambda: world.kill_server(both[1]))
    end(world, blob)
    world.wait(1)
    assert sum(1 for h in world.hosts if h.node.blob(blob).term) == 0
    assert world.upstream_copies(blob) < 2.0


# -- upstream ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["missing", "denied", "unreachable", "bad-answer"])
def test_some_nodes_upstream_gives_nothing(reason: str) -> None:
    for seed in range(3):
        blob = digest_of(f"blob {seed}")
        world = World(6, seed)
        for host in Random(seed).sample(world.hosts, 4):
            host.upstream_reason = reason
        begin(world, blob)
        end(world, blob)
        assert world.upstream_copies(blob) == 1.0
        assert not any(h.failed for h in world.hosts)


@pytest.mark.parametrize(("reason", "seconds"), [("missing", 0.5), ("denied", 0.5), ("unreachable", 6)])
def test_nobodys_upstream_gives_anything(reason: str, seconds: float) -> None:
    """Each is tried in turn. Who could not be reached may have had something before: the next one asks around first."""
    blob = digest_of("blob")
    world = World(6, 1)
    for host in world.hosts:
        host.upstream_reason = reason
    began = begin(world, blob)
    world.run(lambda: all(blob in h.failed for h in world.hosts), 20)
    assert {h.failed[blob] for h in world.hosts} == {reason}
    assert world.now - began < seconds
    assert world.upstream_copies(blob) == 0


def test_a_registry_that_asks_one_to_wait_is_left_alone_by_all() -> None:
    blob = digest_of("blob")
    world = World(6, 1)
    for host in world.hosts:
        host.upstream_reason = "limited"
    begin(world, blob)
    world.run(lambda: all(blob in h.failed for h in world.hosts), 20)
    assert {h.failed[blob] for h in world.hosts} == {"limited"}
    for host in world.hosts:
        host.upstream_reason = ""
    world.wait(6)
    begin(world, blob)
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_upstream_sends_wrong_bytes_to_all(seed: int) -> None:
    """Nobody proves it, everything is dropped, nobody honest is blamed; healed, it is got as ever."""
    blob = digest_of(f"blob {seed}")
    world = World(6, seed)
    for host in world.hosts:
        host.wrong_from = 20
    begin(world, blob)
    world.run(lambda: all(blob in h.failed for h in world.hosts), 60)
    assert {h.failed[blob] for h in world.hosts} == {"wrong-bytes"}
    world.wait(2)
    assert not any(h.proven for h in world.hosts)
    assert not any(h.kept.get(blob) for h in world.hosts)
    assert not any(b.node_id for h in world.hosts for b in h.blamed)
    for host in world.hosts:
        host.wrong_from = 1 << 30
    world.wait(40)
    world.upstream_pieces.clear()
    begin(world, blob)
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_one_nodes_upstream_sends_wrong_bytes(seed: int) -> None:
    """The lease goes on to another; the honest ones end without a new wish."""
    blob = digest_of(f"blob {seed}")
    world = World(6, seed)
    begin(world, blob)
    world.run(lambda: world.holder(blob) is not None)
    liar = world.holder(blob)
    liar.wrong_from = 10
    end(world, blob)
    assert not any(h.failed for h in world.hosts)
    assert world.upstream_copies(blob) <= 2.1
    blamed = {b.node_id for h in world.hosts for b in h.blamed if b.node_id}
    assert not blamed


# -- liars ------------------------------------------------------------------------------------------------------------


def stays_blamed(world: World, host: Host) -> bool:
    return any(h.node.state.is_avoided(host.id) for h in world.hosts if h is not host)


@pytest.mark.parametrize("seed", range(8))
def test_a_third_of_the_nodes_flips_bytes(seed: int) -> None:
    dice, blob = Random(seed), digest_of(f"blob {seed}")
    world = World(9, seed)
    begin(world, blob, hosts=[])
    liars = dice.sample(world.hosts, 3)
    odds = dice.choice([0.2, 1.0])
    for liar in liars:
        mine = Random(seed + liar.number)
        liar.corrupt = lambda index, mine=mine: mine.random() < odds
    honest = [h for h in world.hosts if h not in liars]
    began = world.now
    for host in world.hosts:  # the lease is an honest node's: what a seeder says of its own bytes is believed
        world.want(host, blob, SIZE, can_pull=host in honest)
    world.run(lambda: all(blob in h.proven for h in honest), 120)
    assert world.upstream_copies(blob) <= 1.0 + 2 * (COPIES_MAX - 1)
    assert not [b for h in honest for b in h.blamed if b.node_id and b.node_id not in {x.id for x in liars}]
    assert not any(stays_blamed(world, h) for h in honest)
    assert any(stays_blamed(world, h) for h in liars)
    print(f"{(world.now - began) / bound(SIZE, 9):.2f} of the bound with odds {odds}")


# -- slow nodes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_slow_nodes_do_not_hold_the_others_up(seed: int) -> None:
    dice, blob = Random(seed), digest_of(f"blob {seed}")
    world = World(10, seed)
    begin(world, blob, hosts=[])
    for host in dice.sample(world.hosts, 2):
        host.rate = RATE / 10
    fast = [h for h in world.hosts if h.rate == RATE]
    began = world.now
    for host in world.hosts:
        world.want(host, blob, SIZE, can_pull=host in fast)
    world.run(lambda: all(blob in h.proven for h in fast), 60)
    print(f"{(world.now - began) / bound(SIZE, 10):.2f} of the bound")
    # This world sends what is in a node's places one after the other, where a line is shared: a figure for slow nodes
    # is the simulator's to tell (docs/simulator.md). Here they must not become the measure of all (10).
    assert world.now - began <= 2.5 * bound(SIZE, 10)
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_an_upstream_that_is_slower_than_the_fleet(seed: int) -> None:
    blob = digest_of(f"blob {seed}")
    world = World(6, seed, upstream_rate=RATE / 4)
    began = begin(world, blob)
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0
    assert world.now - began <= 1.15 * SIZE / (RATE / 4)


@pytest.mark.parametrize("seed", range(3))
def test_an_upstream_that_is_faster_than_the_fleet(seed: int) -> None:
    blob = digest_of(f"blob {seed}")
    world = World(6, seed, upstream_rate=10 * RATE)
    began = begin(world, blob)
    end(world, blob)
    assert world.upstream_copies(blob) == 1.0
    assert world.now - began <= 1.25 * bound(SIZE, 6)
