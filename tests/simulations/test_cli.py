"""`p2pd-sim` as an operator types it: help, a table, JSON, a page, and an error for what can't be."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from simulations.cli import main
from simulations.options import ALL, SECTIONS
from simulations.reading import KINDS
from simulations.scenario import Scenario

ROOT = Path(__file__).parents[2]
SMALL = ["--nodes", "6", "--image", "3MB/2", "--link", "10MB/s"]
PROMISED = {
    "p50_s", "p90_s", "p99_s", "p999_s", "slowest_s", "bound_s", "upstream_copies", "duplicate_ratio",
    "cross_zone_copies", "unfinished", "transfers", "cpu_s", "seed",
}  # fmt: skip


def sim(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_every_parameter_has_one_option_under_one_heading() -> None:
    assert list(ALL) != sorted(ALL)
    assert set(ALL) == set(KINDS)
    assert sum(map(len, SECTIONS.values())) == len(ALL)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_each_command_has_examples_that_it_understands(name: str) -> None:
    command = main.commands[name]
    assert isinstance(command, click.Command)
    text = sim(name, "--help").output
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith("p2pd-sim ")]
    assert examples
    for example in examples:
        words = shlex.split(example)
        assert words[1] == name
        with command.make_context(name, words[2:], resilient_parsing=True) as context:
            known = {option for parameter in command.get_params(context) for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_help_shows_every_parameter() -> None:
    text = sim("rollout", "--help").output
    for name in ALL:
        assert f"--{name.replace('_', '-')}" in text
    assert all(f"{heading}:" in text for heading in SECTIONS)


def test_a_rollout_prints_a_table_and_writes_the_promised_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    result = sim("rollout", *SMALL, "--zones", "2", "--seed", "5", "--json", str(file))
    assert result.exit_code == 0, result.output
    for word in (
        "p50", "p90", "p99", "p99.9", "slowest", "the bound", "over the bound", "upstream copies", "duplicate bytes",
        "refused requests a transfer", "copies that enter a zone", "sent by a node",
    ):  # fmt: skip
        assert word in result.output
    figures = json.loads(file.read_text())
    assert set(figures) >= PROMISED
    assert figures["seed"] == 5
    assert figures["unfinished"] == 0
    assert 0 < figures["bound_s"] <= figures["p50_s"] <= figures["p999_s"] <= figures["slowest_s"]


def test_slow_nodes_stand_apart_with_their_own_bound() -> None:
    result = sim("rollout", *SMALL, "--stragglers", "34%:0.1")
    assert result.exit_code == 0, result.output
    assert "slowest of the slow nodes" in result.output
    bound, own = (
        re.search(rf"{words} +│ +([\d.]+) │ +1.000", result.output) for words in ("the bound", "nodes' bound")
    )
    assert bound
    assert own
    assert float(own[1]) > 5 * float(bound[1])


def test_a_scenario_file_with_options_over_it(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text('nodes = 5\nimage = ["1MB", "2MB"]\nlink = "10MB/s"\n[settings]\nnews_s = 0.02\n')
    result = sim("rollout", str(scenario), "--nodes", "7")
    assert result.exit_code == 0, result.output
    assert "7 nodes, 3.0 MB in 2 layers" in result.output


def test_a_report_is_one_page_with_its_pictures_and_the_command_that_repeats_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "report.html"
    options = [*SMALL, "--stragglers", "17%:0.5", "--zones", "2", "--oversubscription", "2", "--set", "news_s=0.02"]
    result = sim("rollout", *options, "--report", str(file))
    assert result.exit_code == 0, result.output
    text = file.read_text()
    assert text.count("<svg") == 5
    assert "http://" not in re.sub(r"xmlns(:\w+)?=\"[^\"]*\"|<!DOCTYPE[^>]*>|rdf:\w+=\"[^\"]*\"", "", text)
    again = re.search(r"<pre>(p2pd-sim rollout [^<]*)</pre>", text)
    assert again
    assert sorted(shlex.split(again[1])[2:]) == sorted(options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--nodes", "0"], "nodes: 0; allowed: 1 to 20000"),
        (["--nodes", "many"], "nodes: 'many' is not a whole number"),
        (["--link", "0"], "link: '0' is not a rate"),
        (["--link", "0MB/s"], "link: '0MB/s' is not a rate"),
        (["--stragglers", "300%:0.1"], "stragglers: 300 %; allowed: 0% to 100%"),
        (["--stragglers", "10%"], "stragglers: '10%'; allowed: share:factor"),
        (["--stragglers", "100%:0.1"], "stragglers: 100 % of the nodes; allowed: below 100%"),
        (["--deaths", "100%"], "deaths: 100 % of the nodes"),
        (["--image", "nothing"], "image: 'nothing' is neither a size nor a file"),
        (["--zones", "200"], "zones: 200; allowed: 1 to 100"),
        (["--oversubscription", "0.5"], "oversubscription: 0.5; allowed: 1 to"),
        (["--arrival", "-1"], "arrival: -1; allowed: 0 to"),
        (["--partition", "2"], "partition: it never ends"),
        (["--set", "newz_s=1"], "settings.newz_s: no such parameter; did you mean 'news_s'?"),
        (["--set", "news_s"], "allowed: NAME=VALUE"),
        (["--json", "/no/such/place/x.json"], "there is no directory /no/such/place"),
        (["--report", "/no/such/place/x.html"], "there is no directory /no/such/place"),
    ],
)
def test_what_can_t_be_is_an_error_that_names_it(options: list[str], says: str) -> None:
    result = sim("rollout", *options)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_an_unknown_key_of_a_scenario_is_named_with_its_file(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text("nodez = 5\n")
    result = sim("rollout", str(scenario))
    assert result.exit_code == 2
    assert f"{scenario}: nodez: no such parameter; did you mean 'nodes'?" in " ".join(result.output.split())


def test_nodes_that_do_not_end_are_an_exit_code() -> None:
    result = sim("rollout", *SMALL, "--seconds-most", "0.1")
    assert result.exit_code == 1
    assert "not finished: 6 nodes" in result.output


def test_nobody_to_time_is_said() -> None:
    result = sim("rollout", *SMALL, "--cached", "100%:2")
    assert result.exit_code == 0, result.output
    assert "No times" in result.output


WITHOUT = """
import sys
sys.modules["matplotlib"] = None
from simulations.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "options", [["rollout", "--report", "x.html"], ["sweep", "--vary", "nodes=2", "--plot", "x.svg"]]
)
def test_without_matplotlib_only_pictures_are_missing(options: list[str], tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT, *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)}
        )

    asked = run(*options)
    assert asked.returncode == 1
    assert f"{options[-2]} needs matplotlib" in asked.stderr
    assert "p2pd[sim]" in asked.stderr
    assert list(tmp_path.iterdir()) == []
    plain = run(options[0], "--nodes", "2", "--image", "1MB", *(options[1:3] if options[0] == "sweep" else ()))
    assert plain.returncode == 0, plain.stderr


def test_the_default_scenario_is_krakens_size() -> None:
    """What the defaults mean stands in README.md and in the help."""
    assert Scenario().image == (1_500_000_000,) * 2
    assert Scenario().link == 300e6
