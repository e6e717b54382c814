"""Three hundred seeds of mixed faults at small size. A failing one is printed with the command that replays it."""

from __future__ import annotations

import shlex

import click
import pytest
from click.testing import CliRunner

from simulations import hunt
from simulations.cli import main
from simulations.hunt import draw, try_seed
from simulations.options import command_of, scenario_of, scenario_options
from simulations.reading import build

SEEDS = range(1, 301)


@pytest.mark.parametrize("seed", SEEDS)
def test_mixed_faults(seed: int) -> None:
    problem = try_seed(seed)
    assert not problem, problem


def test_the_draw_is_the_same_each_time_and_differs_by_seed() -> None:
    assert draw(7) == draw(7)
    assert len({tuple(draw(seed).items()) for seed in SEEDS}) == len(SEEDS)


def test_every_fault_is_drawn() -> None:
    drawn = {name for seed in SEEDS for name in draw(seed)}
    assert set(hunt.FAULTS) <= drawn


def test_the_printed_command_is_the_same_scenario() -> None:
    seen = []

    @click.command()
    @scenario_options
    def catch(parameters: dict[str, str]) -> None:
        seen.append(scenario_of(parameters))

    for seed in SEEDS:
        words = shlex.split(command_of(draw(seed)))
        assert words[:2] == ["p2pd-sim", "rollout"]
        result = CliRunner().invoke(catch, words[2:])
        assert result.exit_code == 0, result.output
        assert seen.pop() == build(draw(seed))


def test_a_failing_seed_is_printed_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = hunt.draw
    monkeypatch.setattr(hunt, "draw", lambda seed: real(seed) | {"events_most": "50"})
    result = CliRunner().invoke(main, ["hunt", "--seeds", "3-4"])
    assert result.exit_code == 1
    assert "seed 3:" in result.output
    assert "p2pd-sim rollout --nodes" in result.output
    assert "--seed 4" in result.output
    assert "2 failed" in result.output


def test_bad_seeds_are_an_error() -> None:
    result = CliRunner().invoke(main, ["hunt", "--seeds", "5-1"])
    assert result.exit_code == 2
    assert "allowed: 1-5" in result.output
