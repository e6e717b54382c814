"""What README.md and docs/ name exists: commands and options, make targets, modules, keys, metrics, bounds, links.

Not whether the prose is right. Reads the pages as text; imports of p2pd what is to be compared.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest

from p2pd.admin import Metrics
from p2pd.cli import main as p2pd
from p2pd.config import Config, env_name, load_config
from p2pd.config.kinds import KINDS_OF_UPSTREAM, Context
from p2pd.config.load import KINDS, TABLES
from p2pd.swarm.messages import NUMBERS, Message
from p2pd.units import parse_duration, parse_size
from p2pd.upstream.config import WELL_KNOWN
from simulations.cli import main as simulator
from tracker.admin import Shown
from tracker.cli import main as tracker

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {"p2pd": p2pd, "p2pd-tracker": tracker, "p2pd-sim": simulator}
NOT_YET = {"rollout", "gc", "verify", "doctor"}  # named where the pages say that they are not there

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def text_of(path: Path) -> str:
    return path.read_text()


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(page, text) of each fenced block of one language."""
    for page in PAGES:
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL):
            yield page.name, match[1]


def command_lines() -> Iterator[tuple[str, str]]:
    """(page, line) of everything that is to be typed: lines of sh blocks, and code in the text."""
    for page, block in blocks("sh"):
        yield from ((page, line) for line in block.splitlines())
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
        yield from ((page.name, match[1]) for match in re.finditer(r"`([^`\n]+)`", prose))


def our_commands() -> list[tuple[str, list[str]]]:
    """(page, words) of p2pd's own commands, from the command's name on."""
    found = []
    for page, line in command_lines():
        for part in re.split(r"&&|\|(?!\|)|;", line):
            try:
                words = shlex.split(part)
            except ValueError:
                continue
            while words and ("=" in words[0] and words[0].startswith("P2PD_")):
                words.pop(0)
            name = words[0].rpartition("/")[2] if words else ""
            if name in COMMANDS and len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*|--?[a-z-]+", words[1]):
                found.append((page, [name, *words[1:]]))
    return found


def test_commands_are_found_at_all():
    seen = {" ".join(words[:2]) for _, words in our_commands()}
    assert {
        "p2pd run",
        "p2pd status",
        "p2pd top",
        "p2pd pull",
        "p2pd hosts",
        "p2pd-tracker run",
        "p2pd-sim rollout",
    } <= seen


@pytest.mark.parametrize(("page", "words"), our_commands(), ids=lambda value: " ".join(value)[:60] if value else "")
def test_command_and_its_options_exist(page: str, words: list[str]):
    command: click.Command = COMMANDS[words[0]]
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if words[0] == "p2pd" and name in NOT_YET:
            assert name not in _parts(command), f"{page}: {name} is there now"
            return
        assert name in _parts(command), f"{page}: {' '.join(words)}"
        command = _parts(command)[name]
    with command.make_context(words[0], list(rest), resilient_parsing=True) as context:
        known = {option for parameter in command.get_params(context) for option in parameter.opts}
    used = {word.partition("=")[0] for word in rest if word.startswith("-")}
    assert used <= known | {"--version", "--help", "-h"}, f"{page}: {' '.join(words)}"


def test_every_command_is_described():
    everything = "\n".join(text_of(page) for page in PAGES)
    for name in _leaves("p2pd", p2pd) | _leaves("p2pd-tracker", tracker) | _leaves("p2pd-sim", simulator):
        assert name in everything, name


def _leaves(name: str, command: click.Command) -> set[str]:
    if not isinstance(command, click.Group):
        return {name}
    return {leaf for word, part in _parts(command).items() for leaf in _leaves(f"{name} {word}", part)}


def _parts(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    return {name: part for name in group.list_commands(context) if (part := group.get_command(context, name))}


# -- make and modules -------------------------------------------------------------------------------------------------


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_targets_exist():
    named = {match for page, line in command_lines() for match in re.findall(r"^make ([a-z]+)", line)}
    assert {"run", "test", "install", "demo", "bench"} <= named
    assert named <= make_targets()


def test_make_targets_are_described_in_the_readme():
    assert {name for name in make_targets() if f"`make {name}`" not in text_of(ROOT / "README.md")} <= {"help"}


def test_help_lists_every_phony_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) - {"help"} <= make_targets()


def test_modules_that_are_run_exist():
    source = "\n".join([(ROOT / "Makefile").read_text(), *(text_of(page) for page in PAGES)])
    modules = set(re.findall(r"python -m ([a-z0-9_.]+)", source))
    assert modules >= {"tests.demo", "tests.bench.fanout"}
    assert {name for name in modules if importlib.util.find_spec(name) is None} == set()


def test_every_bench_is_run_by_make_and_described():
    benches = {path.stem for path in (ROOT / "tests" / "bench").glob("*.py") if "def main(" in path.read_text()}
    assert benches
    for name in benches:
        assert f"-m tests.bench.{name}" in (ROOT / "Makefile").read_text()
        assert f"-m tests.bench.{name}" in text_of(ROOT / "docs" / "benchmarks.md")


def test_gate_calls_make_test():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert script.rstrip().endswith("make test")


# -- configuration ----------------------------------------------------------------------------------------------------


def rows(section: str, page: str = "configuration.md") -> list[list[str]]:
    """The cells of a page's table under one heading, without its header."""
    text = text_of(ROOT / "docs" / page).split(f"## {section}\n", 1)[1]
    text = re.split(r"^##+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def defaults() -> Config:
    return load_config(ROOT / "tests" / "__init__.py", {}, environ={})  # an empty file is a configuration


@pytest.mark.parametrize("table", TABLES)
def test_configuration_lists_exactly_the_keys_and_defaults(table: str):
    shown = {row[0].strip("`"): row for row in rows(f"[{table}]")}
    assert list(shown) == list(KINDS[table])
    context = Context(Path("/"), {}, [])
    for key, row in shown.items():
        assert row[3].partition(",")[0] == f"`{env_name(table, key)}`"
        if (table, key) == ("node", "name"):
            continue
        value: Any = tomllib.loads(f"x = {row[1].strip('`')}")["x"]
        assert KINDS[table][key].read(value, context) == getattr(getattr(defaults(), table), key), key


def test_configuration_lists_exactly_the_keys_of_an_upstream():
    assert [row[0].strip("`") for row in rows('[upstreams."HOST"]')] == list(KINDS_OF_UPSTREAM)


def test_configuration_lists_exactly_the_well_known_registries():
    text = text_of(ROOT / "docs" / "configuration.md")
    listed = re.search(r"There by default are (.*?)\. Any other", text, re.DOTALL)
    assert listed
    assert set(re.findall(r"`([^`]+)`", listed[1])) == set(WELL_KNOWN)


def test_configuration_has_no_other_tables():
    headings = re.findall(r"^## \[(.*)\]$", text_of(ROOT / "docs" / "configuration.md"), re.MULTILINE)
    assert headings == [*TABLES, 'upstreams."HOST"']


@pytest.mark.parametrize(("page", "text"), list(blocks("toml")))
def test_configurations_that_are_shown_can_be_used(page: str, text: str, tmp_path: Path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "registry-password").write_text("s3cret\n")
    (secrets / "ca.pem").write_text("")
    file = tmp_path / "p2pd.toml"
    file.write_text(text.replace("/etc/p2pd/ca.pem", str(secrets / "ca.pem")))
    config = load_config(file, {}, environ={"CREDENTIALS_DIRECTORY": str(secrets)})
    assert config != defaults()


def test_settings_that_are_shown_can_be_used():
    shown = [words for _, words in our_commands() if "--set" in words]
    assert shown
    for words in shown:
        settings = [after for word, after in pairwise(words) if word == "--set"]
        load_config(ROOT / "tests" / "__init__.py", dict(s.split("=", 1) for s in settings if "." in s), environ={})


# -- metrics, messages, bounds ----------------------------------------------------------------------------------------


def test_metrics_are_exactly_those_that_exist():
    metrics = Metrics("1")
    metrics.piece_rejected("x")
    metrics.handshake_refused("foreign-certificate")
    metrics.upstream_request("x", "blob", 200)
    lines = metrics.exposition().decode().splitlines()
    real = {re.split(r"[{ ]", line)[0]: _labels(line) for line in lines if line.startswith("p2pd_")}
    told = {}
    for name, *_ in rows("Metrics", "operations.md"):
        match = re.fullmatch(r"`(p2pd_\w+)(?:\{(.*)\})?`", name)
        if match:
            told[match[1]] = set(match[2].split(",")) if match[2] else set()
    assert told == real


def _labels(line: str) -> set[str]:
    return set(re.findall(r"[{,](\w+)=", line))


def test_metrics_in_queries_exist():
    text = Metrics("1").exposition().decode()
    names = {name for page in PAGES for name in re.findall(r"\bp2pd_[a-z_]+", text_of(page))}
    assert names
    text += Shown(None).exposition().decode()
    assert {name for name in names if f"# TYPE {name.removesuffix('_total')}" not in text} <= {"p2pd_build_info"}


def test_messages_are_exactly_those_of_the_protocol():
    kinds = Message.__args__  # type: ignore[attr-defined]
    told = {int(row[0]): row[1].strip("`") for row in rows("The wire", "design.md")}
    assert told == {NUMBERS[kind]: kind.__name__ for kind in kinds}


def bounds() -> list[tuple[str, str]]:
    return re.findall(r"^\| `((?:p2pd|tracker)\.[\w.]+)` \| ([^|]+) \|", text_of(ROOT / "docs" / "limits.md"), re.M)


@pytest.mark.parametrize(("name", "value"), bounds())
def test_bound_is_what_the_code_says(name: str, value: str):
    assert _quantity(value.strip()) == _constant(name)


def test_bounds_are_found_at_all():
    assert len(bounds()) > 30


def _constant(name: str) -> Any:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if importlib.util.find_spec(".".join(parts[:1])) and _is_module(parts[:end]):
            found: Any = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = (
                    getattr(found, part) if not isinstance(found, type) else found.__dataclass_fields__[part].default
                )
            return found
    raise AssertionError(f"{name} is in no module")


def _is_module(parts: list[str]) -> bool:
    return (ROOT / Path(*parts)).with_suffix(".py").exists() or (ROOT / Path(*parts) / "__init__.py").exists()


def _quantity(text: str) -> float:
    compact = text.replace(" ", "").replace(",", "")
    try:
        return parse_duration(compact)
    except ValueError:
        return parse_size(compact)


# -- dependencies -----------------------------------------------------------------------------------------------------


def _names(requirements: list[str]) -> list[str]:
    return [re.split(r"[<>=!~ ]", requirement)[0] for requirement in requirements]


def test_dependencies_are_exactly_those_of_the_project():
    development = _names(PROJECT["optional-dependencies"]["dev"])
    assert sorted(row[0].strip("`") for row in rows("At run time", "dependencies.md")) == _names(
        PROJECT["dependencies"]
    )
    assert sorted(row[0].strip("`") for row in rows("For development", "dependencies.md")) == development


def test_dependencies_are_exactly_what_is_imported():
    imported = set()
    for path in [*(ROOT / "p2pd").rglob("*.py"), *(ROOT / "tracker").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"p2pd", "tracker"}
    projects = {"yaml": "pyyaml"}  # where it is not the module's own name
    named = {projects.get(name, name.replace("_", "-")) for name in others}
    assert named == set(_names(PROJECT["dependencies"]))


def test_lock_file_pins_every_dependency_and_names_no_index():
    lock = (ROOT / "requirements.lock").read_text()
    for name in _names(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]):
        assert re.search(rf"^{re.escape(name)}==\S+ \\$", lock, re.MULTILINE), f"{name}: run `make lock`"
    assert re.findall(r"^-.*|\w+://.*|(?<!no-emit-)(?:index-url|find-links|trusted-host).*", lock, re.MULTILINE) == []


# -- links ------------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """A heading's anchor as the usual renderers make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?://", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", text_of(file), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, target


def test_every_page_is_reached_from_the_readme():
    readme = text_of(ROOT / "README.md")
    assert {page.name for page in PAGES[1:] if page.name not in readme} == set()


def test_lines_fit_an_editor():
    for page in PAGES:
        long = [line for line in text_of(page).splitlines() if len(line) > 120 and not line.startswith("|")]
        assert long == [], page.name
