"""What no rollout can beat, and the shapes whose time is known: the swarm's own code in the simulated world."""

from __future__ import annotations

import pytest

from p2pd.swarm.pieces import PIECE_SIZE_MIN
from simulations.hosts import Arriving, Host
from simulations.results import figures, simulate
from simulations.scenario import Scenario
from simulations.world import World

RATE = 1e6
ROUND = PIECE_SIZE_MIN / RATE  # seconds for one piece on one line
PLAIN = {"link": RATE, "latency": 1e-6, "upstream_delay": 0.0, "send_buffer": 0.0, "check_rate": 0.0, "piece_cost": 0.0}
AT_ONCE = (("news_s", 0.0),)


def blob(pieces: int) -> tuple[int]:
    return (pieces * PIECE_SIZE_MIN,)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("nodes", "pieces"), [(1, 4), (2, 6), (3, 1), (5, 9), (8, 4), (13, 20), (16, 3)])
@pytest.mark.parametrize("buffer", [0.0, 65536.0, 4e6])
def test_no_run_beats_the_bound(nodes: int, pieces: int, seed: int, buffer: float) -> None:
    """One blob, one source of rate B, a common start: max(M + floor(log2 N) rounds, the fluid bound)."""
    scenario = Scenario(nodes=nodes, image=blob(pieces), seed=seed, **PLAIN | {"send_buffer": buffer})
    result = figures(simulate(scenario))
    assert result["unfinished"] == 0
    rounds = pieces + nodes.bit_length() - 1
    assert result["slowest_s"] >= rounds * ROUND * (1 - 1e-6)
    assert result["slowest_s"] >= scenario.total / RATE
    assert result["bound_s"] == pytest.approx(rounds * ROUND)


@pytest.mark.parametrize("seed", range(3))
def test_one_slow_upstream_is_all_that_counts(seed: int) -> None:
    """Upstream at r: F / r, however many nodes."""
    scenario = Scenario(nodes=12, image=blob(40), upstream=RATE / 8, seed=seed, **PLAIN)
    result = figures(simulate(scenario))
    assert result["bound_s"] == pytest.approx(scenario.total / (RATE / 8))
    assert result["bound_s"] <= result["slowest_s"] <= 1.05 * result["bound_s"]
    assert result["upstream_copies"] == pytest.approx(1.0)


def run_from_one(scenario: Scenario, may_meet) -> float:  # type: ignore[no-untyped-def]
    """Seconds until all have what node 0 has from the beginning on, counted from the first byte that left it."""
    world = World(scenario, may_meet=may_meet)
    arriving = world.hosts[0].layers[world.image[0].digest] = Arriving(world.image[0], world.clock.now)
    arriving.proven = arriving.is_done = True
    arriving.present = world.image[0].geometry.all
    world.run()
    assert world.pulls.bytes_sent == 0
    return max(h.done_at for h in world.hosts) - min(h.first_at for h in world.hosts) + ROUND


@pytest.mark.parametrize(("hops", "pieces"), [(1, 12), (2, 20), (4, 40)])
def test_a_chain_takes_m_plus_n_minus_1_rounds(hops: int, pieces: int) -> None:
    def neighbours(one: Host, other: Host | None) -> bool:
        return other is None or abs(one.number - other.number) == 1

    scenario = Scenario(nodes=hops + 1, image=blob(pieces), settings=AT_ONCE, **PLAIN)
    seconds = run_from_one(scenario, neighbours)
    rounds = pieces + hops - 1
    assert rounds * ROUND * (1 - 1e-6) <= seconds <= rounds * ROUND * 1.02


@pytest.mark.parametrize(("leaves", "pieces"), [(1, 10), (3, 12), (6, 8)])
def test_a_star_takes_n_times_m_rounds(leaves: int, pieces: int) -> None:
    def only_the_middle(one: Host, other: Host | None) -> bool:
        return other is None or 0 in (one.number, other.number)

    scenario = Scenario(nodes=leaves + 1, image=blob(pieces), settings=AT_ONCE, **PLAIN)
    seconds = run_from_one(scenario, only_the_middle)
    rounds = leaves * pieces
    assert rounds * ROUND * (1 - 1e-6) <= seconds <= rounds * ROUND * 1.05
