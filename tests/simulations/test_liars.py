"""Nodes that mean harm, simulated: each lie once, and some drawn together. `p2pd-sim hunt --liars` runs more seeds."""

from __future__ import annotations

import pytest

from simulations.hunt import try_seed
from simulations.liars import FORGED_RUN, LIES, TRUE, compress
from simulations.results import figures, simulate
from simulations.scenario import LIES as NAMES
from simulations.scenario import Scenario
from simulations.verdict import draw, problems
from simulations.world import World

SCENARIO = Scenario(nodes=8, image=(9_000_000,), link=10e6, upstream=10e6, seed=3, check=True)
SEEDS = range(1, 9)


def run(**changes: object) -> World:
    world = simulate(SCENARIO.but(**changes))
    assert figures(world)["unfinished"] == 0
    return world


def test_every_lie_has_a_name() -> None:
    assert set(LIES) == set(NAMES)


@pytest.mark.parametrize("lie", NAMES)
def test_the_honest_ones_get_the_blob(lie: str) -> None:
    world = run(liars=(lie,))
    assert problems(world) == []


def test_a_lying_seeder_is_convicted_by_everybody() -> None:
    world = run(liars=("forges-seed",))
    assert world.liars
    [liar] = world.liars.of
    assert world.liars.convicted == {liar: {host.number for host in world.hosts} - {liar}}
    assert world.liars.seeded


def test_a_forged_run_is_convicted_and_costs_no_copy() -> None:
    world = run(liars=("forges-run",), seed=4)
    assert world.liars
    assert set(world.liars.convicted) == set(world.liars.of)
    assert not world.liars.seeded
    assert world.pulls.bytes_sent == world.scenario.total


@pytest.mark.parametrize("seed", SEEDS)
def test_several_at_once(seed: int) -> None:
    assert not try_seed(seed, liars=True)


def test_the_draw_is_the_same_each_time_and_names_at_most_a_third() -> None:
    for seed in range(100):
        texts = draw(seed)
        assert texts == draw(seed)
        assert 1 <= len(texts["liars"].split(",")) <= int(texts["nodes"]) // 3


def test_only_true_pieces_lead_along_the_true_chain() -> None:
    layer = World(SCENARIO).image[0]
    assert compress(layer, 3, layer.states[3], TRUE) == layer.states[4]
    assert compress(layer, 3, layer.states[3], b"forged") != layer.states[4]
    assert compress(layer, 3, bytes(32), TRUE) != layer.states[4]
    assert layer.geometry.count >= 3 * FORGED_RUN
