"""The models do what they say: the schedule is optimal, nothing beats the bound, like is compared with like."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.compare import Incomparable, case_of, compare
from simulations.models import Case, direct, hypercube, hypercube_rounds, layerwise, rarest_first
from simulations.models.hypercube import ScheduleError, play
from simulations.models.rarest import Swarm, _counts
from simulations.scenario import Scenario, Share


def case(nodes: int, pieces: int, *, layers: int = 2, upstream: float = 1e6, seed: int = 1) -> Case:
    """Links of 1 MB/s, pieces of 100 kB: a round is 0.1 s."""
    size = pieces * 100_000
    return Case(nodes, 1e6, upstream, (size // layers,) * layers, pieces, seed)


@pytest.mark.parametrize("nodes", [*range(1, 36), 63, 64, 65, 100, 127, 128, 129, 500])
@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 30])
def test_the_schedule_needs_exactly_m_plus_floor_log_n_rounds(nodes: int, pieces: int) -> None:
    ends, sent = play(nodes, pieces)
    assert len(ends) == nodes
    assert ends[-1] == hypercube_rounds(nodes, pieces)
    assert pieces <= sent <= pieces + nodes.bit_length() - 1


@settings(max_examples=30, deadline=None)
@given(nodes=st.integers(1, 3000), pieces=st.integers(1, 60))
def test_the_schedule_is_optimal_for_any_numbers(nodes: int, pieces: int) -> None:
    ends, _ = play(nodes, pieces)
    assert ends[-1] == pieces + (nodes.bit_length() - 1)


@pytest.mark.parametrize("nodes", [1, 2, 12, 31, 32])
def test_one_round_less_is_not_enough(nodes: int) -> None:
    """The count is of rounds that were played: with one less the schedule says that it did not end."""
    with pytest.raises(ScheduleError, match=f"of {nodes} nodes had not all 5 pieces"):
        play(nodes, 5, rounds=hypercube_rounds(nodes, 5) - 1)


def test_the_hypercube_takes_the_bound_and_follows_a_slow_upstream() -> None:
    assert hypercube(case(16, 100)).seconds[-1] == pytest.approx(10.4)
    assert hypercube(case(16, 100, upstream=0.5e6)).seconds[-1] == pytest.approx(20.4)
    assert hypercube(case(16, 100)).rounds == 104


def test_without_p2p_upstream_sends_each_byte_to_each_node() -> None:
    outcome = direct(case(50, 100))
    assert list(outcome.seconds) == pytest.approx([500.0] * 50)
    assert outcome.upstream_copies == 50
    assert direct(case(50, 100, upstream=1e9)).seconds[0] == pytest.approx(10.0)


@pytest.mark.parametrize("nodes, expected", [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4)])
def test_one_whole_layer_doubles_its_holders_while_upstream_has_done_its_part(nodes: int, expected: int) -> None:
    """Upstream sends the one layer once; from then on its holders double: 1, 2, 4, ..."""
    outcome = layerwise(case(nodes, 10, layers=1))
    holders, steps = 1, 1
    while holders < nodes:
        holders, steps = 2 * holders, steps + 1
    assert outcome.seconds[-1] == pytest.approx(steps * 1.0)
    assert len(outcome.seconds) == nodes
    assert expected <= steps


def test_layers_of_any_sizes_reach_everybody_but_not_before_the_bound() -> None:
    sizes = (700_000, 100_000, 1_300_000, 400_000)
    outcome = layerwise(Case(37, 1e6, 1e6, sizes, 25, seed=3))
    assert outcome.seconds[0] > 0
    assert outcome.seconds[-1] >= sum(sizes) / 1e6 * (1 + 5 / 25)


@pytest.mark.parametrize("seed", range(5))
def test_rarest_first_never_beats_the_bound_and_loses_much(seed: int) -> None:
    outcome = rarest_first(case(40, 60, seed=seed))
    assert outcome.rounds >= hypercube_rounds(40, 60)
    assert 1.2 < outcome.seconds[-1] / 6.5 < 3.0


def test_rarest_first_is_the_same_for_the_same_seed() -> None:
    assert rarest_first(case(30, 40, seed=9)).seconds == rarest_first(case(30, 40, seed=9)).seconds
    assert rarest_first(case(30, 40, seed=9)).seconds != rarest_first(case(30, 40, seed=8)).seconds


def test_rarest_first_waits_for_a_slow_upstream() -> None:
    assert rarest_first(case(10, 40, upstream=0.25e6)).rounds >= 160


def test_a_round_moves_at_most_one_piece_over_each_link() -> None:
    swarm, rng = Swarm(12, 30, Random(1)), Random(2)
    for number in range(60):
        before = list(swarm.have)
        queued = [len(queue) for queue in swarm.queues]
        swarm.play_round(1 << number if number < 30 else 0)
        assert all((now ^ then).bit_count() <= 1 for now, then in zip(swarm.have, before, strict=True))
        assert all(len(queue) >= was - 1 for queue, was in zip(swarm.queues, queued, strict=True))
        rng.random()


@given(st.lists(st.integers(0, 255), max_size=20))
def test_counts_stand_upright(sets: list[int]) -> None:
    planes = _counts(sets)
    for piece in range(8):
        count = sum((plane >> piece & 1) << place for place, plane in enumerate(planes))
        assert count == sum(one >> piece & 1 for one in sets)


def test_the_case_is_the_scenario_s() -> None:
    scenario = Scenario(nodes=7, image=(3_000_000, 1_000_000), link=1e6, upstream=2e6, seed=5)
    assert case_of(scenario) == Case(7, 1e6, 2e6, (3_000_000, 1_000_000), scenario.pieces, 5)


@pytest.mark.parametrize("change", [{"stragglers": Share(0.1, 0.1)}, {"deaths": 0.1}, {"zones": 2}, {"arrival": 3.0}])
def test_what_the_models_do_not_know_is_refused_by_its_name(change: dict) -> None:
    with pytest.raises(Incomparable, match=next(iter(change))):
        case_of(Scenario(nodes=10).but(**change))


def test_the_command_prints_all_rows_and_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    options = ["--nodes", "12", "--image", "4MB", "--link", "10MB/s", "--json", str(file)]
    result = CliRunner().invoke(compare, options)
    assert result.exit_code == 0, result.output
    about = json.loads(file.read_text())
    rows = {row["name"]: row for row in about["rows"]}
    assert rows["hypercube"]["rounds"] == about["pieces"] + 3
    assert rows["hypercube"]["slowest_over_bound"] == pytest.approx(1.0)
    assert [row["is_model"] for row in about["rows"]] == [True, True, True, True, False]
    assert all(row["slowest_s"] >= about["bound_s"] * 0.999 for row in about["rows"])
    assert rows["no P2P"]["upstream_copies"] == 12
    assert "model: hypercube" in result.output


def test_the_command_names_a_parameter_that_it_can_t_compare() -> None:
    result = CliRunner().invoke(compare, ["--nodes", "12", "--deaths", "10%"])
    assert result.exit_code == 2
    assert "deaths" in result.output
